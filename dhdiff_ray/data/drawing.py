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
from typing import Any

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


def draw(category: str, defect: str, resolution: int, rng: np.random.Generator) -> Drawing:
    """Draw one product of ``category``; ``defect`` is ``good`` or one of ``DEFECTS[category]``."""
    side = resolution * SUPERSAMPLING
    y, x = np.mgrid[:side, :side].astype(np.float32)
    layers = ARTISTS[category](defect, (x + 0.5) / side, (y + 0.5) / side, rng)
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


def _colour(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def _ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """1 inside (negative distance), 0 beyond ``width``, linear between."""
    return (1 - distance / width).clip(0, 1)


def _blob(x: np.ndarray, y: np.ndarray, radius: float, roughness: float, rng: np.random.Generator) -> np.ndarray:
    """Signed distance-like value of an irregular closed shape around the origin: negative inside."""
    angle = np.arctan2(y, x)
    outline = np.full_like(x, radius)
    for harmonic in range(2, 6):
        weight = float(radius * roughness * rng.uniform(-1, 1) / harmonic)
        outline += weight * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(x, y) - outline


# The mesh: wires of two directions passing over and under each other.
PERIODS = 6
WIRE = 0.27
"""Radius of a wire in periods."""


def mesh(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A woven wire mesh; ``bent`` and ``broken`` follow one of its wires."""
    period = 1 / PERIODS * rng.uniform(0.98, 1.02)
    left, top = ((rng.uniform(-0.12, 0.12) + 0.5) * period for _ in range(2))
    metal = _colour(214, 204, 178) * rng.uniform(0.94, 1.04)
    ground = _colour(30, 36, 50) * rng.uniform(0.85, 1.15)
    upright = rng.random() < 0.5
    wire = int(rng.integers(1, PERIODS - 1))
    middle = rng.uniform(0.3, 0.7)
    # Defects of lying wires are those of upright wires with the axes exchanged.
    along, across = (y, x) if upright else (x, y)
    rest = (left if upright else top) + wire * period
    nothing, nowhere = np.zeros_like(x), np.zeros(x.shape, bool)

    def weave(shift: np.ndarray = nothing, cut: np.ndarray = nowhere) -> np.ndarray:
        """Colours of the mesh with wire ``wire`` moved aside by ``shift``, or missing where ``cut``."""
        light, best = np.zeros_like(x), np.full_like(x, -np.inf)
        for direction, (position, start, course, origin) in enumerate(((x, left, y, top), (y, top, x, left))):
            number = np.round((position - start) / period)
            hurt = (direction == 0) == upright and (shift is not nothing or cut is not nowhere)
            strands: list[tuple[Any, np.ndarray, np.ndarray]] = [(number, nothing, (number == wire) & hurt)]
            if hurt:
                strands.append((np.float32(wire), shift, cut))
            for count, aside, absent in strands:
                offset = (position - start - count * period - aside) / (WIRE * period)
                lift = np.cos(np.pi * ((course - origin) / period + count + direction))
                raised = np.abs(aside) / period
                height = lift + 4 * raised
                present = (np.abs(offset) < 1) & (height > best) & ~absent
                shade = 0.34 + 0.5 * np.sqrt((1 - offset**2).clip(0, 1)) - 0.16 * offset + 0.13 * lift + 0.1 * raised
                best, light = np.where(present, height, best), np.where(present, shade, light)
        depth = (ground * (0.9 + 0.2 * (1 - y))[..., None]).astype(np.float32)
        return np.where((light > 0)[..., None], metal * light[..., None], depth)

    sound = weave()
    if defect == "bent":
        side = 1.0 if rng.random() < 0.5 else -1.0
        reach = rng.uniform(0.85, 1.1) * period * side
        half = rng.uniform(1.15, 1.45) * period
        course = ((along - middle) / half).clip(-1, 1)
        shift = (reach * (0.5 + 0.5 * np.cos(np.pi * course))).astype(np.float32)
        radius = WIRE * period
        swept = (across - rest > np.minimum(shift, 0) - radius) & (across - rest < np.maximum(shift, 0) + radius)
        outline = swept & (np.abs(shift) > 0.06 * period)
        return Layers(sound, weave(shift=shift), outline)
    if defect == "broken":
        half = rng.uniform(0.85, 1.2) * period
        slant, tooth = rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6)
        offset = across - rest
        ragged = slant * offset + tooth * np.abs(offset)
        gap = (np.abs(along - middle + ragged) < half) & (np.abs(offset) < WIRE * period)
        return Layers(sound, weave(cut=gap), gap)
    if defect == "stain":
        centre_x, centre_y = rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75)
        distance = _blob(x - centre_x, y - centre_y, rng.uniform(0.105, 0.14), 0.5, rng)
        brown = _colour(104, 52, 22) * rng.uniform(0.85, 1.15)
        depth = 0.88 * _ramp(distance + 0.02, 0.02)[..., None]
        return Layers(sound, sound * (1 - depth) + depth * (brown * 0.8 + sound * 0.2), distance < 0)
    return Layers(sound, sound, nowhere)


# The capsule: a two-tone pill lying on a dark ground.
def capsule(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A two-tone capsule; all defects lie on it."""
    angle = math.radians(rng.uniform(-8, 8))
    centre_x, centre_y = 0.5 + rng.uniform(-0.03, 0.03), 0.5 + rng.uniform(-0.03, 0.03)
    u = (x - centre_x) * math.cos(angle) + (y - centre_y) * math.sin(angle)
    v = (y - centre_y) * math.cos(angle) - (x - centre_x) * math.sin(angle)
    length, radius = 0.22 * rng.uniform(0.97, 1.03), 0.2 * rng.uniform(0.97, 1.03)
    brightness = rng.uniform(0.92, 1.06)
    red, cream = _colour(206, 72, 40) * brightness, _colour(238, 222, 182) * brightness
    ground = _colour(44, 54, 68) * rng.uniform(0.9, 1.1)

    axis_distance = np.hypot(np.maximum(np.abs(u) - length, 0), v)
    inside = axis_distance < radius
    shadow = _ramp(np.hypot(np.maximum(np.abs(u - 0.012) - length, 0), v - 0.03) - radius, 0.05)
    background = ground * (1.08 - 0.16 * y - 0.45 * shadow)[..., None]
    roundness = np.sqrt((1 - (axis_distance / radius) ** 2).clip(0, 1))
    gloss = 70 * np.exp(-(((v + 0.085) / 0.028) ** 2)) * _ramp(np.abs(u) - length, 0.1)
    seam = np.abs(u) < 0.008
    body = np.where((u < 0)[..., None], red, cream) * (0.42 + 0.58 * roundness - 0.6 * v)[..., None]
    body = np.where(seam[..., None], body * 0.6, body + gloss[..., None])
    sound = np.where(inside[..., None], body, background)

    place_u, place_v = rng.uniform(-length, length), rng.uniform(-0.45, 0.45) * radius
    if defect == "crack":
        turn = rng.uniform(-0.5, 0.5)
        du, dv = u - place_u, v - 0.4 * place_v
        course, aside = dv * math.cos(turn) + du * math.sin(turn), du * math.cos(turn) - dv * math.sin(turn)
        half = rng.uniform(0.145, 0.175)
        knots = np.linspace(-half, half, 6)
        zigzag = rng.uniform(0.014, 0.03, size=6) * np.where(np.arange(6) % 2, 1, -1) * rng.choice([-1.0, 1.0])
        path = np.interp(course, knots, zigzag).astype(np.float32)
        width = rng.uniform(0.027, 0.033) * (1 - 0.45 * np.abs(course / half).clip(0, 1))
        outline = (np.abs(aside - path) < width) & (np.abs(course) < half) & inside
        edge = np.abs(aside - path) / width
        dark = _colour(26, 12, 10) * (0.7 + 0.6 * edge)[..., None]
        return Layers(sound, dark, outline)
    if defect == "squeeze":
        side = 1.0 if rng.random() < 0.5 else -1.0
        depth, half = rng.uniform(0.1, 0.13), rng.uniform(0.13, 0.17)
        middle = rng.uniform(-0.8, 0.8) * length
        course = ((u - middle) / half).clip(-1, 1)
        dented = radius - depth * (1 - course**2) ** 1.2
        beyond = v * side - dented
        near = (np.abs(u - middle) < half) & inside
        rim = 0.028
        pressed = body * (0.35 + 0.3 * _ramp(beyond + rim, rim))[..., None]
        defective = np.where((beyond > 0)[..., None], background * 0.8, pressed)
        return Layers(sound, defective, near & (beyond > -rim) & (dented < radius - 0.008))
    if defect == "poke":
        hole = rng.uniform(0.055, 0.07)
        distance = _blob(u - place_u, v - place_v, hole, 0.25, rng)
        rim = rng.uniform(0.028, 0.036)
        pale = np.where((u < 0)[..., None], _colour(255, 186, 160), _colour(255, 255, 250))
        defective = np.where((distance < 0)[..., None], _colour(22, 14, 14), pale)
        return Layers(sound, defective, (distance < rim) & inside)
    return Layers(sound, sound, np.zeros_like(inside))


ARTISTS: dict[str, Artist] = {"capsule": capsule, "mesh": mesh}
DEFECTS: dict[str, tuple[str, ...]] = {"capsule": ("crack", "poke", "squeeze"), "mesh": ("bent", "broken", "stain")}
