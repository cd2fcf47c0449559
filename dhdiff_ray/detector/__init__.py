"""The paper's check: does a localiser trained on the pairs find real defects (section IV-D)."""
