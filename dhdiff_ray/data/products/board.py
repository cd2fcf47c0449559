"""The board: a piece of a circuit board with parallel tracks, drilled pads, vias and perhaps a chip."""

from __future__ import annotations

import math

import numpy as np

from dhdiff_ray.data.drawing import Layers, colour, grain, over, ramp, relief, table

DEFECTS = ("missing_hole", "open_circuit", "scratch", "short")
MASKS = (
    colour(22, 92, 46),
    colour(24, 58, 130),
    colour(140, 28, 30),
    colour(30, 32, 34),
    colour(92, 40, 110),
    colour(196, 160, 92),
    colour(16, 70, 66),
)


def draw(defect: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Layers:
    """A piece of a board, filling the picture; defects follow its tracks and pads, a scratch crosses them."""
    _, light = table(x, y, rng)
    turn = int(rng.integers(4)) * math.pi / 2 + (rng.uniform(-0.15, 0.15) if rng.random() < 0.5 else 0)
    u = (x - 0.5) * math.cos(turn) + (y - 0.5) * math.sin(turn)
    v = (y - 0.5) * math.cos(turn) - (x - 0.5) * math.sin(turn)
    pitch = rng.uniform(0.215, 0.25)
    width = pitch * rng.uniform(0.33, 0.42)
    lacquer = MASKS[int(rng.integers(len(MASKS)))] * rng.uniform(0.8, 1.2)
    finish = int(rng.integers(3))
    metal = (colour(214, 176, 92), colour(206, 208, 206), colour(220, 138, 88))[finish] * rng.uniform(0.88, 1.08)
    bare, pale = rng.random() < 0.35, lacquer.mean() > 110
    covered = lacquer * rng.uniform(0.45, 0.6) if pale else lacquer * 1.35 + rng.uniform(45, 68)
    track = metal if bare and not pale else covered
    jog = rng.choice([-1.0, 0.0, 1.0]) * pitch * rng.uniform(0.4, 0.7)
    knee = rng.uniform(-0.2, -0.12)
    pads_at, hole, land = rng.uniform(-0.37, -0.28), rng.uniform(0.066, 0.074), rng.uniform(0.098, 0.107)
    chip_at = rng.uniform(0.3, 0.37) if rng.random() < 0.45 else 2.0
    vias = [(int(n), rng.uniform(0.26, 0.42)) for n in rng.permutation(3)[:2] - 1] if chip_at > 1 else []
    bright = rng.uniform(0.85, 1.15) * (1 + 0.4 * (light[0] * (x - 0.5) + light[1] * (y - 0.5)))
    weave = 1 + 0.05 * grain(u * 70, v * 5, rng) + 0.05 * grain(u * 5, v * 70, rng)

    # A track is straight, then climbs at 45 degrees, then is straight again: the distance to the nearest of the three.
    side = math.copysign(1, jog)
    climb = side * (u - knee).clip(0, abs(jog))
    offset = v - climb
    lane = np.round(offset / pitch)
    p, q = u - knee, side * (v - lane * pitch)
    nearest = ((p + q) / 2).clip(0, abs(jog))
    across = np.minimum(np.hypot(p.clip(0), q), np.hypot((p - abs(jog)).clip(None, 0), q - abs(jog)))
    across = np.minimum(across, np.hypot(p - nearest, q - nearest))

    def board(gap: np.ndarray, bridge: np.ndarray, filled: np.ndarray) -> np.ndarray:
        """The board with tracks cut where ``gap`` and joined where ``bridge``, without the holes where ``filled``."""
        level = ((width / 2 - across) / 0.006 + 0.5).clip(0, 1) * (u > pads_at)
        level = np.maximum(level * ~gap, bridge)
        picture = over(lacquer * weave[..., None], np.broadcast_to(track, (*x.shape, 3)), level)
        place = np.hypot(u - pads_at, v - np.round(v / pitch) * pitch)
        solder = ((land - place) / 0.006 + 0.5).clip(0, 1)
        drilled = ((hole - place) / 0.006 + 0.5).clip(0, 1) * ~filled
        for number, position in vias:
            there = np.hypot(u - position, offset - number * pitch)
            solder = np.maximum(solder, (0.064 - there) / 0.006 + 0.5)
            drilled = np.maximum(drilled, (0.028 - there) / 0.006 + 0.5)
        solder = solder.clip(0, 1)
        lit, gloss = relief(0.006 * np.maximum(level, 2 * solder) - 0.01 * drilled, x, light, 12)
        picture = over(picture, np.broadcast_to(metal, picture.shape), solder)
        picture = (
            picture * (0.55 + 0.45 * lit.clip(0, 1.8))[..., None] + 40 * (gloss * np.maximum(solder, 0.3))[..., None]
        )
        picture = over(picture, np.broadcast_to(colour(12, 12, 13), picture.shape), drilled)
        if chip_at < 1:
            leg = ((0.075 - np.abs(u - chip_at)) / 0.006).clip(0, 1) * (0.062 - np.abs(offset - lane * pitch) > 0)
            picture = over(picture, colour(214, 216, 218) * (0.6 + 0.3 * lit)[..., None], leg)
            body = colour(36, 37, 40) * (0.9 + 0.35 * ramp(np.abs(u - chip_at - 0.05), 0.02))[..., None]
            picture = over(picture, body, (u - chip_at - 0.03) / 0.006)
        return picture * bright[..., None]

    never = np.zeros(x.shape, bool)
    none = np.zeros_like(x)
    sound = board(never, none, never)
    which = int(rng.integers(-1, 2))
    middle = rng.uniform(knee + abs(jog) + 0.04, 0.15)
    ragged = 0.012 * grain(u * 25, v * 25, rng)
    if defect == "missing_hole":
        there = np.hypot(u - pads_at, v - which * pitch)
        filled = there < hole + 0.008
        return Layers(sound, board(never, none, filled), filled)
    if defect == "open_circuit":
        half = rng.uniform(0.075, 0.12)
        gap = np.abs(u - middle + rng.uniform(-0.35, 0.35) * (offset - which * pitch) + ragged) < half
        gap &= np.abs(offset - which * pitch) < width / 2 + 0.006
        return Layers(sound, board(gap, none, never), gap)
    if defect == "short":
        which = min(which, 0)
        thick = rng.uniform(0.05, 0.085)
        course = offset - which * pitch
        lean, waist = rng.uniform(-0.5, 0.5), rng.uniform(0.0, 0.5)
        aside = np.abs(u - middle - lean * (course - pitch / 2)) + ragged
        narrow = thick * (1 - waist * (1 - (2 * course / pitch - 1) ** 2).clip(0, 1))
        bridge = (aside < narrow) & (course > 0) & (course < pitch)
        return Layers(sound, board(never, bridge.astype(np.float32), never), bridge)
    if defect == "scratch":
        angle, bow, half = rng.uniform(0, math.pi), rng.uniform(-0.6, 0.6), rng.uniform(0.2, 0.36)
        p, q = u - rng.uniform(-0.12, 0.12), v - rng.uniform(-0.12, 0.12)
        course = p * math.cos(angle) + q * math.sin(angle)
        aside = q * math.cos(angle) - p * math.sin(angle) + bow * course**2 + 0.008 * grain(course * 25, none, rng)
        breadth = rng.uniform(0.02, 0.028) * np.sqrt((1 - (course / half) ** 2).clip(0, 1))
        laid_bare = colour(50, 40, 36) if pale else colour(250, 246, 234)
        groove = over(np.broadcast_to(laid_bare, sound.shape), laid_bare * 0.45, np.abs(aside) / 0.02 - 0.3)
        return Layers(sound, groove, np.abs(aside) < breadth)
    return Layers(sound, sound, never)
