"""What a foundation is trained on: several datasets, or several parts of one."""

from __future__ import annotations

from pydantic import Field, field_validator

from dhdiff_ray.config.base import Frozen

FOUNDATION_NAME = "foundation"
"""Name of the model that a recipe with sources trains, where a category's name would stand."""


class Source(Frozen):
    """One dataset, or some categories of it, and how often it is drawn from."""

    dataset: str = Field(min_length=1)
    """Name of a dataset loader, or a path to a Python file that registers one."""
    root: str = ""
    """Folder or URI of the dataset; empty is ``data.root``. Must be visible to every node of the cluster."""
    categories: tuple[str, ...] = ()
    """Categories to learn from; empty means all that the dataset has."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How often it is drawn from, relative to the other sources."""

    @field_validator("categories")
    @classmethod
    def _check_categories(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """A name given twice would count twice."""
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"{', '.join(twice)} is named twice; name each category once, and use weight for its share"
            )
        return names
