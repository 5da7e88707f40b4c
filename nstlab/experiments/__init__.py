"""The classic experiments E1 to E12: sweeps over the recipes' settings, the claims that they are to check, and the sheets
that show them."""
