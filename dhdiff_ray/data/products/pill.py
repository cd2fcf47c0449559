"""The pill: a round or oval coated tablet with a score line, plain or speckled."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, blob, colour, grain, over, ramp, relief, table

DEFECTS = ("chip", "contamination", "crack", "faulty_score")
COATS = (
    colour(236, 234, 226),
    colour(238, 226, 178),
    colour(236, 170, 176),
    colour(244, 150, 72),
    colour(120, 176, 222),
    colour(142, 204, 150),
    colour(206, 88, 74),
)
BLOTS = (colour(200, 24, 30), colour(20, 90, 30), colour(18, 40, 150), colour(24, 20, 20), colour(90, 44, 14))


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A tablet seen from above; all defects lie on it or take a piece of it."""
    ground, light = table(x, y, rng)
    turn = rng.uniform(0, 2 * math.pi)
    right, down = x - 0.5 - rng.uniform(-0.05, 0.05), y - 0.5 - rng.uniform(-0.05, 0.05)
    u, v = right * math.cos(turn) + down * math.sin(turn), down * math.cos(turn) - right * math.sin(turn)
    radius = rng.uniform(0.27, 0.38)
    oval = 1.0 if rng.random() < 0.5 else rng.uniform(0.58, 0.75)
    if oval < 1:
        radius = rng.uniform(0.36, 0.43)
    coat = COATS[int(rng.integers(len(COATS)))] * rng.uniform(0.82, 1.06)
    dome, shine, wet = rng.uniform(0.1, 0.22), rng.uniform(15, 60), rng.uniform(20, 110)
    speckled, printed, cross = rng.random() < 0.35, rng.random() < 0.4, rng.random() < 0.25
    score = rng.uniform(0.022, 0.032)
    ink = coat * rng.uniform(0.35, 0.6)
    speckles = grain(u * 55, v * 55, rng)

    def away(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        """About how far a place is beyond the tablet's edge."""
        return (np.hypot(p, q / oval) - radius) * (1 + oval) / 2

    def tablet(line: np.ndarray) -> np.ndarray:
        """The tablet with its score line where ``line`` (the distance from it) is small."""
        depth = (-away(u, v)).clip(0)
        height = dome * np.sqrt((1 - (1 - depth / radius) ** 2).clip(0)) * (0.6 + 0.4 * oval)
        groove = ramp(np.abs(line) - score * 0.5, score * 0.6)
        lit, gloss = relief(height if printed else height - 0.6 * score * groove, x, light, shine)
        body = np.broadcast_to(coat, (*x.shape, 3))
        if speckled:
            body = over(body, coat * 0.62, ((speckles - 0.45) * 4).clip(0, 1))
        body = over(body, ink, groove if printed else 0.45 * groove)
        return body * (0.25 + 0.75 * lit.clip(0, 1.5))[..., None] + wet * gloss[..., None]

    straight = np.minimum(np.abs(u), np.abs(v)) if cross else np.abs(u)
    edge = away(u, v)
    du, dv = 0.9 * dome * light[0], 0.9 * dome * light[1]
    far = away(
        u + du * math.cos(turn) + dv * math.sin(turn), v + dv * math.cos(turn) - du * math.sin(turn)
    )  # what stands between here and the light
    below = ground * (1 - 0.6 * ramp(far, 0.07))[..., None]
    body = tablet(straight)
    sound, inside = over(below, body, -edge / 0.006), edge < 0

    place = rng.uniform(0, 2 * math.pi)
    rim_u, rim_v = radius * math.cos(place), oval * radius * math.sin(place)
    inner = rng.uniform(0.15, 0.6)
    if defect == "chip":
        size = rng.uniform(0.1, 0.14)
        bite = blob(u - 0.97 * rim_u, v - 0.97 * rim_v, size, 0.5, rng) + 0.012 * grain(u * 30, v * 30, rng)
        core = colour(248, 244, 232) if coat.min() < 200 else colour(176, 164, 144)
        rough = core * (0.72 + 0.28 * grain(u * 45, v * 45, rng))[..., None]
        gone = (-(bite + 0.35 * size) / 0.01).clip(0, 1)
        crumbled = over(over(rough, coat * 0.3, ramp(-bite, 0.016)), ground * 0.7, gone)
        return Layers(sound, crumbled, (bite < 0) & inside)
    if defect == "contamination":
        foreign = BLOTS[int(rng.integers(len(BLOTS)))] * rng.uniform(0.8, 1.2)
        if np.abs(foreign - coat).sum() < 230:
            foreign = BLOTS[3]
        stain = np.full_like(x, 1.0)
        at_u, at_v, step = inner * rim_u, inner * rim_v, rng.uniform(0, 2 * math.pi)
        for _ in range(int(rng.integers(1, 5))):
            size = rng.uniform(0.065, 0.085)
            stain = np.minimum(stain, blob(u - at_u, v - at_v, size, 0.6, rng))
            step += rng.uniform(-0.9, 0.9)
            at_u, at_v = at_u + 0.9 * size * math.cos(step), at_v + 0.9 * size * math.sin(step)
        foreign = foreign * (0.85 + 0.2 * grain(u * 35, v * 35, rng))[..., None]
        return Layers(sound, over(body, foreign, -stain / 0.012), (stain < 0) & inside)
    if defect == "crack":
        # From the edge inwards, along a zigzag.
        course_u, course_v = -math.cos(place), -math.sin(place)
        from_u, from_v = u - rim_u, v - rim_v
        course = from_u * course_u + from_v * course_v
        length = rng.uniform(1.0, 1.5) * math.hypot(rim_u, rim_v)
        knots = np.linspace(0, length, 7)
        zigzag = rng.uniform(0.012, 0.035, 7) * np.where(np.arange(7) % 2, 1, -1)
        aside = from_v * course_u - from_u * course_v - np.interp(course, knots, zigzag).astype(np.float32)
        breadth = rng.uniform(0.027, 0.035) * (1 - 0.6 * (course / length).clip(0, 1))
        outline = (np.abs(aside) < breadth) & (course < length) & inside
        dark = over(np.broadcast_to(coat * 0.55, sound.shape), colour(22, 16, 14), ramp(np.abs(aside), 0.03))
        return Layers(sound, dark, outline)
    if defect == "faulty_score":
        end = 1.0 if rng.random() < 0.5 else -1.0
        lean = rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 0.75)
        half, start = v * end, rng.uniform(-0.35, 0.0) * oval * radius
        beyond = (half - start).clip(0)
        bent = (u - lean * beyond) * math.cos(math.atan(lean))
        astray = np.where(half < start, np.abs(u), np.abs(bent))
        line = np.minimum(astray, np.abs(v)) if cross else astray
        touched = (np.abs(u) < 1.1 * score) | (np.abs(bent) < 1.1 * score)
        return Layers(sound, over(below, tablet(line), -edge / 0.006), touched & (half > start) & inside)
    return Layers(sound, sound, np.zeros_like(inside))
