"""One self-contained page to look at."""
