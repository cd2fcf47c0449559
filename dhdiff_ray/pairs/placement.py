"""A real defect placed on a normal product: what a pair may start from (section III-B, read literally).

The paper's input is the noised reference image and the noised raw mask. Decided: the reference's defect lies on the
base by then, with its fine mask: mirrored, turned, scaled and warped a little, where what is around it is most like
what was around it and the product is, or where a user draws. Alone it is the yardstick ``pasted``, as strong as a
generator's start is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from dhdiff_ray.pairs.foreground import foreground


@dataclass(frozen=True)
class Placing:
    """How freely a defect is placed; lengths are shares of the image's side."""

    mirror: bool = True
    """Left to right and top to bottom, each every other time; only right where a mirrored product is a product."""
    turn: float = 15.0
    """Largest angle in degrees."""
    scale: float = 1.25
    """Largest factor, and its inverse the smallest."""
    warp: float = 0.015
    """Standard deviation of a smooth displacement."""
    places: int = 16
    """Places that are compared, its own one first, those beside the product left out; 1 leaves it there."""
    feather: float = 0.02
    """Over which it passes into the product, outside its mask."""
    brightness: int = 32
    """Largest change in grey values that makes its surroundings as bright as the base's."""
    reach: float = 0.08
    """How far beyond its mask is to be drawn anew."""


OWN = Placing(mirror=False, turn=0, scale=1, warp=0, places=1)
"""At its own place and as it is, but for its edge and its brightness."""
PASTED = Placing(mirror=False, turn=0, scale=1, warp=0, places=1, feather=0, brightness=0)
"""Cut out along its mask and put at its own place, as it is."""
AROUND = 0.03
"""Width of the ring by which places are compared and brightness is matched."""
CUT_OFF = 0.1
"""How far a defect may move that the image's edge cuts: beyond the edge it goes on as in a mirror."""
ON_PRODUCT = 0.9
"""Least share of a placed defect that lies on the product, times that of the reference's own."""


@dataclass(frozen=True)
class Placed:
    """A base with a real defect on it."""

    image: np.ndarray
    """uint8 (h, w, 3)."""
    mask: np.ndarray
    """uint8 (h, w) of 0 and 255."""
    region: np.ndarray
    """uint8 (h, w) of 0 and 255, the mask grown: where a pair is to be drawn."""


def place(
    base: np.ndarray,
    reference: np.ndarray,
    mask: np.ndarray,
    seed: int,
    how: Placing | None = None,
    drawing: np.ndarray | None = None,
) -> Placed:
    """Put the defect of a reference on a base.

    Args:
        base: uint8 (h, w, 3), a normal product.
        reference: uint8 (h, w, 3), of the same size.
        mask: (h, w), above zero where the reference's defect is.
        seed: draws where and how; the same seed gives the same image.
        how: how freely; None as by default.
        drawing: (h, w), above zero where a user wants the defect: its middle goes to the drawing's, as far as it stays
            in the image.

    Raises:
        ValueError: an empty mask, or sizes that differ.
    """
    how, present = how or Placing(), np.asarray(mask) > 0
    if not present.any():
        raise ValueError("the reference's mask is empty; there is no defect to place")
    if base.shape != reference.shape or base.shape[:2] != present.shape:
        raise ValueError(
            f"base {base.shape[:2]}, reference {reference.shape[:2]} and its mask {present.shape} differ in size; "
            "give them one size"
        )
    draw, side = np.random.default_rng(seed), max(present.shape)
    source = _source(present, how, draw)
    moved, patch = _looked_up(present, reference, source((0, 0)))
    if not moved.any():  # scaled away, or turned out of the picture
        moved, patch, source = present, reference.astype(np.float64), _source(present, PASTED, draw)
    if drawing is not None and drawing.any():
        shift = _towards(drawing, moved)
    else:
        places = _places(moved, _is_cut(present), how.places, draw)
        fitting = _on_product(base, reference, present, moved, places)
        shift = _best(base, patch, moved, fitting, how.brightness)
    if shift != (0, 0):
        shifted, colours = _looked_up(present, reference, source(shift))
        if shifted.any():  # else the image's edge has cut off all of it
            moved, patch = shifted, colours
    away = _distance(moved)
    ring = (away > 0) & (away <= max(2.0, AROUND * side))
    if ring.any() and how.brightness:
        patch = patch + np.clip((base[ring] - patch[ring]).mean(0), -how.brightness, how.brightness)
    share = np.clip(1 - (away - 1) / (how.feather * side), 0, 1) if how.feather else moved.astype(np.float64)
    mixed = share[..., None] * patch + (1 - share[..., None]) * base
    return Placed(
        np.clip(np.rint(mixed), 0, 255).astype(np.uint8),
        moved.astype(np.uint8) * 255,
        (away <= how.reach * side).astype(np.uint8) * 255,
    )


def _distance(mask: np.ndarray) -> np.ndarray:
    """How far each pixel (h, w) is from a mask, in pixels."""
    return distance_transform_edt(~mask)  # pyright: ignore[reportReturnType]


