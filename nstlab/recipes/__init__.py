"""Recipes: settings in, an objective and a first picture out."""
