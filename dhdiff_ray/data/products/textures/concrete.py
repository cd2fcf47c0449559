"""Concrete: grey, cloudy and speckled, with pores; sometimes with the marks of its boards."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, grain, over, ramp, relief
from dhdiff_ray.data.products.textures.surfaces import brightness, clouds, daylight, line, one_of, stained, turned

DEFECTS = ("crack", "rust_streak", "spall", "stain")
GREYS = ((150, 150, 148), (176, 170, 158), (118, 120, 124), (196, 194, 188), (136, 128, 116), (92, 94, 98))


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A concrete wall."""
    lit, light = daylight(x, y, rng)
    grey = one_of(GREYS, rng)
    u, v = turned(x, y, rng.uniform(0, math.pi))
    cloudy, speckled, rough = rng.uniform(0.08, 0.2), rng.uniform(0.08, 0.22), rng.uniform(0.001, 0.004)
    mottle = 1 + cloudy * clouds(u * 3, v * 3, rng, 4)
    fine = grain(u * 62, v * 62, rng)
    mottle += speckled * fine * np.abs(fine) + 0.1 * grain(u * 34, v * 34, rng)
    pebbles = ramp(0.7 - grain(u * rng.uniform(18, 26), v * 22, rng), 0.1) * rng.uniform(-0.22, 0.22)
    pores = _pores(u * rng.uniform(9, 14), v * 11, rng)
    boards, deep = rng.random() < 0.35, rng.uniform(0.3, 0.65)
    seams = np.abs((v * rng.uniform(2.2, 4) + rng.random()) % 1 - 0.5) < 0.022
    mottle = (mottle + pebbles) * (1 - deep * pores) * np.where(seams & boards, np.float32(0.7), np.float32(1))
    facing, _ = relief(rough * grain(u * 40, v * 40, rng), x, light, 1)
    sound = grey * (mottle * facing)[..., None] * lit

    place = rng.uniform(0.35, 0.65, 2).tolist()
    dark = brightness(grey) < 110
    if defect == "crack":
        width = rng.uniform(0.017, 0.022)
        long = rng.uniform(0.6, 0.85)
        turn = rng.uniform(0, math.pi)
        distance = line(x, y, place, turn, long, width, 0.55, rng, branches=int(rng.integers(1, 4)))
        distance += 0.35 * grain(x * 40, y * 40, rng)
        inner = colour(30, 28, 28) * rng.uniform(0.6, 1.2)
        return Layers(sound, over(sound * 0.5, inner, ramp(distance - 0.55, 0.3)), distance < 1)
    if defect == "rust_streak":
        # Water ran down from one rusting spot: dense at the top, thin and paler below.
        top, run = rng.uniform(0.08, 0.3), rng.uniform(0.42, 0.62)
        down = (y - top) / run
        sway = 0.02 * grain(y * 4, y * 0, rng) + rng.uniform(-0.06, 0.06) * down
        width = rng.uniform(0.055, 0.075) * (1 - 0.45 * down.clip(0, 1)) * (1 + 0.4 * grain(x * 0, y * 9, rng))
        offset = np.hypot((x - place[0] - sway) / width, 3 * np.minimum(down, 0) / 0.5)
        rust = one_of(((158, 74, 24), (138, 58, 26), (176, 92, 34)), rng)
        strands = 0.85 + 0.3 * grain(x * 42, y * 3, rng)
        ends = 0.8 + 0.3 * grain(x * 28, x * 0, rng)
        depth = (1 - 0.3 * down) * ramp(offset - 0.6, 0.5) * (0.8 + 0.2 * grain(x * 26, y * 8, rng))
        spot = ramp(np.hypot(x - place[0], y - top - 0.03) - 0.02, 0.04)[..., None]
        defective = over(sound, rust * strands[..., None] * (0.4 + 0.6 * mottle[..., None]), depth) * (1 - 0.45 * spot)
        return Layers(sound, defective, (offset < 1) & (down < ends))
    if defect == "spall":
        along, across = turned(x, y, rng.uniform(0, math.pi), place)
        distance = blob(along * rng.uniform(0.7, 1), across, rng.uniform(0.105, 0.143), 0.6, rng)
        distance += 0.02 * grain(x * 16, y * 16, rng)
        floor = -0.09 * ramp(distance + 0.05, 0.05) + 0.02 * clouds(x * 24, y * 24, rng, 2)
        facing, _ = relief(floor, x, light, 1)
        stones = grain(x * 22, y * 22, rng)
        broken = colour(1.05, 0.98, 0.88) * (0.55 + 0.22 * (stones > 0.3) - 0.2 * (stones < -0.4))[..., None] * grey
        edge = 1 - 0.5 * ramp(np.abs(distance + 0.012), 0.012)
        return Layers(sound, broken * (facing.clip(0.15, 2.2) * edge)[..., None] * lit, distance < 0)
    if defect == "stain":
        pale = ((226, 226, 220), (216, 214, 204))
        tint = one_of(pale if dark else ((46, 42, 40), (60, 50, 36), (44, 66, 50)), rng)
        defective, distance = stained(sound, x, y, tint, rng.uniform(0.11, 0.145), rng)
        return Layers(sound, defective, distance < 0)
    return Layers(sound, sound, np.zeros(x.shape, bool))


def _pores(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """1 in round pores of many sizes, at most one in each unit square."""
    places, sizes = rng.uniform(0.3, 0.7, (2, 64 * 64)).astype(np.float32), rng.exponential(0.075, 64 * 64)
    fewest = rng.uniform(0.08, 0.22)
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    key = (column & 63) + 64 * (row & 63)
    size = np.where(sizes > fewest, sizes, 0).clip(0, 0.28).astype(np.float32)[key]
    return ramp(np.hypot(x % 1 - places[0][key], y % 1 - places[1][key]) - size, 0.05) * (size > 0)
