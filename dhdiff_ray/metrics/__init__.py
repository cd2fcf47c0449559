"""Exact metrics that can be computed in parts and merged."""
