"""Clusters: a private one, a standing one, somebody's; what is sent to them."""
