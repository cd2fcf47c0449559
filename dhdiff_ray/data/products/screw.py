"""The screw: lying on its side, with a head, a plain neck, threads and a pointed tip."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, colour, grain, over, ramp, relief, stand_out, table

DEFECTS = ("bent_tip", "damaged_thread", "missing_tip", "scratched_head")
METALS = (colour(176, 180, 186), colour(206, 204, 196), colour(212, 172, 84), colour(92, 94, 100), colour(190, 122, 78))


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A screw seen from the side, turned anyhow; all defects lie on it or bend or take a piece of it."""
    ground, light = table(x, y, rng)
    turn = rng.uniform(0, 2 * math.pi)
    across_turn, along_turn = -math.sin(turn), math.cos(turn)
    right, down = x - 0.5 - rng.uniform(-0.03, 0.03), y - 0.5 - rng.uniform(-0.03, 0.03)
    u, v = right * along_turn - down * across_turn, down * along_turn + right * across_turn
    half = rng.uniform(0.38, 0.45)
    shaft, head = rng.uniform(0.078, 0.105), rng.uniform(0.16, 0.21)
    head_end = -half + rng.uniform(0.14, 0.18)
    neck_end = head_end + rng.uniform(0.0, 0.16)
    tip_start = half - rng.uniform(0.1, 0.2)
    pitch = rng.uniform(0.042, 0.062)
    deep, slant = rng.uniform(0.32, 0.45) * pitch, rng.uniform(0.2, 0.4)
    form, metal = int(rng.integers(3)), METALS[int(rng.integers(len(METALS)))] * rng.uniform(0.85, 1.15)
    metal = stand_out(metal, 0.6, ground)
    blunt, shine, wet = rng.uniform(0.15, 0.6), rng.uniform(6, 20), rng.uniform(40, 120)
    phase, marks = rng.uniform(0, 1), grain(u * 12, v * 60, rng)

    def screw(p: np.ndarray, q: np.ndarray, worn: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Picture and depth of the screw at (p, q) along and across; ``worn`` lowers its thread; cut off at ``end``."""
        pointed = ((p - tip_start) / (half - tip_start)).clip(0, 1)
        core = shaft * (1 - (1 - blunt) * pointed)
        turns = (p - slant * q) / pitch + phase
        tooth = 2 * np.abs(turns - np.floor(turns) - 0.5)
        threaded = ((p - neck_end) / 0.02).clip(0, 1)
        profile = core - deep * threaded * np.maximum(1 - tooth, worn) - 0.02 * worn
        inside_head = ((p + half) / (head_end + half)).clip(0, 1)
        if form == 0:  # countersunk
            cap = head + (shaft - head) * ((inside_head - 0.25) / 0.75).clip(0, 1)
        elif form == 1:  # round
            cap = head * np.sqrt((1 - (1 - inside_head) ** 2.2).clip(0))
        else:  # hexagonal or cylindrical
            cap = head * (0.9 + 0.1 * ((p + half) / 0.02).clip(0, 1))
        profile = np.where(p < head_end, cap, profile)
        depth = np.minimum(np.minimum(profile - np.abs(q), half - p), np.minimum(p + half, end))
        height = np.sqrt((profile**2 - q**2).clip(0))
        if form == 2:  # three faces
            height = np.where(p < head_end, np.minimum(0.7 * head, 1.3 * (head - np.abs(q))), height)
        lit, gloss = relief(height, x, light, shine)
        tone = (0.7 + 0.06 * marks) * (0.2 + 0.85 * lit.clip(0, 1.5)) * (1 - 0.35 * threaded * (1 - tooth) * (1 - worn))
        return metal * tone[..., None] + wet * gloss[..., None], depth

    def scene(p: np.ndarray, q: np.ndarray, worn: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The screw on its table, and where it lies or shades the table visibly."""
        body, depth = screw(p, q, worn, end)
        length = np.maximum(-half - p, p - half + 0.05).clip(0)
        wide = np.where(p < head_end, head, shaft * 0.8)
        toward = 0.035 * (light[1] * along_turn + light[0] * across_turn)
        beside = np.hypot((np.abs(q + toward) - wide).clip(0), length)
        shade = 0.5 * ramp(np.maximum(beside, -end), 0.032)
        return over(ground * (1 - shade)[..., None], body, depth / 0.004), (depth > 0) | (shade > 0.1)

    nothing, endless = np.zeros_like(x), np.ones_like(x)
    sound, touched = scene(u, v, nothing, endless)
    inside = screw(u, v, nothing, endless)[1] > 0
    if defect == "bent_tip":
        start = rng.uniform(0.1, 0.2)
        side = rng.choice([-1.0, 1.0])
        reach = (u - start).clip(0)
        aside = side * rng.uniform(1.1, 1.7) * reach**1.4
        defective, moved = scene(u + np.abs(aside) * reach, v - aside, nothing, endless)
        return Layers(sound, defective, (touched | moved) & (u > start + 0.03))
    if defect == "missing_tip":
        start = half - rng.uniform(0.17, 0.3)
        ragged = start + rng.uniform(-0.6, 0.6) * v + 0.02 * grain(v * 30, v * 0, rng) - u
        defective, _ = scene(u, v, nothing, ragged)
        torn = ramp(ragged, 0.03) * (ragged > 0) * inside
        defective = over(defective, metal * 0.35, torn)
        return Layers(sound, defective, touched & (ragged < 0.03))
    if defect == "damaged_thread":
        middle, reach = rng.uniform(neck_end + 0.1, tip_start - 0.05), rng.uniform(0.08, 0.12)
        side = rng.choice([-1.0, 1.0])
        hurt = np.hypot((u - middle) / reach, (v - 0.5 * side * shaft) / (1.4 * shaft))
        hurt = hurt + 0.25 * grain(u * 25, v * 25, rng)
        defective, _ = scene(u, v, ramp(hurt - 0.8, 0.2), endless)
        chewed = 0.55 + 0.75 * grain(u * 38, v * 20, rng)
        rough = over(defective, metal * (0.15 + chewed.clip(0, 1.3))[..., None] + 20, 0.8 * (inside & (hurt < 1)))
        return Layers(sound, rough, inside & (hurt < 1))
    if defect == "scratched_head":
        middle = (head_end - half) / 2
        tilt, bow = rng.uniform(0.9, 2.2), rng.uniform(-0.8, 0.8)
        p, q = u - middle, v - rng.uniform(-0.2, 0.2) * head
        course = p * math.cos(tilt) + q * math.sin(tilt)
        aside = q * math.cos(tilt) - p * math.sin(tilt) + bow * course**2 + 0.008 * grain(course * 30, course * 0, rng)
        breadth = rng.uniform(0.024, 0.032) * np.sqrt((1 - (course / (1.1 * head)) ** 2).clip(0, 1))
        groove = over(np.broadcast_to(colour(18, 16, 16), sound.shape), colour(255, 252, 246), aside * 70 + 0.4)
        return Layers(sound, groove, (np.abs(aside) < breadth) & inside & (u < head_end))
    return Layers(sound, sound, np.zeros_like(inside))
