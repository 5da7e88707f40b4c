"""Films: every frame of a clip repainted, so that it looks like the frame before (Ruder,
Dosovitskiy, Brox 2016)."""
