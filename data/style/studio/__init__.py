"""The painting tools and the pictures behind `make.py`."""
