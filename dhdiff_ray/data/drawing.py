"""Drawn products and defects with exact masks, for the procedural dataset; not in the paper.

A product is drawn twice from the same parameters, sound and defective, at four times the working size; the defective
drawing counts only inside the defect's own outline. What we decided: a mask pixel is one that the outline covers by
half, or touches while its colour changes by more than ``THRESHOLD``; so outside the mask the image is the sound one.
Lengths are fractions of the image side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SUPERSAMPLING = 4
THRESHOLD = 6
"""Largest change of a grey value (of 255) that is left outside a mask."""
SENSOR_NOISE = 1.5
"""Standard deviation in grey values."""


@dataclass(frozen=True)
class Drawing:
    """One drawn product: ``image`` and ``sound`` uint8 (h, w, 3), ``mask`` uint8 (h, w) of 0 and 255."""

    image: np.ndarray
    sound: np.ndarray  # the same product without its defect
    mask: np.ndarray


@dataclass(frozen=True)
class Layers:
    """Both drawings at drawing size, float32 grey values (s, s, 3), and the outline bool (s, s)."""

    sound: np.ndarray
    defective: np.ndarray
    outline: np.ndarray


Artist = Callable[[str, np.ndarray, np.ndarray, np.random.Generator], Layers]
"""Defect (or ``good``), x and y of the pixels (fractions of the side), and a random generator, to both drawings."""


def draw(artist: Artist, defect: str, resolution: int, rng: np.random.Generator) -> Drawing:
    """Draw one product; ``defect`` is ``good`` or one of those the artist knows."""
    side = resolution * SUPERSAMPLING
    y, x = np.mgrid[:side, :side].astype(np.float32)
    layers = artist(defect, (x + 0.5) / side, (y + 0.5) / side, rng)
    noise = rng.normal(0, SENSOR_NOISE, (resolution, resolution, 1)).astype(np.float32)
    inside = layers.outline[..., None]
    sound = _to_grey_values(_shrink(layers.sound) + noise)
    if layers.defective is layers.sound:
        return Drawing(sound, sound, np.zeros((resolution, resolution), dtype=np.uint8))
    image = _to_grey_values(_shrink(np.where(inside, layers.defective, layers.sound)) + noise)
    coverage = _shrink(inside.astype(np.float32))[..., 0]
    change = np.abs(image.astype(np.int16) - sound).max(axis=-1)
    mask = (coverage >= 0.5) | ((coverage > 0) & (change > THRESHOLD))
    return Drawing(image, sound, mask.astype(np.uint8) * 255)


def _shrink(picture: np.ndarray) -> np.ndarray:
    height, width, channels = picture.shape
    blocks = picture.reshape(height // SUPERSAMPLING, SUPERSAMPLING, width // SUPERSAMPLING, SUPERSAMPLING, channels)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _to_grey_values(picture: np.ndarray) -> np.ndarray:
    return picture.round().clip(0, 255).astype(np.uint8)


def colour(*values: float) -> np.ndarray:
    """Red, green and blue, in grey values."""
    return np.array(values, dtype=np.float32)


def ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """1 inside (negative distance), 0 beyond ``width``, linear between."""
    return (1 - distance / width).clip(0, 1)


def blob(x: np.ndarray, y: np.ndarray, radius: float, roughness: float, rng: np.random.Generator) -> np.ndarray:
    """Signed distance-like value of an irregular closed shape around the origin: negative inside."""
    angle = np.arctan2(y, x)
    outline = np.full_like(x, radius)
    for harmonic in range(2, 6):
        weight = float(radius * roughness * rng.uniform(-1, 1) / harmonic)
        outline += weight * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(x, y) - outline


Light = tuple[float, float, float]
"""Unit vector towards the light; z points at the camera."""


def table(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Light]:
    """What a product lies on, dark or bright, slightly tinted and unevenly lit, and where the light comes from."""
    azimuth, height = rng.uniform(0, 2 * math.pi), rng.uniform(0.75, 1.5)
    length = math.hypot(1, height)
    light = (math.cos(azimuth) / length, math.sin(azimuth) / length, height / length)
    tone = rng.uniform(18, 85) if rng.random() < 0.55 else rng.uniform(135, 225)
    tint = colour(*(tone * (1 + rng.uniform(-0.16, 0.16, 3))))
    uneven = 1 + rng.uniform(0.1, 0.5) * ((x - 0.5) * light[0] + (y - 0.5) * light[1])
    stretch = rng.uniform(4, 30, 2)
    uneven += rng.uniform(0, 0.06) * grain(x * float(stretch[0]), y * float(stretch[1]), rng)
    return (tint * uneven[..., None]).astype(np.float32), light


def grain(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise in [-1, 1] with a random value at each whole number of ``x`` and ``y``."""
    lattice = rng.uniform(-1, 1, 64 * 64).astype(np.float32)
    column, row = np.floor(x), np.floor(y)
    right, down = x - column, y - row
    right, down = right * right * (3 - 2 * right), down * down * (3 - 2 * down)
    first, row = column.astype(np.int32) & 63, row.astype(np.int32)
    second = (first + 1) & 63
    above, below = (
        lattice[start + first] * (1 - right) + lattice[start + second] * right
        for start in (64 * (row & 63), 64 * ((row + 1) & 63))
    )
    return above * (1 - down) + below * down


def relief(height: np.ndarray, x: np.ndarray, light: Light, shine: float) -> tuple[np.ndarray, np.ndarray]:
    """How a surface of that height is lit (1 where it is flat), and its highlights in [0, 1], small for much shine."""
    down, right = np.gradient(height.astype(np.float32), float(x[0, 1] - x[0, 0]))
    length = np.sqrt(1 + down**2 + right**2)
    lit = (light[2] - right * light[0] - down * light[1]).clip(0) / length / light[2]
    half = math.sqrt(2 + 2 * light[2])
    glance = (light[2] + 1 - right * light[0] - down * light[1]).clip(0) / length / half
    return lit, glance**shine


def over(below: np.ndarray, above: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """``above`` laid over ``below``, wholly where ``depth`` is 1 or more, not at all where it is negative."""
    weight = depth.clip(0, 1).astype(np.float32)[..., None]
    return below * (1 - weight) + above * weight


def stand_out(paint: np.ndarray, lit: float, ground: np.ndarray) -> np.ndarray:
    """The colour, made brighter or darker where it would look like the ground; ``lit`` is how much of it is seen."""
    seen, behind = lit * float(paint.mean()), float(ground.mean())
    if abs(seen - behind) >= 50:
        return paint
    return paint * ((behind + 65 if behind < 110 else behind - 75) / seen)
