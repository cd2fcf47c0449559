"""What a caller of the pipeline gives, as tensors: pictures, masks, points and boxes (section III-D, control S^O).

Decided: a list may hold None where a pair goes without; what is drawn with points becomes the raw-mask cells that hold
them, as in training.
Shapes: b pairs, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Points = Sequence[tuple[float, float]]
Boxes = Sequence[tuple[float, float, float, float]]


def as_images(name: str, value: Any, count: int) -> Tensor | None:
    """Pictures -> (b, 3, h, w) in [-1, 1]; a missing one becomes mid-grey.

    Args:
        name: of the argument, for messages.
        value: a tensor (b, 3, h, w) in [-1, 1]; or one picture for all pairs or a list of them, each a PIL image or a
            uint8 array (h, w, 3) or (h, w); or None.
        count: pairs.

    Raises:
        ValueError: another kind of thing, other sizes, or not one per pair.
    """
    if value is None:
        return None
    if isinstance(value, Tensor):
        return _one_per_pair(name, value, count)
    pictures = [None if p is None else _pixels(name, p, "RGB") for p in _listed(name, value, count)]
    sizes = {p.shape[:2] for p in pictures if p is not None}
    if not sizes:
        return None
    if len(sizes) > 1:
        raise ValueError(f"{name} has pictures of different sizes, {sorted(sizes)}; resize them to one size")
    blank = np.full((*sizes.pop(), 3), 127, np.uint8)
    stacked = np.stack([blank if p is None else p for p in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_masks(name: str, value: Any, count: int) -> tuple[Tensor | None, Tensor | None]:
    """Masks -> (b, 1, h, w) of 0 and 1, and which pairs have one (b,); None means all or no mask at all.

    Args:
        name: of the argument, for messages.
        value: a tensor (b, 1, h, w) in [0, 1]; or a mask or a list of masks, each a PIL image or an array (h, w),
            above zero where something shall be drawn; or None.
        count: pairs.

    Raises:
        ValueError: as for :func:`as_images`.
    """
    if value is None:
        return None, None
    if isinstance(value, Tensor):
        return _one_per_pair(name, value, count), None
    masks = [None if m is None else _pixels(name, m, "L") for m in _listed(name, value, count)]
    sizes = {m.shape for m in masks if m is not None}
    if not sizes:
        return None, None
    if len(sizes) > 1:
        raise ValueError(f"{name} has masks of different sizes, {sorted(sizes)}; resize them to one size")
    empty = np.zeros(sizes.pop(), np.uint8)
    stacked = torch.from_numpy(np.stack([empty if m is None else m for m in masks]) > 0)[:, None].float()
    present = torch.tensor([float(m is not None) for m in masks])
    return stacked, None if bool(present.all()) else present


def cells_of(mask: Tensor, grid: int) -> Tensor:
    """The cells of a grid x grid raster that a mask (b, 1, h, w) touches: the raw mask of section III-B."""
    height, width = mask.shape[-2:]
    rows, columns = ([round(i * side / grid) for i in range(grid + 1)] for side in (height, width))
    raw = torch.zeros_like(mask)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            cell = mask[..., top:bottom, left:right]
            raw[..., top:bottom, left:right] = (cell > 0).flatten(1).any(1)[:, None, None, None].to(mask.dtype)
    return raw


def drawn_control(points: Points | None, boxes: Boxes | None, size: tuple[int, int], grid: int) -> Tensor:
    """A control mask (1, 1, h, w) from points (x, y) and boxes (left, top, right, bottom) in pixels.

    Raises:
        ValueError: a point or box outside the picture, or an empty box.
    """
    height, width = size
    clicked, filled = torch.zeros(2, 1, 1, height, width)
    for x, y in points or ():
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"point ({x}, {y}) lies outside the {width} x {height} image")
        clicked[..., int(y), int(x)] = 1
    for box in boxes or ():
        left, top, right, bottom = (round(v) for v in box)
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(f"box {tuple(box)} must be (left, top, right, bottom) inside the {width} x {height} image")
        filled[..., top:bottom, left:right] = 1
    return torch.maximum(cells_of(clicked, grid), filled)


def _listed(name: str, value: Any, count: int) -> list[Any]:
    """One value for all pairs, or one per pair."""
    single = isinstance(value, Image.Image) or (isinstance(value, np.ndarray) and value.ndim < 4)
    values: list[Any] = [value] * count if single else list(value)  # pyright: ignore[reportArgumentType]
    if len(values) != count:
        raise ValueError(f"{name} holds {len(values)} for {count} prompts; give one per prompt, or one for all")
    return values


def _pixels(name: str, value: Any, mode: str) -> np.ndarray:
    if isinstance(value, Image.Image):
        return np.array(value.convert(mode))
    array = np.asarray(value)
    if mode == "L" and array.ndim == 2:
        return (array > 0).astype(np.uint8) * 255
    if array.dtype == np.uint8 and array.ndim in (2, 3):
        return np.array(Image.fromarray(array).convert(mode))
    raise ValueError(
        f"{name} must be PIL images, uint8 arrays (h, w, 3) or a tensor, not {type(value).__name__} of "
        f"{array.dtype} {array.shape}"
    )


def _one_per_pair(name: str, value: Tensor, count: int) -> Tensor:
    if value.ndim != 4 or value.shape[0] != count:
        raise ValueError(f"{name} has the shape {tuple(value.shape)} for {count} prompts; give one per prompt")
    return value


def as_generators(seed: int | None, generator: Sequence[torch.Generator] | None, count: int) -> list[torch.Generator]:
    """One CPU generator per pair: those given, or new ones with the next seeds.

    Raises:
        ValueError: too few or too many, or one that is not on the CPU.
    """
    if generator is None:
        first = int(torch.seed() % 2**31) if seed is None else seed
        return [torch.Generator().manual_seed(first + i) for i in range(count)]
    generators = list(generator)
    if len(generators) != count or any(g.device.type != "cpu" for g in generators):
        raise ValueError(f"{len(generators)} generators for {count} prompts; give one CPU generator per prompt")
    return generators
