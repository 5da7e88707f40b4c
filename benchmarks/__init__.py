"""What is measured, and the tables."""
