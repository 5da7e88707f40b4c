"""How the networks that come with the package are made."""
