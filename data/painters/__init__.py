"""The painting tools and the pictures behind `paint.py`."""
