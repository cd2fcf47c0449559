"""Arguments of the pipeline as tensors, and the inputs of denoising made from them (section III-D, control S^O).

Decided: a list may hold None where a pair goes without. What is drawn by hand has one rule, here for tensors and in
``data/regions.py`` for arrays, since ``model/`` imports nothing of ours: a point stands for the raw-mask cell that
holds its pixel, as in training, a box for every pixel that it touches, and points and boxes together for both.
Shapes: b pairs, h x w pixels, c x h' x w' latents, t text tokens of width k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from dhdiff_ray.model.courses import Courses

Points = Sequence[tuple[float, float]]
Boxes = Sequence[tuple[float, float, float, float]]


@dataclass(frozen=True)
class Inputs:
    """What b pairs are drawn from: pictures and masks of one size, None where the caller gives none."""

    prompts: list[str]
    defects: list[str]  # the defect's words in each prompt; empty for none
    generators: list[torch.Generator]  # on the CPU
    size: tuple[int, int]  # height and width in pixels
    base: Tensor | None  # (b, 3, h, w) in [-1, 1]
    reference: Tensor | None  # (b, 3, h, w) in [-1, 1]
    raw_mask: Tensor | None  # (b, 1, h, w)
    control_mask: Tensor | None  # (b, 1, h, w)
    control_present: Tensor | None  # which pairs have a control mask (b,); None means all
    placed: Tensor | None  # (b, 3, h, w) in [-1, 1], products with a real defect on them
    placed_mask: Tensor | None  # (b, 1, h, w), where that is


@dataclass(frozen=True)
class Sampling:
    """How pairs are sampled; see ``DHDiffPipeline.__call__``."""

    steps: int
    guidance: float
    start: Literal["noise", "base", "reference"]
    strengths: tuple[float, ...]  # one per pair
    background: Literal["free", "keep", "clean"]
    fade: bool
    reference_noise: Literal["same", "independent", "clean"]


@dataclass(frozen=True)
class Kept:
    """The product that is kept around the raw mask."""

    base: Tensor  # (b, 3, h, w) in [-1, 1]
    raw_mask: Tensor  # (b, 1, h, w)
    latents: Tensor  # base and an empty mask (2b, c, h', w'), relative to the mean
    weight: Tensor  # (2b, 1, h', w'), 1 where they stay

    def around(self, drawn: Tensor, latents: Tensor | None = None) -> Tensor:
        """What is drawn (2b, c, h', w'), with these latents, or noised ones, where the product stays."""
        return self.weight * (self.latents if latents is None else latents) + (1 - self.weight) * drawn


@dataclass(frozen=True)
class Conditions:
    """All that denoising b pairs needs, on the pipeline's device; r is b, or 2b where guidance repeats a condition."""

    sampling: Sampling
    generators: list[torch.Generator]  # one per pair, on the CPU
    noise: Tensor  # (2b, c, h', w')
    courses: Courses
    latents: Tensor  # (2b, c, h', w') as each pair begins, relative to the mean
    mean: Tensor | float  # what the latents in the loop are relative to
    region: Tensor | None  # (2b, 1, h', w'), 1 where the network draws; None: everywhere
    kept: Kept | None
    text: Tensor  # (r, t, k); the empty prompts first
    defect_tokens: Tensor  # (r, t)
    control_mask: Tensor | None  # (r, 1, h, w)
    control_present: Tensor | None  # (r,)
    reference: Tensor | None  # (b, c, h', w'), to be noised and encoded at each step
    reference_noise: Tensor | None  # (b, c, h', w'), what it is noised with; None: it is clean
    references: dict[int, Tensor] | None  # F^R by attention layer, of a clean reference: encoded once for all steps

    @property
    def count(self) -> int:
        """Pairs."""
        return len(self.generators)

    @property
    def guided(self) -> bool:
        """Whether guidance is on: the empty prompt is predicted beside each prompt."""
        return self.sampling.guidance > 1


def as_prompts(
    prompt: str | Sequence[str] | None, defect: str | Sequence[str] | None, num_pairs: int, template: str | None
) -> tuple[list[str], list[str]]:
    """One prompt and the defect's words in it per pair; ``template`` is the published model's prompt.

    Raises:
        ValueError: neither is given, or their numbers differ.
    """
    if prompt is None:
        if defect is None or template is None:
            raise ValueError("no prompt given: a pair needs one, such as 'a photo of a capsule with crack'")
        words = [defect] if isinstance(defect, str) else list(defect)
        prompt = [template.format(defect=w.replace("_", " ").lower()) for w in words]
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    defects = [defect or ""] * len(prompts) if defect is None or isinstance(defect, str) else list(defect)
    if not prompts:
        raise ValueError("no prompt given: a pair needs one, such as 'a photo of a capsule with crack'")
    if len(defects) != len(prompts):
        raise ValueError(f"{len(defects)} defects for {len(prompts)} prompts; give one per prompt")
    if len(prompts) == 1:
        prompts, defects = prompts * num_pairs, defects * num_pairs
    return prompts, [d.replace("_", " ").lower() for d in defects]


