"""The knobs of drawing pairs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from dhdiff_ray.config.base import First, Frozen, Research


class SynthesizeConfig(Frozen):
    """Drawing pairs."""

    pairs_per_defect: First[int] = Field(default=1000, ge=1)
    """Pairs per defect; the paper makes 1000."""
    steps: int = Field(default=20, ge=1, le=1000)
    """Denoising steps of DPM-Solver++."""
    guidance: float = Field(default=3.0, ge=0)
    """Classifier-free guidance scale; 1 or less switches it off."""
    start: First[Literal["noise", "base", "reference"]] = "noise"
    """Start from pure noise; from the noised base image and raw mask (the paper's figure); or from the reference's
    defect and its fine mask, placed on the base and noised (the paper's III-B, read literally)."""
    strength: First[float | tuple[float, float]] = 1.0
    """How far ``start = base`` or ``reference`` is noised; 1 is pure noise. For ``reference`` also ``[least, most]``:
    drawn from there by each pair's seed, as [0.15, 0.6]; 0 is the placed defect as the autoencoder gives it back."""
    placement: Literal["own", "free"] = "free"
    """With ``start = reference``: the defect's own place and shape, or a place on the product that fits, turned, scaled
    and warped a little (and mirrored, if ``train.flips``). Where a user draws, it goes there."""
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
    layout: Literal["mvtec", "webdataset"] = "mvtec"
    """How pairs lie on the storage: two PNG each in MVTec's tree, or 512 at a time as a tar and a Parquet file of rows,
    for a hundred thousand pairs and more. A run has one layout; tables of runs always have the first."""
    unit_seconds: float = Field(default=0, ge=0)
    """Longest a batch may take before its worker is ended and it is begun elsewhere; 0 follows the batches so far."""
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

    @property
    def strengths(self) -> tuple[float, float]:
        """The least and the most that a start is noised."""
        return self.strength if isinstance(self.strength, tuple) else (self.strength, self.strength)

    @field_validator("strength", mode="before")
    @classmethod
    def _check_strength(cls, value: Any, info: ValidationInfo) -> Any:
        """One line for a number or a range, where pydantic would have one for each part of the union.

        Raises:
            ValueError: neither, or what only a start from a reference has.
        """
        bounds = list(value) if isinstance(value, list | tuple) else [value, value]
        numbers = len(bounds) == 2 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in bounds)
        if not numbers or not 0 <= bounds[0] <= bounds[1] <= 1:
            raise ValueError("give a share of the noise schedule up to 1, or [least, most], as [0.15, 0.6]")
        if info.data.get("start") != "reference" and (bounds[0] == 0 or bounds[0] != bounds[1]):
            raise ValueError("0 and [least, most] are for a start from a reference; set synthesize.start = reference")
        return value
