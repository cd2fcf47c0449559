"""One file, one dataset."""
