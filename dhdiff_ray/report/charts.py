"""Plots of the page as inline SVG: bars of AP with their spread, mask size and mask position, real against made.

Not in the paper. Decided: each is one function from figures to markup; colours are the page's classes, real and made
also differ in form, so that no plot needs colour to be read; what a plot shows is its ``aria-label`` too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from dhdiff_ray.metrics.masks import AREA, X, Y
from dhdiff_ray.report.shapes import Shapes
from dhdiff_ray.report.tables import KINDS

WIDTH = 420
NAMES = 150
"""Width of the names before the bars."""
BAR = 24
BINS = 12
LEAST_AREA = 1e-4
"""Share of the image that a mask is drawn as at least: the axis is of powers of ten."""
BOX = 170
"""Side of the square that represents the image."""


@dataclass(frozen=True)
class Chart:
    """A plot and its caption."""

    title: str
    svg: Markup
    note: str = ""


def ap_charts(detection: Mapping[str, Mapping[str, Any]]) -> list[Chart]:
    """A bar of pixel AP for each kind of training data, of every category."""
    charts = []
    for category, row in sorted((name, row) for name, row in detection.items() if name != "conditions"):
        bars = [(words, *_mean_and_spread(row[kind])) for kind, words in KINDS.items() if row.get(kind)]
        told = [(words, mean, spread) for words, mean, spread in bars if mean is not None]
        if told:
            charts.append(Chart(category, bars_svg(category, told)))
    return charts


def bars_svg(name: str, bars: Sequence[tuple[str, float, float | None]]) -> Markup:
    """Bars from 0 to 1 with a whisker of one standard deviation to each side.

    Args:
        name: whose they are.
        bars: words, value and spread (None for one training).
    """
    height, wide = BAR * len(bars) + 22, WIDTH - NAMES - 58
    told = "; ".join(f"{words} {value:.3f}" + (f" ± {spread:.3f}" if spread else "") for words, value, spread in bars)
    parts = [_open(WIDTH, height, f"Pixel AP of {name}: {told}")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = NAMES + wide * share
        parts.append(_line(x, 0, x, height - 20, "grid"))
        parts.append(_text(x, height - 6, f"{share:g}", "middle"))
    for at, (words, value, spread) in enumerate(bars):
        y, end = at * BAR + 4, NAMES + wide * min(value, 1)
        kind = "made" if "made" in words else "real"
        parts.append(_text(NAMES - 8, y + 12, words, "end", "name"))
        parts.append(Markup('<rect class="bar {}" x="{}" y="{}" width="{:.1f}" height="{}"/>').format(
            kind, NAMES, y, max(end - NAMES, 0.5), BAR - 8))  # fmt: skip
        if spread:
            low, high = (NAMES + wide * min(max(value + sign * spread, 0), 1) for sign in (-1, 1))
            middle = y + (BAR - 8) / 2
            parts.append(_line(low, middle, high, middle, "whisker"))
            parts += [_line(x, middle - 4, x, middle + 4, "whisker") for x in (low, high)]
            end = max(end, high)
        parts.append(_text(end + 6, y + 12, f"{value:.3f}", "start", "value"))
    return Markup("").join([*parts, Markup("</svg>")])


def size_chart(shapes: Shapes) -> Chart:
    """How large masks are: shares of the real and the made ones by area, on an axis of powers of ten."""
    sides = {"real": shapes.real, "made": shapes.made}
    logs = {side: np.log10(np.maximum(rows[:, AREA], LEAST_AREA)) for side, rows in sides.items() if len(rows)}
    low = math.floor(min(values.min() for values in logs.values()))
    edges = np.linspace(low, 0, BINS + 1)
    shares = {side: np.histogram(values, edges)[0] / len(values) for side, values in logs.items()}
    top, height, left = max(float(share.max()) for share in shares.values()), 170, 34
    wide, high = WIDTH - left - 20, height - 34
    medians = [f"{side}: {100 * 10 ** float(np.median(values)):.2g} %" for side, values in logs.items()]
    parts = [_open(WIDTH, height, f"Mask size of {shapes.category}, median of the image's area: {', '.join(medians)}")]
    for power in range(low, 1):
        x = left + wide * (power - low) / -low
        parts += [_line(x, 8, x, 8 + high, "grid"), _text(x, height - 8, f"{100 * 10.0**power:g} %", "middle")]
    for side, share in shares.items():
        xs = left + wide * np.arange(BINS + 1) / BINS
        ys = 8 + high * (1 - share / top)
        steps = " ".join(f"{xs[i]:.1f},{ys[i]:.1f} {xs[i + 1]:.1f},{ys[i]:.1f}" for i in range(BINS))
        outer = f"{xs[0]:.1f},{8 + high} {steps} {xs[-1]:.1f},{8 + high}"
        parts.append(Markup('<polyline class="steps {}" points="{}"/>').format(side, outer))
    parts.append(_line(left, 8 + high, WIDTH - 20, 8 + high, "axis"))
    return Chart(
        f"{shapes.category}: size", Markup("").join([*parts, Markup("</svg>")]), "median " + ", ".join(medians)
    )


def place_chart(shapes: Shapes) -> Chart:
    """Where masks lie: the middle of each real one as a ring, of each made one as a dot, on the image."""
    left = (WIDTH - BOX) / 2
    words = f"Middles of {len(shapes.real)} real and {len(shapes.made)} made masks of {shapes.category} on the image"
    parts = [_open(WIDTH, BOX + 4, words)]
    parts.append(Markup('<rect class="frame" x="{}" y="2" width="{}" height="{}"/>').format(left, BOX, BOX))
    for side, rows, radius in (("made", shapes.made, 2.6), ("real", shapes.real, 4.2)):
        parts += [
            Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(
                side, left + BOX * row[X], 2 + BOX * row[Y], radius
            )
            for row in rows
        ]
    return Chart(f"{shapes.category}: position", Markup("").join([*parts, Markup("</svg>")]), words)


def mask_charts(shapes: Sequence[Shapes]) -> list[Chart]:
    """Size and position of every category that has made masks."""
    return [chart(one) for one in shapes if len(one.made) for chart in (size_chart, place_chart)]


def _mean_and_spread(figures: Mapping[str, Any]) -> tuple[float | None, float | None]:
    values = [one.get("pixel_ap") for one in figures.get("by_seed", ())]
    several = len(values) > 1 and None not in values
    return figures.get("pixel_ap"), stdev(values) if several else None


def _open(width: float, height: float, label: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, label)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, escape(words)
    )
