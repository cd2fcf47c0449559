"""Clusters: a private one, a standing one, a remote one; and the jobs sent to them."""
