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
    """Adam's learning rate; AdamW's where the network is pretrained."""
    network: Research[Literal["small", "draem", "pretrained"]] = "draem"
    """The peers' U-Net, DRAEM's discriminative network; a smaller one for small images; or, for photographs, a small
    head on an ImageNet network that stays as it is, which needs ``pip install 'dhdiff-ray[pretrained]'``."""
    channels: Research[int] = Field(default=64, ge=4)
    """Channels of the localiser's first level, of which DRAEM's network has 64; or those that the head on a pretrained
    network brings each of four layers to, of which 16 are enough."""
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
    real_share: Research[float] = Field(default=0.5, ge=0, lt=1)
    """Least share of real ones among the defects shown, where others are shown too; 0 shows all alike."""
    seeds: int = Field(default=1, ge=1)
    """Trainings per kind, seeded from ``run.seed`` on; figures are means then, and can be told apart."""
    baselines: tuple[
        Literal[
            "real",
            "real_synthetic",
            "pasted",
            "real_pasted",
            "real_pasted_synthetic",
            "cutpaste",
            "draem",
            "normal",
        ],
        ...,
    ] = ("real",)
    """Also trained, for scale: on as many real pairs; on real defects cut out and pasted onto normal images; on sums of
    real, pasted and made ones; on pasted rectangles, on pasted Perlin shapes; or a fit to normal images alone."""
