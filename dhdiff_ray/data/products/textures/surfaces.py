"""What drawn textures share: daylight, rough noise, wandering lines and stains; not in the paper.

Lengths are fractions of the image side, angles radians; light and relief are those of ``data/drawing.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dhdiff_ray.data.drawing import Light, blob, colour, grain, over, ramp


def daylight(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Light]:
    """Factors (h, w, 3) of an uneven, slightly coloured light on a flat surface, and where it comes from."""
    azimuth, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.7, 1.3)
    length = math.hypot(1, height)
    light = (math.cos(azimuth) / length, math.sin(azimuth) / length, height / length)
    uneven = 1 + rng.uniform(0.1, 0.65) * ((x - 0.5) * light[0] + (y - 0.5) * light[1])
    uneven -= rng.uniform(0, 0.5) * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    warmth = rng.uniform(-0.06, 0.08)
    tint = rng.uniform(0.8, 1.12) * colour(1 + warmth, 1, 1 - warmth)
    return (uneven[..., None] * tint).astype(np.float32), light


def one_of(palette: Sequence[tuple[int, int, int]], rng: np.random.Generator) -> np.ndarray:
    """One colour of a palette, a little changed."""
    chosen = colour(*palette[int(rng.integers(len(palette)))])
    return (chosen * rng.uniform(0.85, 1.15) * rng.uniform(0.97, 1.03, 3)).astype(np.float32)


def brightness(paint: np.ndarray) -> float:
    """Mean grey value of a colour or a picture."""
    return float(paint.mean())


def turned(
    x: np.ndarray, y: np.ndarray, angle: float, place: Sequence[float] = (0.5, 0.5)
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates around ``place``: along a direction, and across it."""
    right, down, cosine, sine = x - float(place[0]), y - float(place[1]), math.cos(angle), math.sin(angle)
    return right * cosine + down * sine, down * cosine - right * sine


def clouds(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, octaves: int = 3) -> np.ndarray:
    """Noise of several sizes, about in [-1, 1]; each size is half of the one before."""
    total = grain(x, y, rng)
    for octave in range(1, octaves):
        total += 0.6**octave * grain(x * 2.03**octave, y * 2.03**octave, rng)
    return total / sum(0.6**octave for octave in range(octaves))


def line(
    x: np.ndarray,
    y: np.ndarray,
    middle: Sequence[float],
    angle: float,
    length: float,
    width: float,
    sway: float,
    rng: np.random.Generator,
    branches: int = 0,
) -> np.ndarray:
    """Distance from a wandering, tapered line in half widths of that line: below 1 on it."""
    along, across = turned(x, y, angle, middle)
    knots = np.linspace(-0.5, 0.5, 10) * length
    path = np.cumsum(rng.normal(0, sway * length / 10, 10))
    path -= np.interp(0, knots, path)
    thin = width * (1 - 0.7 * np.abs(2 * along / length)).clip(0.25, 1)
    beyond = (np.abs(along) - length / 2).clip(0)
    distance = np.hypot(across - np.interp(along, knots, path).astype(np.float32), 3 * beyond) / thin
    for branch in range(branches):
        start = ((branch + rng.uniform(0.2, 0.8)) / branches - 0.5) * 0.75 * length
        aside = float(np.interp(start, knots, path))
        turn = angle + (-1) ** branch * float(rng.choice([-1, 1])) * rng.uniform(0.6, 1.1)
        reach = rng.uniform(0.4, 0.6) * length
        # The middle of a branch is chosen so that it starts on the line.
        root_x = middle[0] + start * math.cos(angle) - aside * math.sin(angle)
        root_y = middle[1] + start * math.sin(angle) + aside * math.cos(angle)
        centre = (root_x + reach / 2 * math.cos(turn), root_y + reach / 2 * math.sin(turn))
        distance = np.minimum(distance, line(x, y, centre, turn, reach, 0.85 * width, 0.3 * sway, rng))
    return distance


def stained(
    sound: np.ndarray, x: np.ndarray, y: np.ndarray, tint: np.ndarray, radius: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A spill with a sharper rim somewhere on a surface, whose structure shows through; its distance-like value."""
    place = rng.uniform(0.25, 0.75, 2).tolist()
    along, across = turned(x, y, rng.uniform(0, math.pi), place)
    distance = blob(along * rng.uniform(0.75, 1), across, radius, rng.uniform(0.3, 0.8), rng)
    distance += 0.015 * grain(x * 14, y * 14, rng)
    structure = (sound.mean(axis=-1, keepdims=True) / brightness(sound)).clip(0.4, 1.6) ** 0.7
    depth = 0.8 * ramp(distance + 0.015, 0.015) + 0.12 * ramp(np.abs(distance + 0.022), 0.015)
    return over(sound, tint * structure, depth), distance
