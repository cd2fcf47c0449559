"""The knobs of the detectors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dhdiff_ray.config.base import First, Frozen, Research


class DetectConfig(Frozen):
    """The paper's check: a U-Net localiser (section IV-D)."""

    steps: First[int] = Field(default=6000, ge=1)
    """Optimiser steps per detector."""
    batch_size: int = Field(default=16, ge=1)
    """Images per step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's learning rate."""
    network: Research[Literal["small", "draem"]] = "draem"
    """The peers' U-Net, DRAEM's discriminative network, or a smaller one for small images."""
    channels: Research[int] = Field(default=64, ge=4)
    """Channels of the localiser's first level; DRAEM's network has 64."""
    loss: Research[Literal["focal", "dice"]] = "focal"
    """The peers' focal loss, or cross-entropy plus Dice."""
    decay: Research[Literal["steps", "cosine"]] = "steps"
    """Learning rate: a fifth at 80 % and again at 90 % of the steps, as the peers; or along a cosine."""
    select: Research[Literal["last", "heldout", "test"]] = "last"
    """Which weights are kept: the last, those best on a tenth of the training pairs that is held out, or those best
    on the test set: the peers' way, optimistic, for comparison with their figures only."""
    judge_every: int = Field(default=500, ge=1)
    """Steps between looks at the held-out pairs or the test set."""
    mask_rule: Research[Literal["nonzero", "peers"]] = "nonzero"
    """Test pixels that count as defect: all not zero; or, as the peers, for AUROC and AP only whole ones."""
    normal_fraction: Research[float] = Field(default=0.5, ge=0, lt=1)
    """Share of a batch that is normal images; the peers use half."""
    baselines: tuple[Literal["real", "real_synthetic", "cutpaste", "draem", "normal"], ...] = ("real",)
    """Also trained, for scale: on as many real pairs, on both, on pasted rectangles, on pasted Perlin shapes; or a fit
    to normal images alone."""
