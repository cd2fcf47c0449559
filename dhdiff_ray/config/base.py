"""What every part of the configuration has in common, and how knobs are ranked for a reader."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class Rank(StrEnum):
    """Who turns a knob; ``config show`` prints them in this order. It changes no value and no digest."""

    first = "turn these first"
    ordinary = "others"
    research = "research: the method's own switches; a preset has set them"


First = Annotated[T, Rank.first]
"""Type of a knob that a user turns first: ``root: First[str]``."""
Research = Annotated[T, Rank.research]
"""Type of a knob that questions the method itself."""


class Frozen(BaseModel):
    """Base of all configuration: immutable, unknown keys refused, docstrings kept as descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
