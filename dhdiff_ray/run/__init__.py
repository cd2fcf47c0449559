"""A run: its folder, its split, its lease, its events and how far it is."""