def _source(present: np.ndarray, how: Placing, draw: np.random.Generator) -> Callable[[tuple[int, int]], np.ndarray]:
    """Where each pixel of the result is looked up in the reference (2, h, w), by a shift (down, right)."""
    ys, xs = np.nonzero(present)
    centre = np.array([ys.min() + ys.max(), xs.min() + xs.max()], float)[:, None, None] / 2
    angle, factor = np.deg2rad(how.turn) * draw.uniform(-1, 1), how.scale ** draw.uniform(-1, 1)
    signs = np.where(draw.random(2) < 0.5, -1, 1) if how.mirror else np.ones(2)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / factor * signs[:, None]
    side = max(present.shape)
    field = gaussian_filter(draw.standard_normal((2, *present.shape)), (0, side / 12, side / 12), mode="wrap")
    field *= how.warp * side / max(field.std(), 1e-12)
    grid = np.indices(present.shape).astype(float)

    def at(shift: tuple[int, int]) -> np.ndarray:
        back = grid - np.array(shift, float)[:, None, None] - centre
        return np.tensordot(turned, back, 1) + centre + np.roll(field, shift, (1, 2))

    return at


def _looked_up(present: np.ndarray, reference: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mask (h, w) and colours (h, w, 3). Beyond the edge a defect goes on if the edge cuts it, else there is none."""
    beyond = "reflect" if _is_cut(present) else "constant"
    mask = map_coordinates(present.astype(np.float32), source, order=1, mode=beyond) > 0.5
    colours = [map_coordinates(c, source, order=1, mode="reflect") for c in np.moveaxis(reference.astype(float), 2, 0)]
    return mask, np.stack(colours, -1)


def _is_cut(present: np.ndarray) -> bool:
    """Whether a defect reaches the image's edge."""
    return bool(present[[0, -1]].any() or present[:, [0, -1]].any())


def _towards(drawing: np.ndarray, moved: np.ndarray) -> tuple[int, int]:
    """The shift (down, right) from a defect's middle to a drawing's, as far as the defect stays in the image."""
    shift = []
    for axis, side in enumerate(moved.shape):
        first, last = np.flatnonzero(moved.any(1 - axis))[[0, -1]]
        wanted = np.flatnonzero(drawing.any(1 - axis))[[0, -1]].sum() - first - last
        shift.append(int(np.clip(round(wanted / 2), -first, side - 1 - last)))
    return shift[0], shift[1]


def _places(moved: np.ndarray, is_cut: bool, count: int, draw: np.random.Generator) -> list[tuple[int, int]]:
    """Shifts (down, right), none first; a whole defect stays within the image."""
    ranges = []
    for axis, side in enumerate(moved.shape):
        inside = np.flatnonzero(moved.any(1 - axis))
        far = round(CUT_OFF * side)
        ranges.append((-far, far) if is_cut else (-int(inside[0]), side - 1 - int(inside[-1])))
    others = [tuple(int(draw.integers(low, high + 1)) for low, high in ranges) for _ in range(count - 1)]
    return [(0, 0), *others]  # pyright: ignore[reportReturnType]


def _on_product(
    base: np.ndarray, reference: np.ndarray, present: np.ndarray, moved: np.ndarray, shifts: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Of the shifts those that lay a defect on the product as its reference's lies; if none does, that most on it."""
    product = foreground(base) if len(shifts) > 1 else np.ones_like(present)
    if product.all():
        return shifts
    own = foreground(reference)
    is_defect = (own & present).sum() > own.sum() / 2  # found of a texture was its defect alone
    least = ON_PRODUCT * (1.0 if is_defect else float(own[present].mean()))
    (ys, xs), shares = np.nonzero(moved), []
    for down, right in shifts:
        y, x = ys + down, xs + right
        inside = (y >= 0) & (y < moved.shape[0]) & (x >= 0) & (x < moved.shape[1])
        shares.append(product[y[inside], x[inside]].mean() if inside.any() else 0.0)
    return [s for s, share in zip(shifts, shares, strict=True) if share >= min(least, max(shares))]


def _best(
    base: np.ndarray, patch: np.ndarray, moved: np.ndarray, shifts: Sequence[tuple[int, int]], brightness: int
) -> tuple[int, int]:
    """The shift at which what is around the defect differs least from the base, but for brightness that is matched."""
    if len(shifts) == 1:
        return shifts[0]
    away = _distance(moved)
    ys, xs = np.nonzero((away > 0) & (away <= max(2.0, AROUND * max(moved.shape))))
    around, costs = patch[ys, xs], []
    for down, right in shifts:
        y, x = ys + down, xs + right
        inside = (y >= 0) & (y < moved.shape[0]) & (x >= 0) & (x < moved.shape[1])
        gap = base[y[inside], x[inside]] - around[inside]
        left = np.abs(gap.mean(0)) - brightness if len(gap) else np.array([np.inf])
        costs.append(float((gap.var(0) + left.clip(min=0) ** 2).mean()) if len(gap) else np.inf)
    return shifts[int(np.argmin(costs))]
