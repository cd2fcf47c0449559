"""Cloth: threads of two directions, plainly woven or as twill."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, grain
from dhdiff_ray.data.products.textures.surfaces import brightness, clouds, daylight, one_of, stained, turned

DEFECTS = ("cut", "hole", "pulled_thread", "stain")
DYES = ((44, 66, 112), (196, 176, 138), (168, 44, 46), (60, 104, 72), (128, 128, 132), (224, 218, 206), (214, 160, 52))
DYES += ((52, 50, 56), (112, 70, 128), (70, 140, 156))


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A woven cloth seen from above; cuts and pulled threads follow its threads."""
    lit, light = daylight(x, y, rng)
    angle, count = rng.uniform(-0.5, 0.5), rng.uniform(13, 20)
    dye = one_of(DYES, rng)
    other = dye + (colour(232, 228, 220) - dye) * (rng.uniform(0.1, 0.6) if rng.random() < 0.4 else 0)
    twill, contrast = rng.random() < 0.4, rng.uniform(0.3, 0.5)
    bend = rng.uniform(0.002, 0.008)
    u, v = turned(x + bend * grain(x * 5, y * 5, rng), y + bend * grain(x * 5, y * 5, rng), angle)
    warp, weft = np.floor(u * count), np.floor(v * count)
    a, b = 2 * (u * count - warp) - 1, 2 * (v * count - weft) - 1
    upright = (warp + weft) % 4 < 2 if twill else (warp + weft) % 2 < 1
    across, along = np.where(upright, a, b), np.where(upright, b, a)
    towards = np.where(upright, np.float32(light[0]), np.float32(light[1]))
    thread = np.sqrt((1 - 0.92 * across**2).clip(0)) - 0.25 * along**2 + 0.35 * towards * across
    thickness = 1 + 0.1 * np.where(upright, grain(warp, v * 3, rng), grain(weft, u * 3, rng))
    folds = 1 + rng.uniform(0, 0.16) * clouds(x * 2.2, y * 2.2, rng, 2)
    shade = (1 - contrast + contrast * thread * 1.25) * thickness * folds
    sound = np.where(upright[..., None], dye, other) * shade[..., None] * lit

    place = rng.uniform(0.34, 0.66, 2).tolist()
    along_warp = rng.random() < 0.5
    direction = angle + (math.pi / 2 if along_warp else 0)
    dark = brightness(dye) < 105
    below = colour(20, 18, 20) if not dark or brightness(dye) > 75 else colour(226, 220, 206)
    below = below * rng.uniform(0.85, 1.1)
    course, aside = turned(x, y, direction, place)
    if defect in ("cut", "hole"):
        # Each thread that was cut through ends at its own length; the loose ends are paler than the cloth.
        number = np.floor(course * count) if defect == "cut" else np.floor(np.arctan2(aside, course) * 5)
        ends = rng.uniform(0, 1, 128).astype(np.float32)[(number.astype(int) + (aside > 0) * 61) & 127]
        if defect == "cut":
            half, width = rng.uniform(0.18, 0.27), rng.uniform(0.045, 0.06)
            opening = width * (1 - (course / half) ** 2)
            edge = np.abs(aside + rng.uniform(-0.15, 0.15) * course) - opening
            fray = 0.034 * ends - 0.012
        else:
            edge = blob(course, aside, rng.uniform(0.085, 0.12), 0.35, rng)
            fray = 0.05 * ends - 0.03
        loose = dye * 0.55 if brightness(dye) > 115 else 0.6 * dye + 90
        fringe = loose * lit * (0.7 + 0.3 * thread)[..., None]
        defective = np.where((edge + 0.022 < fray)[..., None], below, fringe)
        return Layers(sound, defective, edge < 0)
    if defect == "pulled_thread":
        half, loop = rng.uniform(0.26, 0.36), rng.uniform(0.08, 0.13) * float(rng.choice([-1.0, 1.0]))
        middle = rng.uniform(-0.4, 0.4) * half
        path = loop * np.exp(-(((course - middle) / rng.uniform(0.07, 0.1)) ** 2))
        radius = rng.uniform(0.014, 0.018)
        offset = (aside - path) / radius
        steep = np.sqrt(1 + np.gradient(path, float(x[0, 1] - x[0, 0]), axis=1 if not along_warp else 0) ** 2)
        offset = offset / steep
        strand = colour(250, 246, 236) * (0.55 + 0.45 * np.sqrt((1 - offset**2).clip(0)))[..., None] * (lit * 0.5 + 0.5)
        shadow = sound * 0.3
        on = np.abs(offset) < 1
        missing = (np.abs(aside) < radius) & (np.abs(path) > radius)
        outline = ((np.abs(offset) < 1.75) | missing) & (np.abs(course) < half)
        return Layers(sound, np.where(on[..., None], strand, shadow), outline)
    if defect == "stain":
        tint = one_of(
            ((112, 62, 26), (60, 44, 34), (150, 40, 60)) if not dark else ((212, 196, 160), (226, 222, 216)), rng
        )
        defective, distance = stained(sound, x, y, tint * 0.85, rng.uniform(0.1, 0.14), rng)
        return Layers(sound, defective, distance < 0)
    return Layers(sound, sound, np.zeros(x.shape, bool))
