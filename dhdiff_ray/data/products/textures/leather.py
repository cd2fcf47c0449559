"""Leather: pebbles between fine furrows, dyed and slightly shiny."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, grain, ramp, relief
from dhdiff_ray.data.products.textures.surfaces import brightness, clouds, daylight, line, one_of, turned

DEFECTS = ("cut", "fold", "hole")
DYES = ((112, 66, 38), (44, 40, 40), (186, 134, 84), (142, 36, 32), (84, 46, 30), (36, 48, 78), (214, 196, 166))
DYES += ((60, 78, 54), (158, 92, 46))


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A piece of leather lying flat."""
    lit, light = daylight(x, y, rng)
    dye, shine = one_of(DYES, rng), rng.uniform(10, 60)
    size, coarse = rng.uniform(13, 21), rng.uniform(0.5, 1)
    u, v = turned(x, y, rng.uniform(0, math.pi))
    stretch = rng.uniform(0.75, 1)
    bend = 0.012 * grain(x * 6, y * 6, rng)
    pebble = _furrows((u + bend) * size * stretch, (v - bend) * size, rng)
    bulge = np.sqrt(ramp(0.55 - pebble, 0.55))
    height = (0.022 * coarse * bulge + 0.006 * grain(x * 40, y * 40, rng)) * 15 / size
    waves = rng.uniform(0, 0.02) * clouds(x * 2.5, y * 2.5, rng, 2)
    facing, gloss = relief(height + waves, x, light, shine)
    mottle = 1 + 0.1 * clouds(x * 4, y * 4, rng, 2) - (0.45 * ramp(pebble, 0.14))
    gleam = rng.uniform(15, 65) * gloss * ramp(np.hypot(x - 0.5 - 0.4 * light[0], y - 0.5 - 0.4 * light[1]), 0.9)
    sound = (dye * (0.35 + 0.65 * facing * mottle)[..., None] + gleam[..., None]) * lit

    place = rng.uniform(0.33, 0.67, 2).tolist()
    turn = rng.uniform(0, math.pi)
    dark = brightness(dye) < 80
    flesh = np.maximum(colour(206, 168, 124), dye * 1.35) if dark else dye * 0.2 + colour(206, 180, 146) * 0.8
    if brightness(dye) > 120:
        flesh = dye * 0.55
    if defect == "cut":
        distance = line(x, y, place, turn, rng.uniform(0.42, 0.6), rng.uniform(0.034, 0.042), 0.1, rng)
        lip = flesh * (0.85 + 0.3 * grain(x * 40, y * 40, rng))[..., None]
        defective = np.where((distance < 0.5)[..., None], colour(16, 12, 10), lip)
        return Layers(sound, defective, distance < 1)
    if defect == "fold":
        along, across = turned(x, y, turn, place)
        half = rng.uniform(0.32, 0.42)
        bow = rng.uniform(-0.5, 0.5) * along**2 + 0.025 * grain(along * 7, along * 0, rng)
        width = rng.uniform(0.05, 0.062)
        reach = (1 - (along / half) ** 2).clip(0) ** 0.5
        offset = (across - bow) / (width * (0.25 + 0.75 * reach))
        towards = light[1] * math.cos(turn) - light[0] * math.sin(turn)
        towards = math.copysign(max(abs(towards), 0.6), towards)
        # A crease is a ridge: one flank is turned to the light, the other lies in shadow, cracked along its top.
        flank = np.sin(math.pi * offset.clip(-1, 1)) * reach
        bright, shade = (towards * flank).clip(0), (-towards * flank).clip(0)
        defective = sound * (1 - 1.4 * shade)[..., None].clip(0.12) + ((205 - 0.4 * brightness(dye)) * bright)[
            ..., None
        ] * (0.5 + dye / 255)
        top = ramp(np.abs(offset) - 0.1, 0.12) * reach
        defective = defective * (1 - 0.75 * top[..., None])
        return Layers(sound, defective, (np.abs(offset) < 1) & (np.abs(along) < half))
    if defect == "hole":
        along, across = turned(x, y, turn, place)
        distance = blob(along * rng.uniform(0.75, 1), across, rng.uniform(0.09, 0.12), 0.35, rng)
        rim = rng.uniform(0.022, 0.034)
        distance += 0.012 * grain(x * 20, y * 20, rng)
        torn = flesh * (0.9 + 0.25 * grain(x * 50, y * 50, rng))[..., None]
        return Layers(sound, np.where((distance < -rim)[..., None], colour(14, 11, 10), torn), distance < 0)
    return Layers(sound, sound, np.zeros(x.shape, bool))


def _furrows(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much nearer the nearest of many scattered points is than the second: 0 between two pebbles."""
    points = rng.uniform(0, 1, (2, 64 * 64)).astype(np.float32)
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    beside, below = x - np.floor(x), y - np.floor(y)
    first, second = np.full_like(x, np.inf), np.full_like(x, np.inf)
    for right in (-1, 0, 1):
        for down in (-1, 0, 1):
            key = ((column + right) & 63) + 64 * ((row + down) & 63)
            distance = (beside - right - points[0][key]) ** 2 + (below - down - points[1][key]) ** 2
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    return np.sqrt(second) - np.sqrt(first)
