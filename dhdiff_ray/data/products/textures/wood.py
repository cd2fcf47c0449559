"""Wood: a planed board with its rings cut lengthwise, fibres and pores."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, grain, over, ramp
from dhdiff_ray.data.products.textures.surfaces import brightness, clouds, daylight, line, one_of, stained, turned

DEFECTS = ("crack", "knot_hole", "scratch", "stain")
KINDS = ((214, 176, 122), (190, 142, 86), (122, 80, 50), (150, 74, 46), (176, 160, 136), (92, 62, 44), (226, 196, 152))


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A board; cracks follow the grain, scratches cross it, knots push it aside."""
    lit, _ = daylight(x, y, rng)
    angle = rng.uniform(-0.35, 0.35) + (math.pi / 2 if rng.random() < 0.5 else 0)
    pale = one_of(KINDS, rng)
    late = pale * rng.uniform(0.45, 0.66) * colour(1.04, 0.96, 0.9)
    u, v = turned(x, y, angle)
    heart, rings = rng.uniform(-0.5, 0.5), rng.uniform(7, 15)
    spread, start = rng.uniform(0.12, 0.3), rng.uniform(-0.9, 0.9)
    wave = rng.uniform(0.02, 0.06)
    v = v + wave * clouds(u * 2, v * 3, rng, 2)
    radius = np.hypot(v - heart, spread * (u - start)) + 0.008 * grain(u * 6, v * 30, rng)
    phase = radius * rings
    year = np.floor(phase)
    part = phase - year
    ring = part ** rng.uniform(1.5, 3.5) * ramp(part - 0.9, 0.1)
    ring *= 0.75 + 0.35 * grain(year, u * 0.5, rng)
    fibre = grain(u * 5, v * 90, rng)
    pores = ramp(0.62 - grain(u * 14, v * 80, rng), 0.15) * rng.uniform(0, 0.35)
    body = over(np.broadcast_to(pale, (*x.shape, 3)), late, ring * rng.uniform(0.75, 1))
    mottle = 1 + 0.07 * clouds(u * 2, v * 8, rng, 2) + 0.07 * fibre - pores
    sound = body * mottle[..., None] * lit

    place = rng.uniform(0.33, 0.67, 2).tolist()
    if defect == "crack":
        turn = angle + rng.uniform(-0.06, 0.06)
        distance = line(x, y, place, turn, rng.uniform(0.55, 0.85), rng.uniform(0.024, 0.032), 0.22, rng)
        # Torn fibres stand along the split; they are paler than a dark wood.
        torn = np.maximum(pale * 1.6, 150) if brightness(pale) < 95 else late * 0.5
        split = np.where((distance > 0.72)[..., None], torn * lit, colour(18, 11, 7))
        return Layers(sound, np.where(fibre[..., None] > 0.85, sound * 0.4, split), distance < 1)
    if defect == "knot_hole":
        along, across = turned(x, y, angle, place)
        distance = blob(along * rng.uniform(0.68, 0.9), across, rng.uniform(0.095, 0.13), 0.3, rng)
        size = -float(distance.min())
        depth = -distance / size
        rims = 0.5 + 0.5 * np.sin(depth * rng.uniform(14, 20) + 0.6 * grain(x * 12, y * 12, rng))
        knot = (0.6 * late + 0.3 * pale) * (0.62 + 0.6 * rims)[..., None] * colour(0.98, 0.8, 0.66) * lit
        hole = depth + 0.08 * grain(x * 16, y * 16, rng) > rng.uniform(0.4, 0.55)
        knot = np.where((depth < 0.16)[..., None], late * 0.4, knot)
        return Layers(sound, np.where(hole[..., None], colour(20, 13, 9), knot), distance < 0)
    if defect == "scratch":
        turn = angle + float(rng.choice([-1, 1])) * rng.uniform(0.75, 1.55)
        distance = line(x, y, place, turn, rng.uniform(0.42, 0.65), rng.uniform(0.021, 0.026), 0.08, rng)
        _, side = turned(x, y, turn, place)
        bare = colour(250, 230, 194) if brightness(pale) < 150 else colour(255, 248, 228)
        torn = bare * (0.92 + 0.12 * fibre)[..., None] * lit.clip(0.9, 1.15)
        trench = np.where((distance > 0.45) & (side > 0), 0.3, 0.0)
        return Layers(sound, over(torn, late * 0.35, 3 * trench), distance < 1)
    if defect == "stain":
        tint = one_of(((38, 34, 42), (46, 26, 22), (30, 40, 66)), rng)
        if brightness(pale) < 95:
            tint = one_of(((226, 222, 212), (196, 206, 214)), rng)
        defective, distance = stained(sound, x, y, tint, rng.uniform(0.1, 0.14), rng)
        return Layers(sound, defective, distance < 0)
    return Layers(sound, sound, np.zeros(x.shape, bool))
