"""Every knob: frozen pydantic models; each field's docstring gives its unit and, where it has one, the paper's value.

``config/load.py`` loads them as preset <- recipe <- environment <- ``--set`` and tells where each value came from.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import Field, model_validator

from dhdiff_ray.config.base import First, Frozen, Research
from dhdiff_ray.config.data import DataConfig
from dhdiff_ray.config.detect import DetectConfig
from dhdiff_ray.config.model import ModelConfig
from dhdiff_ray.config.score import ScoreConfig
from dhdiff_ray.config.serve import ServeConfig
from dhdiff_ray.config.sources import Source
from dhdiff_ray.config.synthesize import SynthesizeConfig
from dhdiff_ray.config.train import TrainConfig

NEWER: dict[str, dict[str, Any]] = {
    "synthesize": {"placement": "free"},
    "detect": {"augment": False, "pairs": 0, "real_share": 0.5, "seeds": 1},
}
"""Knobs that some runs are older than, by part, left out of the digest while they have this default."""


class RunConfig(Frozen):
    """Where results go."""

    name: First[str] = ""
    """Name of the run: one folder under ``storage``."""
    storage: First[str] = "runs"
    """Folder or URI (s3://, gs://) that holds runs; must be visible to every node of the cluster."""
    seed: First[int] = 0
    """Seed of everything that draws random numbers: split, training, pairs."""


class AblationRow(Frozen):
    """One row of a table: a name and what differs from the recipe."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Short name; it ends up in the name of the row's runs."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys and their values, as with ``--set``."""
    paper: float | None = None
    """The paper's figure of this row (pixel AP in percent, on its own dataset)."""


class AblationConfig(Frozen):
    """A table of runs (section IV-E): each row trained, sampled and judged alike, once per seed."""

    rows: Research[tuple[AblationRow, ...]] = ()
    """Rows; empty means that the recipe is an ordinary run."""
    seeds: Research[tuple[int, ...]] = (0, 1, 2)
    """Each row is run with these values of ``run.seed``: training, pairs and detector."""
    table: Research[str] = ""
    """Which of the paper's tables this is, for the heading."""


class Config(Frozen):
    """Everything a run is determined by; stored as ``config.json`` in the run."""

    run: RunConfig = Field(default_factory=RunConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    sources: First[tuple[Source, ...]] = ()
    """Datasets that one model is trained on, the foundation; empty: a model for each category of ``data``."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    synthesize: SynthesizeConfig = Field(default_factory=SynthesizeConfig)
    score: ScoreConfig = Field(default_factory=ScoreConfig)
    detect: DetectConfig = Field(default_factory=DetectConfig)
    serve: ServeConfig = Field(default_factory=ServeConfig)
    ablation: AblationConfig = Field(default_factory=AblationConfig)

    @model_validator(mode="after")
    def _one_model_of_its_sources(self) -> Config:
        """Which categories a foundation learns from stands in its sources, and a table is of categories."""
        if self.sources and self.data.categories:
            raise ValueError("a recipe with sources names categories in each of them; leave out data.categories")
        if self.sources and self.ablation.rows:
            raise ValueError("a table's rows are trained by category; leave out ablation.rows, or sources")
        return self

    def digest(self) -> str:
        """Hash of what determines a category's results: not where they lie, nor which are asked for or served."""
        left_out: dict[str, bool | set[str]] = {"serve": True, "ablation": True, "run": {"storage", "name"}}
        left_out |= {
            "data": {"categories"},
            "synthesize": {"unit_seconds", "layout"},
            "train": {"trackers", "resize_seconds", "step_seconds"},
        }
        content = self.model_dump(mode="json", exclude=left_out)
        if not self.sources:  # runs on disk are older than this key
            del content["sources"]
        for part, knobs in NEWER.items():
            content[part] = {k: v for k, v in content[part].items() if k not in knobs or v != knobs[k]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
