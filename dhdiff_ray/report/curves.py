"""Training loss over the steps (Eq. 8), of both domains and of each, as coordinates for inline SVG."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhdiff_ray.run.folder import RunFolder

WIDTH, HEIGHT = 420, 170
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 24
POINTS = 300
"""Most points of one line."""
DOMAINS = {"smooth": "loss", "image": "loss_image", "annotation": "loss_annotation"}
"""Lines of running means, and the figure of ``metrics/<category>.jsonl`` that each shows."""


@dataclass(frozen=True)
class Curve:
    """The loss of one category's training, in a box of ``WIDTH`` x ``HEIGHT`` units."""

    category: str
    raw: str
    """Points of the loss of each step."""
    means: dict[str, str]
    """Points of the running means: of the loss (``smooth``), and of each domain's where they were kept."""
    last: dict[str, float]
    """The running means at the end."""
    steps: int
    x_ticks: list[tuple[float, str]]
    """Positions along the axis and their labels."""
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM
    top: int = TOP


def loss_curves(folder: RunFolder) -> list[Curve]:
    """A curve for each ``metrics/<category>.jsonl`` of a run that has two steps or more."""
    names = sorted(name for name in folder.files("metrics") if name.endswith(".jsonl"))
    told = {name.removeprefix("metrics/").removesuffix(".jsonl"): _steps(folder, name) for name in names}
    return [_curve(category, steps) for category, steps in told.items() if len(steps) > 1]


def _steps(folder: RunFolder, name: str) -> dict[int, dict[str, float]]:
    """Figures by step; the later line on a step counts, and a line cut short by a crash is left out."""
    steps: dict[int, dict[str, float]] = {}
    for line in folder.read_bytes(name).decode(errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError, ValueError):
            told = json.loads(line)
            figures = {key: float(told[key]) for key in DOMAINS.values() if key in told}
            if math.isfinite(figures["loss"]):
                steps[int(told["step"])] = figures
    return steps


def _curve(category: str, told: dict[int, dict[str, float]]) -> Curve:
    steps = np.array(sorted(told))
    kept = np.unique(np.linspace(0, len(steps) - 1, min(POINTS, len(steps))).round().astype(int))
    losses = np.array([told[step]["loss"] for step in steps])
    top = float(np.quantile(losses, 0.99)) * 1.05 or 1.0
    means = {
        line: _running_mean(np.array([told[step][key] for step in steps]))
        for line, key in DOMAINS.items()
        if all(key in figures for figures in told.values())
    }
    return Curve(
        category=category,
        raw=_path(steps[kept], losses[kept], top),
        means={line: _path(steps[kept], mean[kept], top) for line, mean in means.items()},
        last={line: float(mean[-1]) for line, mean in means.items()},
        steps=int(steps[-1]),
        x_ticks=[(_x(tick, steps[-1]), f"{tick:,}") for tick in _ticks(float(steps[-1]))],
        y_ticks=[(_y(tick, top), f"{tick:g}") for tick in _ticks(top)],
    )


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a twentieth of the curve; single losses mostly show which noise level was drawn."""
    window = max(1, len(values) // 20)
    sums = np.cumsum(np.insert(values, 0, 0))
    starts = np.maximum(np.arange(1, len(values) + 1) - window, 0)
    return (sums[1:] - sums[starts]) / (np.arange(1, len(values) + 1) - starts)


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
