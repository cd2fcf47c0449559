"""Drawn surfaces that fill the whole image; what they share is in ``surfaces``."""
