"""Painting while somebody watches."""
