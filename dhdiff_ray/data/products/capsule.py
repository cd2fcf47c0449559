"""The capsule: a two-tone pill lying on a dark ground."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, ramp

DEFECTS = ("crack", "poke", "squeeze")


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A two-tone capsule; all defects lie on it."""
    angle = math.radians(rng.uniform(-8, 8))
    centre_x, centre_y = 0.5 + rng.uniform(-0.03, 0.03), 0.5 + rng.uniform(-0.03, 0.03)
    u = (x - centre_x) * math.cos(angle) + (y - centre_y) * math.sin(angle)
    v = (y - centre_y) * math.cos(angle) - (x - centre_x) * math.sin(angle)
    length, radius = 0.22 * rng.uniform(0.97, 1.03), 0.2 * rng.uniform(0.97, 1.03)
    brightness = rng.uniform(0.92, 1.06)
    red, cream = colour(206, 72, 40) * brightness, colour(238, 222, 182) * brightness
    ground = colour(44, 54, 68) * rng.uniform(0.9, 1.1)

    axis_distance = np.hypot(np.maximum(np.abs(u) - length, 0), v)
    inside = axis_distance < radius
    shadow = ramp(np.hypot(np.maximum(np.abs(u - 0.012) - length, 0), v - 0.03) - radius, 0.05)
    background = ground * (1.08 - 0.16 * y - 0.45 * shadow)[..., None]
    roundness = np.sqrt((1 - (axis_distance / radius) ** 2).clip(0, 1))
    gloss = 70 * np.exp(-(((v + 0.085) / 0.028) ** 2)) * ramp(np.abs(u) - length, 0.1)
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
        dark = colour(26, 12, 10) * (0.7 + 0.6 * edge)[..., None]
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
        pressed = body * (0.35 + 0.3 * ramp(beyond + rim, rim))[..., None]
        defective = np.where((beyond > 0)[..., None], background * 0.8, pressed)
        return Layers(sound, defective, near & (beyond > -rim) & (dented < radius - 0.008))
    if defect == "poke":
        hole = rng.uniform(0.055, 0.07)
        distance = blob(u - place_u, v - place_v, hole, 0.25, rng)
        rim = rng.uniform(0.028, 0.036)
        pale = np.where((u < 0)[..., None], colour(255, 186, 160), colour(255, 255, 250))
        defective = np.where((distance < 0)[..., None], colour(22, 14, 14), pale)
        return Layers(sound, defective, (distance < rim) & inside)
    return Layers(sound, sound, np.zeros_like(inside))
