"""Double Helix Diffusion on Ray: defect images together with their pixel masks."""

__version__ = "0.1.0"
