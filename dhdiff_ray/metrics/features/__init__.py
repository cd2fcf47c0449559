"""The feature networks behind the scores: published, small real ones, or random ones."""
