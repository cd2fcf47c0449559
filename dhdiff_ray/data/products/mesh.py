"""The mesh: wires of two directions passing over and under each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, ramp

DEFECTS = ("bent", "broken", "stain")
PERIODS = 6
WIRE = 0.27
"""Radius of a wire in periods."""


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A woven wire mesh; ``bent`` and ``broken`` follow one of its wires."""
    period = 1 / PERIODS * rng.uniform(0.98, 1.02)
    left, top = ((rng.uniform(-0.12, 0.12) + 0.5) * period for _ in range(2))
    metal = colour(214, 204, 178) * rng.uniform(0.94, 1.04)
    ground = colour(30, 36, 50) * rng.uniform(0.85, 1.15)
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
        distance = blob(x - centre_x, y - centre_y, rng.uniform(0.105, 0.14), 0.5, rng)
        brown = colour(104, 52, 22) * rng.uniform(0.85, 1.15)
        depth = 0.88 * ramp(distance + 0.02, 0.02)[..., None]
        return Layers(sound, sound * (1 - depth) + depth * (brown * 0.8 + sound * 0.2), distance < 0)
    return Layers(sound, sound, nowhere)
