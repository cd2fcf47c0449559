"""The knobs of scoring the pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dhdiff_ray.config.base import First, Frozen, Research


class ScoreConfig(Frozen):
    """Scoring the pairs."""

    features: First[Literal["standin", "small", "inception"]] = "inception"
    """Which networks: the published ones (``inception``), small real ones, or random ones that need no file. Scores of
    others than the published ones say so in their names."""
    metrics: tuple[Literal["is", "ic_lpips", "originality", "kid", "masks"], ...] = (
        "is",
        "ic_lpips",
        "originality",
        "kid",
        "masks",
    )
    """Which scores to compute."""
    profile: Literal["anomalydiffusion", "full", "cdc", "dfmgan", "seas"] = "anomalydiffusion"
    """Whose rule IC-LPIPS follows: ``metrics/profiles.py`` has each."""
    backbone: Research[Literal["", "vgg", "alex", "squeeze"]] = ""
    """Backbone of LPIPS; empty is the profile's own (VGG-16, for ``dfmgan`` AlexNet)."""
    weights_dir: First[str] = ""
    """Folder with the networks' files; empty means PyTorch's hub cache."""
    backbone_file: Research[str] = ""
    """Weights of your own for the LPIPS backbone; their scores are named ``_own``."""
    inception_file: Research[str] = ""
    """Weights of your own for Inception; their scores are named ``_own``."""
    download: bool = False
    """Fetch missing files from their publishers."""
    splits: Research[int] = Field(default=10, ge=1)
    """Splits of the Inception Score; torch-fidelity's default is 10."""
    cluster_size: Research[int] = Field(default=0, ge=0)
    """Most images of one IC-LPIPS cluster that are compared; 0 is the profile's own (AnomalyDiffusion: 50)."""
    seeds: Research[int] = Field(default=5, ge=1)
    """Seeded draws from large clusters that IC-LPIPS averages over, beginning at ``run.seed``."""
    alignment: bool = True
    """Compare each mask with what a localiser trained on real masks sees in its image."""
    workers: int = Field(default=0, ge=0)
    """Feature extractors; 0 means as many as the cluster has room for."""
