"""The knobs of drawing pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dhdiff_ray.config.base import First, Frozen, Research


class SynthesizeConfig(Frozen):
    """Drawing pairs."""

    pairs_per_defect: First[int] = Field(default=1000, ge=1)
    """Pairs per defect; the paper makes 1000."""
    steps: int = Field(default=20, ge=1, le=1000)
    """Denoising steps of DPM-Solver++."""
    guidance: float = Field(default=3.0, ge=0)
    """Classifier-free guidance scale; 1 or less switches it off."""
    start: Research[Literal["noise", "base"]] = "noise"
    """Start from pure noise, or from the noised base image and raw mask (the paper's figure)."""
    strength: Research[float] = Field(default=1.0, gt=0, le=1)
    """How far ``start = base`` is noised; 1 is pure noise."""
    background: First[Literal["free", "keep", "clean"]] = "free"
    """``keep`` puts the re-noised base back outside the raw mask at each step, ``clean`` the base itself (ours)."""
    fade: bool = False
    """Where the base is kept: what is drawn beside a made mask passes into it towards the raw mask's edge (ours)."""
    control: Research[bool] = True
    """Give the raw mask to the network as the control map S^O (Eq. 7)."""
    min_iou: First[float] = Field(default=0.0, ge=0, lt=1)
    """Draw a pair again whose mask agrees less than this with what a localiser trained on real pairs sees; 0: never."""
    redraws: int = Field(default=3, ge=0)
    """Most further tries of a pair whose mask is empty, or agrees less than ``min_iou``; 0 keeps what comes first."""
    shard_size: int = Field(default=8, ge=1)
    """Pairs made together in one batch; fixed, so that the number of workers cannot change a pixel."""
    workers: int = Field(default=0, ge=0)
    """Samplers; 0 means as many as the cluster has room for."""
    cpus_per_worker: int = Field(default=1, ge=1)
    """CPU cores one sampler may use."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the U-Net while it draws, in serving too; bf16 wants a GPU, or a processor that knows it."""
    compile: bool = False
    """Compile the U-Net (``torch.compile``, needs a C++ compiler) in each sampler: a minute, then faster batches."""
    gpus_per_worker: First[float] = Field(default=0, ge=0)
    """GPUs one sampler asks for."""
