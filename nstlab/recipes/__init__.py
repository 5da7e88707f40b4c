"""Recipes: from settings to an objective and a first picture."""
