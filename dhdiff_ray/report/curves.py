"""Loss curves as coordinates for inline SVG, one per category (Eq. 8 over the steps)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEIGHT = 420, 170
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 24
POINTS = 300
"""Most points of one line."""


@dataclass(frozen=True)
class Curve:
    """One category's loss in a box of ``WIDTH`` x ``HEIGHT`` units."""

    category: str
    raw: str
    """Points of the loss as told."""
    smooth: str
    """Points of its running mean."""
    last: float
    """The running mean at the end."""
    steps: int
    x_ticks: list[tuple[float, str]]
    """Places along the axis and what stands there."""
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM
    top: int = TOP


def loss_curves(events: Iterable[dict[str, Any]]) -> list[Curve]:
    """A curve for each category that told its loss; after a restart the later word on a step counts."""
    losses: dict[str, dict[int, float]] = {}
    for event in events:
        loss, done = event.get("loss"), event.get("done")
        if event.get("verb") != "train" or not isinstance(done, int) or not isinstance(loss, int | float):
            continue
        if math.isfinite(loss):
            losses.setdefault(str(event.get("category", "")), {})[done] = float(loss)
    return [_curve(name, points) for name, points in sorted(losses.items()) if len(points) > 1]


def _curve(category: str, points: dict[int, float]) -> Curve:
    steps = np.array(sorted(points))
    losses = np.array([points[step] for step in steps])
    # A mean over a twentieth of the curve shows its course; single losses mostly show which noise level was drawn.
    window = max(1, len(losses) // 20)
    sums = np.cumsum(np.insert(losses, 0, 0))
    starts = np.maximum(np.arange(1, len(losses) + 1) - window, 0)
    smooth = (sums[1:] - sums[starts]) / (np.arange(1, len(losses) + 1) - starts)
    top = float(np.quantile(losses, 0.99)) * 1.05 or 1.0
    kept = np.unique(np.linspace(0, len(steps) - 1, min(POINTS, len(steps))).round().astype(int))
    return Curve(
        category=category,
        raw=_path(steps[kept], losses[kept], top),
        smooth=_path(steps[kept], smooth[kept], top),
        last=float(smooth[-1]),
        steps=int(steps[-1]),
        x_ticks=[(_x(tick, steps[-1]), f"{tick:,}") for tick in _ticks(float(steps[-1]))],
        y_ticks=[(_y(tick, top), f"{tick:g}") for tick in _ticks(top)],
    )


def _path(steps: np.ndarray, values: np.ndarray, top: float) -> str:
    return " ".join(f"{_x(s, steps[-1]):.1f},{_y(min(v, top), top):.1f}" for s, v in zip(steps, values, strict=True))


def _x(step: float, last: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * float(step) / max(float(last), 1)


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)


def _ticks(top: float) -> list[Any]:
    """Zero and up to five round numbers below ``top``."""
    rough = top / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    ticks = [round(i * step, 10) for i in range(int(top / step + 1e-9) + 1)]
    return [int(tick) if float(tick).is_integer() else tick for tick in ticks]
