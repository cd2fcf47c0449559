"""Which real images, and how they are cut."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dhdiff_ray.config.base import First, Frozen, Research


class DataConfig(Frozen):
    """Which real images, and how they are cut (sections III-B and IV-B)."""

    dataset: First[str] = "mvtec"
    """Name of a dataset loader, or a path to a Python file that registers one."""
    root: First[str] = ""
    """Folder of the dataset as downloaded; must be visible to every node of the cluster."""
    categories: First[tuple[str, ...]] = ()
    """Categories to work on; empty means all that the dataset has."""
    resolution: First[int] = Field(default=256, ge=16)
    """Side of the square working image in pixels; the paper uses 256."""
    grid: Research[int] = Field(default=5, ge=1)
    """K of the K x K raw mask; the paper uses 5."""
    train_fraction: float = Field(default=0.5, gt=0, lt=1)
    """Share of each defect's anomalies that may be trained on, with ``split = fraction``; the paper uses half."""
    split: First[Literal["fraction", "half", "third", "full", "kshot", "given"]] = "fraction"
    """Which anomalies train, of each defect: ``train_fraction``, n//2, n//3 (the peers), ``shots``, or as the data
    says. ``full`` trains on ``train_fraction`` and tests on all: it holds training images, as the paper's test set."""
    shots: int = Field(default=4, ge=1)
    """Anomalies per defect that may be trained on with ``split = kshot``."""
    several_defects: Literal["combined", "each"] = "combined"
    """An image with several defects is one sample of the defect ``combined``, or one sample of each."""
    manifest: str = ""
    """CSV or JSONL table below the root: what ``folder`` lists (default manifest.csv or manifest.jsonl), or which
    official split ``visa`` follows (default split_csv/1cls.csv)."""
    images: str = ""
    """``folder`` without a manifest: where images lie, such as ``{category}/{defect}/*.jpg``."""
    masks: str = ""
    """``folder`` without a manifest: where masks lie, such as ``{category}/masks/{defect}/{stem}.png``."""
    skip_bad: bool = False
    """Leave out unreadable images and anomalies without a mask (each is named) instead of stopping."""
