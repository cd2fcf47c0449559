"""Brushed metal: fine grooves of one direction and the soft highlight they spread across themselves."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, grain, over, ramp
from dhdiff_ray.data.products.textures.surfaces import clouds, daylight, line, one_of, turned

DEFECTS = ("corrosion", "dent", "scratch")
METALS = (
    (168, 172, 178),
    (190, 190, 188),
    (120, 124, 132),
    (196, 164, 96),
    (188, 122, 92),
    (82, 86, 94),
    (150, 152, 150),
)


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A brushed sheet of steel, aluminium, brass or copper."""
    lit, light = daylight(x, y, rng)
    metal = one_of(METALS, rng)
    angle = rng.uniform(-0.3, 0.3) + (math.pi / 2 if rng.random() < 0.5 else 0)
    u, v = turned(x, y, angle)
    fine, coarse = rng.uniform(0.1, 0.2), rng.uniform(0.04, 0.11)
    grooves = fine * grain(u * 1.6, v * 62, rng) + coarse * grain(u * 0.9 + 9, v * 27, rng)
    grooves += 0.07 * grain(u * 5, v * 40, rng)
    band, spread = rng.uniform(-0.35, 0.35), rng.uniform(0.12, 0.3)
    ray = u + rng.uniform(-0.3, 0.3) * v - band
    gleam = rng.uniform(0.15, 0.6) * np.exp(-((ray / spread) ** 2))
    tone = 0.8 + grooves * (1 + gleam) + 0.04 * clouds(x * 3, y * 3, rng, 2)
    sound = (metal * tone[..., None] + (gleam * (90 + 200 * grooves))[..., None]) * lit

    place = rng.uniform(0.33, 0.67, 2).tolist()
    if defect == "scratch":
        turn = angle + float(rng.choice([-1, 1])) * rng.uniform(0.6, 1.55)
        width = rng.uniform(0.023, 0.03)
        distance = line(x, y, place, turn, rng.uniform(0.5, 0.75), width, rng.uniform(0.02, 0.16), rng)
        # The ground of a furrow flashes, and its burr casts a shadow to either side.
        flash = np.broadcast_to(colour(255, 253, 246), sound.shape)
        return Layers(sound, over(metal * 0.2, flash, ramp(distance - 0.5, 0.2)), distance < 1)
    if defect == "dent":
        along, across = turned(x, y, rng.uniform(0, math.pi), place)
        radius = rng.uniform(0.115, 0.15)
        distance = blob(along * rng.uniform(0.72, 1), across, radius, 0.15, rng)
        depth = (-distance / radius).clip(0, 1)
        # A hollow: the wall away from the light is bright, the near wall dark.
        flat = math.hypot(light[0], light[1])
        towards = ((x - place[0]) * light[0] + (y - place[1]) * light[1]) / (flat * radius)
        wall = np.sin(math.pi * (1 - depth).clip(0, 1)) * ramp(-depth, 1) + 0.75 * (1 - depth)
        slope = -(towards * wall.clip(0, 1.2)).clip(-1, 1)
        shade = sound * (1 - 0.95 * (-slope).clip(0, 0.95))[..., None]
        glint = np.exp(-(((towards + 0.5) / 0.22) ** 2)) * ramp(np.abs(depth - 0.45) - 0.1, 0.3)
        defective = shade + (slope.clip(0) * 90 + 75 * glint)[..., None]
        return Layers(sound, defective, distance < 0)
    if defect == "corrosion":
        along, across = turned(x, y, rng.uniform(0, math.pi), place)
        distance = blob(along * rng.uniform(0.65, 1), across, rng.uniform(0.105, 0.14), 0.7, rng)
        distance += 0.03 * clouds(x * 13, y * 13, rng, 2)
        crust = one_of(((150, 72, 26), (122, 56, 28), (172, 92, 36)), rng)
        if metal[0] > 1.15 * metal[2]:
            crust = one_of(((72, 148, 122), (96, 168, 146)), rng)
        lumps = clouds(x * 26, y * 26, rng, 2)
        rust = crust * (0.82 + 0.5 * lumps)[..., None] * lit.clip(0.8, 1.2)
        pits = ramp(0.12 - lumps, 0.1) * ramp(distance + 0.03, 0.03)
        rust = over(rust, colour(26, 18, 16), 0.9 * pits)
        return Layers(sound, over(sound * 0.5, rust, ramp(distance + 0.008, 0.012)), distance < 0)
    return Layers(sound, sound, np.zeros(x.shape, bool))
