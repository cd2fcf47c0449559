"""Tiles: glazed squares or bricks with joints between them."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, grain, over, ramp, relief
from dhdiff_ray.data.products.textures.surfaces import brightness, clouds, daylight, line, one_of, turned

DEFECTS = ("chipped_corner", "crack", "glue_smear")
GLAZES = (
    (232, 232, 228),
    (206, 220, 226),
    (70, 110, 156),
    (64, 128, 108),
    (172, 88, 58),
    (52, 54, 60),
    (214, 188, 140),
)
GLAZES += ((146, 44, 46), (126, 132, 136), (120, 178, 176))
GROUTS = ((214, 210, 202), (150, 148, 144), (74, 74, 76))


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A tiled wall; chips sit at the corners of its tiles."""
    lit, light = daylight(x, y, rng)
    glaze, grout = one_of(GLAZES, rng), one_of(GROUTS, rng)
    if abs(brightness(glaze) - brightness(grout)) < 40:
        grout = grout * (0.5 if brightness(grout) > 120 else 1.9)
    angle = rng.uniform(-0.2, 0.2)
    u, v = turned(x, y, angle, (0.5 + rng.uniform(-0.15, 0.15, 2)).tolist())
    side = rng.uniform(0.3, 0.46)
    wide = side * float(rng.choice([1.0, 1.0, 1.7]))
    joint, bevel = rng.uniform(0.011, 0.019), rng.uniform(0.012, 0.025)
    brick = 0.5 * wide if rng.random() < 0.35 else 0.0
    row = np.floor(v / side)
    shifted = u + brick * (row % 2)
    column = np.floor(shifted / wide)
    across, down = shifted - (column + 0.5) * wide, v - (row + 0.5) * side
    # Distance to the nearest joint, rounded at the corners of a tile.
    inset_x, inset_y = np.abs(across) - wide / 2 + joint + bevel, np.abs(down) - side / 2 + joint + bevel
    rim = np.hypot(inset_x.clip(0), inset_y.clip(0)) + np.minimum(np.maximum(inset_x, inset_y), 0) - bevel
    on_tile = ramp(rim, 0.006)
    height = 0.6 * bevel * np.sqrt(1 - (1 + rim / bevel).clip(0, 1) ** 2)
    wavy = rng.uniform(0, 0.004) * grain(u * 7, v * 7, rng)
    facing, gloss = relief(
        height + wavy + 0.06 * (across * grain(row, column, rng) + down * grain(column, row, rng)), x, light, 40
    )
    tone = 1 + rng.uniform(0, 0.12) * grain(row + 0.37, column + 0.61, rng)
    tone += rng.uniform(0, 0.12) * clouds(u * 7, v * 7, rng, 2)
    window = rng.uniform(0, 55) * ramp(
        np.hypot((x - rng.uniform(0.1, 0.9)) * 1.6, y - rng.uniform(0.1, 0.9)) - 0.1, 0.25
    )
    tile = glaze * (tone * (0.25 + 0.75 * facing))[..., None] + (gloss * 35 + window)[..., None]
    filling = grout * (0.88 + 0.12 * grain(x * 60, y * 60, rng))[..., None]
    sound = over(filling, tile, on_tile) * lit

    place = rng.uniform(0.38, 0.62, 2).tolist()
    bright = brightness(glaze) > 150
    if defect == "chipped_corner":
        # The corner of a tile that is nearest to the middle of the image.
        inner = np.hypot(np.abs(across) - wide / 2, np.abs(down) - side / 2) + 0.6 * np.hypot(
            x - place[0], y - place[1]
        )
        corner = np.unravel_index(np.where(rim < 0, inner, np.inf).argmin(), x.shape)
        same = (row == row[corner]) & (column == column[corner])
        distance = blob(x - x[corner], y - y[corner], rng.uniform(0.17, 0.22), 0.45, rng)
        distance += 0.014 * grain(x * 18, y * 18, rng)
        body = one_of(((150, 84, 54), (128, 92, 70)) if bright else ((224, 196, 160), (236, 226, 206)), rng)
        rough = 0.02 * clouds(x * 20, y * 20, rng, 2) - 0.3 * ramp(distance + 0.04, 0.05)
        shade, _ = relief(rough, x, light, 1)
        crumbs = (
            body * ((0.75 + 0.25 * shade).clip(0.4, 1.3) * (1 - 0.5 * ramp(np.abs(distance), 0.014)))[..., None] * lit
        )
        return Layers(sound, crumbs, (distance < 0) & same & (rim < 0))
    if defect == "crack":
        # Slanting, so that it is not taken for a joint.
        turn, width = angle + rng.uniform(0.4, 1.15) * float(rng.choice([-1, 1])), rng.uniform(0.017, 0.022)
        distance = line(x, y, place, turn, rng.uniform(0.6, 0.85), width, 0.4, rng, branches=int(rng.integers(0, 3)))
        dark = colour(34, 28, 26) if brightness(glaze) > 85 else colour(206, 200, 192)
        return Layers(sound, over(sound * 0.55, dark, ramp(distance - 0.6, 0.3)), distance < 1)
    if defect == "glue_smear":
        turn = rng.uniform(0, math.pi)
        along, aside = turned(x, y, turn, place)
        distance = blob(along * rng.uniform(0.45, 0.65), aside, rng.uniform(0.085, 0.11), 0.3, rng)
        distance += 0.02 * grain(along * 5, aside * 26, rng)
        thick = 0.05 * np.sqrt((-distance).clip(0, 0.035) / 0.1) + 0.0035 * grain(along * 4, aside * 34, rng)
        shade, glance = relief(thick, x, light, 25)
        glue = one_of(((206, 160, 66), (188, 140, 74)) if bright else ((238, 222, 170), (240, 234, 216)), rng)
        paste = (glue * (0.3 + 0.7 * shade.clip(0.3, 1.4))[..., None] + 45 * glance[..., None]) * lit.clip(0.75, 1.2)
        return Layers(sound, over(sound, paste, 0.6 + 9 * (-distance)), distance < 0)
    return Layers(sound, sound, np.zeros(x.shape, bool))
