"""What text attention saw while a pair was drawn, as one picture (Fig. 3 and 9, Eq. 6-7).

Decided: a panel shows the defect word's score map, averaged over heads and layers and stretched from its smallest to
its largest value, which stand below it: maps of different models have different scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIDE, GAP, LINE = 128, 6, 14
MAPS = (("image", "S^I"), ("annotation", "S^A"), ("control", "S^O"), ("image_hat", "S^I after"),
        ("annotation_hat", "S^A after"))  # fmt: skip
"""Names of the maps and what they are called in the picture."""


Panel = tuple[str, str, np.ndarray | None]
"""Words above, words below, picture."""


@dataclass(frozen=True)
class Explained:
    """One model's pair and what it saw."""

    name: str
    pictures: dict[str, np.ndarray]
    """Title -> uint8 (h, w, 3) or (h, w)."""
    steps: list[tuple[int, dict[str, np.ndarray]]]
    """Step number -> name of a map -> float (h, w)."""


def defect_maps(layers: Sequence[dict[str, Any]], tokens: np.ndarray, side: int = SIDE) -> dict[str, np.ndarray]:
    """The maps of one step, of the first pair, averaged over layers and the defect's tokens.

    Args:
        layers: one dict per layer, of tensors (b, t, h, w).
        tokens: (t,), above zero on the defect's words.
        side: to which the maps are stretched, in pixels.

    Returns:
        Name of a map -> float32 (side, side); names that no layer has are left out.
    """
    maps: dict[str, np.ndarray] = {}
    for name, _ in MAPS:
        pictures = [np.asarray(layer[name][0])[tokens > 0].mean(0) for layer in layers if name in layer]
        if pictures:
            kind = Image.Resampling.BILINEAR  # never beyond the values that there are
            grown = [np.asarray(Image.fromarray(p.astype(np.float32)).resize((side, side), kind)) for p in pictures]
            maps[name] = np.mean(grown, axis=0)
    return maps


def draw(rows: Sequence[Explained]) -> np.ndarray:
    """One picture, uint8 (h, w, 3): per model a row of pictures and one row of maps per step."""
    columns = max(len(row.pictures) for row in rows)
    columns = max(columns, len(MAPS) + 1)
    lines = [line for row in rows for line in _lines(row)]
    width = GAP + columns * (SIDE + GAP)
    height = GAP + len(lines) * (SIDE + 2 * LINE + GAP)
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    for y, line in enumerate(lines):
        top = GAP + y * (SIDE + 2 * LINE + GAP)
        for x, (title, below, picture) in enumerate(line):
            left = GAP + x * (SIDE + GAP)
            pen.text((left, top), title, fill="black")
            if picture is not None:
                shown = Image.fromarray(picture).convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
                page.paste(shown, (left, top + LINE))
                pen.text((left, top + LINE + SIDE), below, fill="gray")
    return np.asarray(page)


def heat(values: np.ndarray) -> np.ndarray:
    """Float (h, w) -> uint8 (h, w, 3): dark blue at its smallest value, through red, to yellow at its largest."""
    spread = float(values.max() - values.min())
    v = (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
    red, green = np.clip(v * 2, 0, 1), np.clip(v * 2 - 1, 0, 1)
    blue = np.clip(0.4 - 0.8 * np.abs(v - 0.25), 0, 1)
    return (np.stack([red, green, blue], axis=-1) * 255).astype(np.uint8)


def _lines(row: Explained) -> list[list[Panel]]:
    lines: list[list[Panel]] = [
        [(title, row.name if i == 0 else "", picture) for i, (title, picture) in enumerate(row.pictures.items())]
    ]
    for number, maps in row.steps:
        named = [(title, maps[name]) for name, title in MAPS if name in maps]
        panels: list[Panel] = [(title, f"{m.min():.3f} to {m.max():.3f}", heat(m)) for title, m in named]
        lines.append([(f"step {number}", "", None), *panels])
    return lines
