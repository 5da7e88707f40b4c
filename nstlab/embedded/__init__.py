"""The network that comes with the package, and how it was made: see README.md beside this file.

`drawing` · `corpus` (pictures) · `student` (the network) · `teachers`, `distillation` (what it learns) · `scoring` (how
well it does) · `training` (the command).
"""
