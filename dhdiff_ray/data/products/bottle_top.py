"""The bottle's mouth seen from above: rings of glass around a dark or lit opening."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, grain, over, ramp, relief, table

DEFECTS = ("broken_large", "broken_small", "contamination")
GLASSES = (
    colour(96, 56, 22),
    colour(44, 104, 52),
    colour(120, 150, 158),
    colour(40, 76, 140),
    colour(150, 104, 40),
    colour(64, 74, 60),
)
DIRT = (colour(232, 224, 204), colour(196, 168, 120), colour(30, 26, 22), colour(200, 40, 40), colour(90, 150, 60))


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """The mouth of a bottle; what is broken is broken out of its rim, dirt lies in the mouth or on the rim."""
    ground, light = table(x, y, rng)
    u, v = x - 0.5 - rng.uniform(-0.04, 0.04), y - 0.5 - rng.uniform(-0.04, 0.04)
    outer = rng.uniform(0.38, 0.46)
    mouth = outer * rng.uniform(0.46, 0.6)
    glass = GLASSES[int(rng.integers(len(GLASSES)))] * rng.uniform(0.8, 1.25)
    distance, angle = np.hypot(u, v), np.arctan2(v, u)

    # The profile from the mouth to the shoulder: the lip, a groove, the collar.
    part = ((distance - mouth) / (outer - mouth)).clip(-1, 1.2)
    lip, groove = rng.uniform(0.42, 0.56), rng.uniform(0.06, 0.14)
    rounded = np.sqrt((1 - (2 * part / lip - 1) ** 2).clip(0, 1))
    after = (part - lip - groove) / (1 - lip - groove)
    collar = np.sqrt((1 - (2 * after - 1) ** 2).clip(0, 1))
    height = 0.055 * rounded + rng.uniform(0.025, 0.05) * collar
    lit, gloss = relief(height, x, light, rng.uniform(8, 24))
    bands = grain(part * rng.uniform(3, 7), part * 0, rng)
    tone = 0.55 + 0.25 * rounded + 0.1 * collar + rng.uniform(0.1, 0.25) * bands
    body = glass * (tone * (0.3 + 0.7 * lit.clip(0, 1.8)))[..., None] + rng.uniform(60, 150) * gloss[..., None]
    glare = np.zeros_like(x)
    for _ in range(int(rng.integers(1, 4))):  # windows and lamps seen in the lip
        where, spread = rng.uniform(-math.pi, math.pi), rng.uniform(0.15, 0.5)
        turned = (angle - where + math.pi) % (2 * math.pi) - math.pi
        at = lip * rng.uniform(0.3, 0.7)
        glare += 120 * np.exp(-((turned / spread) ** 2) - ((part - at) / 0.07) ** 2)
    body = body + glare[..., None]
    if rng.random() < 0.5:  # lit from below
        depth = glass * 0.5 + rng.uniform(90, 150)
        hollow = depth * (1 - 0.45 * (distance / mouth) ** 3)[..., None]
    else:
        depth = glass * rng.uniform(0.1, 0.3)
        hollow = depth * (0.7 + 0.6 * (distance / mouth) ** 2)[..., None]
    hollow = hollow * (1 - 0.35 * ramp(np.abs(distance - 0.72 * mouth), 0.03))[..., None]
    below = ground * (1 - 0.5 * ramp(np.hypot(u + 0.05 * light[0], v + 0.05 * light[1]) - outer, 0.06))[..., None]
    top = over(body, hollow, ramp(distance - mouth, 0.01))
    sound, inside = over(below, top, (-(distance - outer) / 0.006).clip(0, 1)), distance < outer

    place = rng.uniform(-math.pi, math.pi)
    around = (angle - place + math.pi) % (2 * math.pi) - math.pi
    if defect in ("broken_large", "broken_small"):
        ragged = 0.016 * grain(u * 22, v * 22, rng) + 0.01 * grain(u * 55, v * 55, rng)
        if defect == "broken_large":
            half = rng.uniform(0.42, 0.6)
            reach = mouth + (outer - mouth) * rng.uniform(0.85, 1.1)
            edge = np.maximum(
                np.abs(around) * distance - half * mouth * 1.25, np.abs(distance - reach * 0.5) - reach * 0.5
            )
            edge = edge + 2 * ragged
        else:
            rim = mouth + (outer - mouth) * lip * rng.uniform(0.2, 0.7)
            away_u, away_v = u - rim * math.cos(place), v - rim * math.sin(place)
            edge = blob(away_u, away_v, rng.uniform(0.08, 0.1), 0.5, rng) + ragged
        # Broken glass is rippled along its edge, dark where one looks through, and glints.
        ripples = 0.5 + 0.5 * np.sin(edge * rng.uniform(150, 240) + 2.5 * grain(u * 12, v * 12, rng))
        fracture = over(glass * np.full_like(sound, 0.4), 0.35 * glass + 165, 0.75 * ripples**2)
        through = (-edge - 0.03) / 0.02 * (0.75 + 0.6 * grain(u * 15, v * 15, rng))
        fracture = over(fracture, colour(9, 9, 10), 0.95 * through.clip(0, 1))
        fracture = over(fracture, colour(250, 253, 250), ramp(-edge, 0.024))
        return Layers(sound, fracture, (edge < 0) & inside & (distance > mouth * 0.97))
    if defect == "contamination":
        dirt = DIRT[int(rng.integers(len(DIRT)))]
        in_mouth = rng.random() < 0.65
        at = rng.uniform(0.1, 0.6) * mouth if in_mouth else mouth + rng.uniform(0.1, 0.6) * (outer - mouth)
        du, dv = u - at * math.cos(place), v - at * math.sin(place)
        turn, stretch = rng.uniform(0, math.pi), rng.uniform(1, 1.9)
        along, across = du * math.cos(turn) + dv * math.sin(turn), dv * math.cos(turn) - du * math.sin(turn)
        size = rng.uniform(0.08, 0.125) / math.sqrt(stretch)
        lump = blob(along / stretch, across, size, 0.7, rng) + 0.015 * grain(u * 28, v * 28, rng)
        under = top[lump < 0].mean(axis=0)
        if np.abs(0.85 * dirt - under).sum() < 170:
            dirt = DIRT[0] if under.mean() < 110 else DIRT[2]
        raised, _ = relief(0.3 * (-lump).clip(0, 0.04) + 0.012 * grain(u * 30, v * 30, rng), x, light, 1)
        mass = dirt * (0.35 + 0.6 * raised.clip(0, 1.4))[..., None]
        return Layers(sound, over(top, mass, -lump / 0.01), (lump < 0) & inside)
    return Layers(sound, sound, np.zeros_like(inside))
