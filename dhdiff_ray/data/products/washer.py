"""The washer: a flat metal ring, plain, turned or brushed."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, grain, over, ramp, relief, stand_out, table

DEFECTS = ("bent", "notch", "rust", "scratch")
METALS = (
    colour(172, 176, 182),
    colour(196, 192, 178),
    colour(200, 164, 84),
    colour(196, 120, 82),
    colour(120, 126, 136),
)


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A washer seen from above; all defects lie on the ring or take a piece of it."""
    ground, light = table(x, y, rng)
    u, v = x - 0.5 - rng.uniform(-0.05, 0.05), y - 0.5 - rng.uniform(-0.05, 0.05)
    outer = rng.uniform(0.3, 0.42)
    inner = outer * rng.uniform(0.42, 0.58)
    metal = METALS[int(rng.integers(len(METALS)))] * rng.uniform(0.85, 1.15)
    metal = stand_out(metal, 0.85, ground)
    bevel, lift, shine = rng.uniform(0.015, 0.04), rng.uniform(0.02, 0.05), rng.uniform(8, 30)
    turn = rng.uniform(0, math.pi)
    distance, angle = np.hypot(u, v), np.arctan2(v, u)
    if rng.random() < 0.5:  # turned on a lathe
        marks = grain(distance * 70, angle * 0.6, rng)
        sheen = np.cos(angle - math.atan2(light[1], light[0])) ** 2
    else:  # brushed or rolled in one direction
        along, across = u * math.cos(turn) + v * math.sin(turn), v * math.cos(turn) - u * math.sin(turn)
        marks = grain(along * 5, across * 60, rng)
        sheen = 0.5 + 0.5 * np.sin(along * rng.uniform(3, 8))
    tone = 0.72 + rng.uniform(0.03, 0.1) * marks + rng.uniform(0.05, 0.4) * sheen
    middle, width = (outer + inner) / 2, (outer - inner) / 2

    def ring(aside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Picture and silhouette of the ring, whose radius is ``aside`` larger."""
        depth = width - np.abs(distance - middle - aside)
        height = lift * (depth / bevel).clip(0, 1) + 0.6 * aside
        lit, gloss = relief(height, x, light, shine)
        body = metal * (tone * lit.clip(0.25, 1.7))[..., None] + 60 * gloss[..., None]
        far = np.hypot(u + 1.2 * lift * light[0], v + 1.2 * lift * light[1])
        shadow = 0.6 * ramp(np.abs(far - middle - aside) - width, 0.04)
        return over(ground * (1 - shadow)[..., None], body, (depth / 0.004).clip(0, 1)), depth > 0

    plain = np.zeros_like(x)
    sound, inside = ring(plain)
    place = rng.uniform(-math.pi, math.pi)
    du, dv = u - middle * math.cos(place), v - middle * math.sin(place)
    radial, tangential = du * math.cos(place) + dv * math.sin(place), dv * math.cos(place) - du * math.sin(place)
    if defect == "bent":
        half = rng.uniform(0.45, 0.75)
        course = (((angle - place + math.pi) % (2 * math.pi) - math.pi) / half).clip(-1, 1)
        side = 1.0 if rng.random() < 0.4 and outer < 0.36 else -1.0
        aside = side * rng.uniform(0.55, 0.85) * width * (0.5 + 0.5 * np.cos(math.pi * course))
        defective, moved = ring(aside)
        return Layers(sound, defective, (inside | moved) & (np.abs(aside) > 0.004))
    if defect == "notch":
        reach = rng.uniform(0.12, 0.17)
        opening = rng.uniform(0.075, 0.11)
        edge = width if rng.random() < 0.75 else -width
        inward = (edge - radial) * math.copysign(1, edge)
        form = rng.integers(3)
        slit = np.abs(tangential + rng.uniform(-0.4, 0.4) * inward)
        if form == 0:
            bite = slit - 1.5 * opening * (1 - inward / reach)
        elif form == 1:
            bite = np.maximum(slit - opening * 0.9, inward - reach)
        else:
            bite = blob(inward - 0.3 * reach, tangential, rng.uniform(0.09, 0.115), 0.4, rng)
        side_wall = metal * 0.25
        gap = over(side_wall, ground * 0.95, -bite / 0.022)
        return Layers(sound, gap, (bite < 0) & inside & (np.abs(inward - 0.1) < 0.15))
    if defect == "rust":
        radius = rng.uniform(0.1, 0.16)
        spot = blob(du, dv, radius, 0.7, rng) + 0.02 * grain(u * 22, v * 22, rng)
        mottle = 0.5 + 0.5 * grain(u * 34, v * 34, rng)
        brown, orange = colour(84, 36, 16), colour(196, 96, 30)
        crust = over(np.broadcast_to(brown, sound.shape), orange, mottle) * rng.uniform(0.75, 1.1)
        return Layers(sound, over(sound, crust, -spot / 0.02), (spot < 0) & inside)
    if defect == "scratch":
        tilt, bow = rng.uniform(-0.6, 0.6), rng.uniform(-1.5, 1.5)
        course = tangential * math.cos(tilt) + radial * math.sin(tilt)
        half = rng.uniform(0.17, 0.24)
        aside = radial * math.cos(tilt) - tangential * math.sin(tilt) + bow * course**2
        breadth = rng.uniform(0.022, 0.032) * np.sqrt((1 - (course / half) ** 2).clip(0, 1))
        aside = aside + 0.005 * grain(course * 40, course * 0, rng)
        dark, bright = colour(24, 22, 22), colour(255, 252, 244)
        facing = aside * (light[1] * math.cos(place + tilt) - light[0] * math.sin(place + tilt))
        groove = over(np.broadcast_to(dark, sound.shape), bright, facing * 60 + (0.8 if metal.mean() < 140 else 0.15))
        return Layers(sound, groove, (np.abs(aside) < breadth) & inside)
    return Layers(sound, sound, np.zeros_like(inside))
