"""What is kept: runs on disk, tables of them, and sweeps that make many."""