def as_inputs(
    prompts: list[str],
    defects: list[str],
    generators: list[torch.Generator],
    device: torch.device,
    published: Mapping[str, Any],
    size: tuple[int, int] | None,
    points: Points | None,
    boxes: Boxes | None,
    **given: Any,
) -> Inputs:
    """Arguments as tensors; a missing raw mask is made from the control, missing size and grid are the model's.

    Raises:
        ValueError: a value that is no picture or mask, or a control given twice.
    """
    count = len(prompts)
    base, reference, placed = (as_images(name, given[name], count) for name in ("base", "reference", "placed"))
    raw, placed_mask = (as_masks(name, given[name], count)[0] for name in ("raw_mask", "placed_mask"))
    control, present = as_masks("control_mask", given["control_mask"], count)
    sized = [tuple(x.shape[-2:]) for x in (base, reference, raw, control, placed) if x is not None]
    height, width = size or (sized[0] if sized else (published.get("size", 64),) * 2)
    grid = published.get("grid", 5)
    if points or boxes:
        if control is not None:
            raise ValueError("control_mask and points or boxes say the same thing; give one of them")
        control = drawn_control(points or (), boxes or (), (height, width), grid).expand(count, -1, -1, -1)
    if raw is None and control is not None:
        raw = cells_of(control, grid)
    everything = (base, reference, raw, control, present, placed, placed_mask)
    tensors = (None if x is None else x.to(device) for x in everything)
    return Inputs(prompts, defects, generators, (height, width), *tensors)


def check_inputs(inputs: Inputs, sampling: Sampling, step: int) -> None:
    """Refuse what cannot be sampled.

    Raises:
        ValueError: sides that are no multiples of ``step``, inputs of other sizes, or what a switch needs is missing.
    """
    height, width = inputs.size
    if height % step or width % step:
        raise ValueError(f"{height} x {width} pixels do not suit this network; sides must be multiples of {step}")
    for name in ("base", "reference", "raw_mask", "control_mask", "placed", "placed_mask"):
        value = getattr(inputs, name)
        if value is not None and tuple(value.shape[-2:]) != inputs.size:
            raise ValueError(f"{name} is {tuple(value.shape[-2:])} pixels, the pair {inputs.size}; give them one size")
    needed = sampling.start == "base" or sampling.background != "free"
    if needed and (inputs.base is None or inputs.raw_mask is None):
        raise ValueError(
            "start='base' and background='keep' or 'clean' need a base image and a raw mask; give base and one of "
            "control_mask, points, boxes or raw_mask"
        )
    placed = sampling.start == "reference"
    if placed and (inputs.placed is None or inputs.placed_mask is None):
        raise ValueError(
            "start='reference' needs a real defect on the base: give placed and placed_mask, as "
            "dhdiff_ray.pairs.placement.place makes them"
        )
    if len(sampling.strengths) != len(inputs.prompts):
        raise ValueError(f"{len(sampling.strengths)} strengths for {len(inputs.prompts)} prompts; give one per prompt")
    for strength in sampling.strengths:
        if not (0 <= strength <= 1 and (strength or placed)):
            raise ValueError(f"strength = {strength} must lie in (0, 1], or be 0 with start='reference'")


def as_images(name: str, value: Any, count: int) -> Tensor | None:
    """Pictures -> (b, 3, h, w) in [-1, 1]; a missing one becomes mid-grey.

    Args:
        name: of the argument, for messages.
        value: a tensor (b, 3, h, w) in [-1, 1]; or one picture for all pairs or a list of them, each a PIL image or a
            uint8 array (h, w, 3) or (h, w); or None.
        count: pairs.

    Raises:
        ValueError: another type, differing sizes, or not one per pair.
    """
    if value is None or isinstance(value, Tensor):
        return _one_per_pair(name, value, count)
    pictures, _ = _stacked(name, value, count, "RGB", 127)
    return None if pictures is None else torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


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
    if value is None or isinstance(value, Tensor):
        return _one_per_pair(name, value, count), None
    masks, present = _stacked(name, value, count, "L", 0)
    given = None if masks is None else torch.from_numpy(masks > 0)[:, None].float()
    return given, None if all(present) else torch.tensor(present)


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


def drawn_control(points: Points, boxes: Boxes, size: tuple[int, int], grid: int) -> Tensor:
    """A control mask (1, 1, h, w) from points (x, y) and boxes (left, top, right, bottom) in pixels.

    Raises:
        ValueError: a point or box outside the picture, or an empty box.
    """
    height, width = size
    clicked, filled = torch.zeros(2, 1, 1, height, width)
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"point ({x}, {y}) lies outside the {width} x {height} image")
        clicked[..., int(y), int(x)] = 1
    for left, top, right, bottom in boxes:
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            box = (left, top, right, bottom)
            raise ValueError(f"box {box} must be (left, top, right, bottom) inside the {width} x {height} image")
        filled[..., int(top) : math.ceil(bottom), int(left) : math.ceil(right)] = 1
    return torch.maximum(cells_of(clicked, grid), filled)


def _stacked(name: str, value: Any, count: int, mode: str, blank: int) -> tuple[np.ndarray | None, list[float]]:
    """Pictures (b, h, w, ...), blank for pairs without one, and which pairs have one, 0 or 1; none: None and none."""
    pictures = [None if p is None else _pixels(name, p, mode) for p in _listed(name, value, count)]
    shapes = {p.shape for p in pictures if p is not None}
    if len(shapes) > 1:
        kind, sizes = "masks" if mode == "L" else "pictures", sorted(shape[:2] for shape in shapes)
        raise ValueError(f"{name} has {kind} of different sizes, {sizes}; resize them to one size")
    if not shapes:
        return None, []
    fill = np.full(shapes.pop(), blank, np.uint8)
    return np.stack([fill if p is None else p for p in pictures]), [float(p is not None) for p in pictures]


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


def _one_per_pair(name: str, value: Tensor | None, count: int) -> Tensor | None:
    if value is not None and (value.ndim != 4 or value.shape[0] != count):
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


def white_noise(shape: Sequence[int], generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Noise (b, *shape) from the pairs' own generators, on the device and of the type of another tensor."""
    return torch.stack([randn_tensor(tuple(shape), g, dtype=like.dtype) for g in generators]).to(like.device)
