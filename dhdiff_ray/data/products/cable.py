"""The cable: a cut through its sheath and three insulated conductors of copper strands."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, grain, over, ramp, relief, table

DEFECTS = ("bent_wire", "cut_outer", "missing_conductor", "poked")
SHEATHS = (
    colour(200, 202, 204),
    colour(52, 52, 56),
    colour(236, 232, 222),
    colour(226, 120, 40),
    colour(120, 126, 132),
    colour(70, 100, 160),
)
INSULATIONS = (
    (colour(120, 74, 44), colour(50, 104, 190), colour(120, 180, 60)),
    (colour(40, 40, 44), colour(226, 226, 220), colour(200, 44, 40)),
    (colour(226, 196, 40), colour(60, 150, 80), colour(60, 80, 170)),
    (colour(190, 192, 194), colour(120, 70, 44), colour(40, 44, 52)),
)


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A cable's cross-section; all defects lie on it or take a piece of it."""
    ground, light = table(x, y, rng)
    u, v = x - 0.5 - rng.uniform(-0.03, 0.03), y - 0.5 - rng.uniform(-0.03, 0.03)
    outer = rng.uniform(0.38, 0.455)
    sheath = outer * rng.uniform(0.15, 0.22)
    bore = outer - sheath
    radius = bore / 2.2 * rng.uniform(0.93, 0.99)
    centre = (bore - radius) * rng.uniform(0.97, 1.0)
    core = radius * rng.uniform(0.58, 0.7)
    turn = rng.uniform(0, 2 * math.pi)
    cover = SHEATHS[int(rng.integers(len(SHEATHS)))] * rng.uniform(0.88, 1.08)
    colours = [c * rng.uniform(0.88, 1.12) for c in INSULATIONS[int(rng.integers(len(INSULATIONS)))]]
    order = rng.permutation(3)
    copper = (colour(214, 130, 82) if rng.random() < 0.75 else colour(206, 204, 198)) * rng.uniform(0.88, 1.1)
    strand = 2 * core / rng.uniform(3.6, 6.2)
    filling = colour(34, 33, 32) if rng.random() < 0.6 else colour(206, 200, 190)
    distance = np.hypot(u, v)

    angles = [turn + 2 * math.pi * i / 3 + rng.uniform(-0.06, 0.06) for i in range(3)]
    spots = [(centre * math.cos(a), centre * math.sin(a)) for a in angles]
    apart = np.stack([np.hypot(u - p, v - q) for p, q in spots])
    nearest = apart.argmin(axis=0)
    near = apart.min(axis=0)
    p, q = (u - np.array([s[i] for s in spots], np.float32)[nearest] for u, i in ((u, 0), (v, 1)))
    skew = rng.uniform(0, math.pi)
    p, q = p * math.cos(skew) + q * math.sin(skew), q * math.cos(skew) - p * math.sin(skew)

    # Strands lie closely packed: each place belongs to the nearest knot of two rectangular lattices.
    lattices = []
    for shift in (0.0, 0.5):
        i, j = np.round(p / strand - shift) + shift, np.round(q / strand / 1.732 - shift) + shift
        a, b = i * strand, j * strand * 1.732
        lattices.append((np.hypot(p - a, q - b), np.hypot(a, b), np.sin(7 * i + 11 * j)))
    first = lattices[0][0] < lattices[1][0]
    off, knot, chance = (np.where(first, a, b) for a, b in zip(*lattices, strict=True))
    wire = 0.5 + 0.55 * np.sqrt((1 - (2 * off / strand) ** 2).clip(0, 1)) + 0.14 * chance
    wires = copper * (wire * ((off < strand / 2) & (knot < core - strand * 0.3)))[..., None] + 16

    fibre = 1 + 0.05 * grain(u * 60, v * 60, rng)
    edge = 0.02
    ring = np.minimum(outer - distance, distance - bore)
    lit, _ = relief(0.016 * (ring / edge).clip(0, 1), x, light, 1)
    insulation_lit, gloss = relief(0.02 * (np.minimum(radius - near, near - core) / edge).clip(0, 1), x, light, 20)
    jacket = cover * (fibre * (0.25 + 0.7 * lit.clip(0, 1.5)))[..., None]
    insulation = np.stack([colours[int(i)] for i in order])[nearest]
    insulation = insulation * (fibre * (0.25 + 0.75 * insulation_lit.clip(0, 1.5)))[..., None] + 30 * gloss[..., None]
    stuffing = filling * (fibre * (1 - 0.6 * ramp(np.minimum(near - radius, bore - distance), 0.03)))[..., None]
    below = ground * (1 - 0.55 * ramp(np.hypot(u + 0.05 * light[0], v + 0.05 * light[1]) - outer, 0.06))[..., None]
    within = over(over(stuffing, insulation, (radius - near) / 0.006 + 0.5), wires, (core - near) / 0.006 + 0.5)
    whole = over(within, jacket, (distance - bore) / 0.006)
    sound, inside = over(below, whole, (outer - distance) / 0.006), distance < outer

    which = int(rng.integers(3))
    here_u, here_v = u - spots[which][0], v - spots[which][1]
    place = rng.uniform(-math.pi, math.pi)
    along, across = (
        here_u * math.cos(place) + here_v * math.sin(place),
        here_v * math.cos(place) - here_u * math.sin(place),
    )
    if defect == "missing_conductor":
        size = radius if rng.random() < 0.6 else core
        room = size - apart[which]
        lit_wall = np.hypot(here_u + 0.03 * light[0], here_v + 0.03 * light[1])
        pit = colour(16, 15, 15) + (filling * 0.3 + 40) * ((lit_wall / size) ** 4).clip(0, 1.3)[..., None]
        return Layers(sound, np.broadcast_to(pit, sound.shape), room > 0)
    if defect == "cut_outer":
        half = rng.uniform(0.27, 0.5)
        around = (np.arctan2(v, u) - place + math.pi) % (2 * math.pi) - math.pi
        lean = rng.uniform(-0.6, 0.6)
        opening = np.abs(around + lean * (distance - outer) / sheath * half) - half
        opening = opening * outer + 0.012 * grain(u * 30, v * 30, rng)
        # A dark sheath shows pale fleece under the cut, a pale one a dark gap.
        fleece = colour(206, 196, 176) if cover.mean() < 130 else colour(26, 24, 24)
        frayed = fleece * (0.85 + 0.15 * grain(u * 50, v * 50, rng))[..., None]
        torn = over(frayed, 0.4 * cover + (20 if cover.mean() < 130 else 130), ramp(-opening, 0.018))
        return Layers(sound, torn, (opening < 0) & inside & (distance > bore))
    if defect == "poked":
        hole = blob(along - radius * rng.uniform(0.6, 0.85), across, rng.uniform(0.058, 0.07), 0.3, rng)
        pale = 0.5 * colours[int(order[which])] + 125
        pushed = over(np.broadcast_to(pale, sound.shape), colour(10, 8, 8), -hole / 0.012)
        return Layers(sound, pushed, (hole < 0.018) & (distance < bore + 0.3 * sheath))
    if defect == "bent_wire":
        length = radius * rng.uniform(1.5, 2.1)
        bow = rng.uniform(-1.6, 1.6)
        aside = across - bow * (along.clip(0) ** 2)
        thick = rng.uniform(0.03, 0.036)
        gap = np.hypot(np.maximum(np.abs(along - length / 2) - length / 2, 0), aside)
        barrel = np.sqrt((1 - (gap / (0.72 * thick)) ** 2).clip(0, 1))
        metal = copper * (0.35 + 0.9 * barrel)[..., None]
        return Layers(sound, over(metal, colour(14, 10, 8), (gap - 0.7 * thick) / 0.006), (gap < thick) & inside)
    return Layers(sound, sound, np.zeros_like(inside))
