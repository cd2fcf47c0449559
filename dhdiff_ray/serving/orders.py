"""Turns a request into orders, one per pair, from the run's pictures and the user's.

Not in the paper. Decided: a pair is a function of (run, category, defect, seed) and what the user adds; base and
reference are drawn from the seed as ``pairs.plan`` draws them. A user's picture is decoded with limits, turned upright
and made an array before anything sees it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageOps

from dhdiff_ray.config import Config, ServeConfig, SynthesizeConfig
from dhdiff_ray.data.images import UNREADABLE, read_mask, shrink_mask
from dhdiff_ray.data.prompts import defect_words, prompt
from dhdiff_ray.data.regions import drawn_control
from dhdiff_ray.pairs.make import OwnPictures
from dhdiff_ray.pairs.plan import draw_request
from dhdiff_ray.records import GOOD, Request
from dhdiff_ray.serving.catalogue import Catalogue, unknown
from dhdiff_ray.serving.questions import PairQuery, RefusedError

MIN_SIDE = 8
"""Smallest side of a picture that is taken, in pixels."""
FORMATS = ("PNG", "JPEG")
STRENGTH = 0.45
"""Default strength of a start from the reference, if neither user nor run gives one."""


@dataclass(frozen=True)
class Order:
    """One pair to be drawn, and whether it is previewed, which changes no pair and may differ within a pass."""

    request: Request
    settings: SynthesizeConfig
    """The run's settings, with the user's changes."""
    pictures: OwnPictures = field(default_factory=OwnPictures)
    previews: bool = False
    score_maps: bool = False

    @property
    def shared(self) -> tuple[str, SynthesizeConfig]:
        """What all pairs of one pass must have in common."""
        return self.request.category, self.settings


def orders_of(query: PairQuery, catalogue: Catalogue) -> list[Order]:
    """The orders of a request; what cannot be made is refused before a model is loaded.

    Raises:
        RefusedError: 404 for an unknown category or defect, 422 for anything else that does not fit.
    """
    config, category = catalogue.config, query.category
    defect = _defect(query, catalogue)
    _check(query, config.serve)
    base, control = _place(query, config)
    reference, reference_mask = _reference(query, config, control is not None)
    pictures = OwnPictures(base, control, reference, reference_mask)
    settings = _settings(query, config, control is not None)
    if settings.start == "reference" and query.reference is not None and query.reference_mask is None:
        raise RefusedError(422, "a start from your reference needs reference_mask: where the defect is in it")
    bases, references = catalogue.keys(category, GOOD), catalogue.keys(category, defect)
    orders = []
    for index in range(query.n):
        seed = query.seed + index
        base_key, reference_key = draw_request(seed, bases, references)
        if query.base_number is not None:
            base_key = catalogue.numbered("base_number", category, GOOD, query.base_number)
        if query.reference_number is not None:
            reference_key = catalogue.numbered("reference_number", category, defect, query.reference_number)
        if settings.start == "reference" and reference is None:
            _check_placeable(reference_key, catalogue)
        words = query.prompt or prompt(category, defect)
        request = Request(category, defect, index, seed, words, base_key, reference_key)
        orders.append(Order(request, settings, pictures, query.previews, query.score_maps))
    return orders


def _settings(query: PairQuery, config: Config, placed: bool) -> SynthesizeConfig:
    asked = {"steps": query.steps, "guidance": query.guidance, "strength": query.strength}
    asked |= {"start": query.start or ("base" if query.strength is not None else None), "control": placed or None}
    if query.start and query.strength is None and config.synthesize.start != query.start:
        asked["strength"] = STRENGTH
    return config.synthesize.model_copy(update={name: value for name, value in asked.items() if value is not None})


def _check_placeable(key: str, catalogue: Catalogue) -> None:
    if not read_mask(catalogue.samples[key], catalogue.config.data.resolution).any():
        wanted = "ask for another seed or reference_number, or leave start out"
        raise RefusedError(422, f"the mask of reference {key} is empty at the model's resolution; {wanted}")


def _defect(query: PairQuery, catalogue: Catalogue) -> str:
    defects = catalogue.facts_of(query.category)["defects"]
    if query.defect is not None:
        if query.defect not in defects:
            raise RefusedError(404, unknown("defect", query.defect, defects))
        return query.defect
    if query.prompt is None:
        raise RefusedError(422, f"say which defect: one of {', '.join(defects)}; or name one in a prompt")
    words = f" {' '.join(query.prompt.lower().split())} "
    named = [defect for defect in defects if f" {defect_words(defect)} " in words]
    if not named:
        raise RefusedError(422, f"the prompt names no defect of {query.category}; use one of: {', '.join(defects)}")
    return max(named, key=len)


def _check(query: PairQuery, limits: ServeConfig) -> None:
    """Refuse too many pairs, and two fields that say the same thing."""
    if query.n > limits.max_n:
        raise RefusedError(422, f"n = {query.n} is more than {limits.max_n} pairs; ask several times")
    if query.steps is not None and query.steps > limits.max_steps:
        raise RefusedError(422, f"steps = {query.steps} is more than {limits.max_steps}; ask for fewer")
    if query.seed + query.n > 2**63:
        raise RefusedError(422, f"seed + n = {query.seed + query.n} must not pass 2**63")
    for names in (("control_mask", "points", "boxes"), ("base", "base_number"), ("reference", "reference_number")):
        given = [name for name in names if getattr(query, name) is not None]
        if len(given) > 1:
            raise RefusedError(422, f"{' and '.join(given)} say the same thing; give one of them")
    if query.reference_mask is not None and query.reference is None:
        raise RefusedError(422, "reference_mask belongs to reference; send that too")


def _place(query: PairQuery, config: Config) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The user's base (h, w, 3) and control mask (h, w), each at the model's resolution."""
    side, limit = config.data.resolution, config.serve.max_side
    base = control = None
    size = (side, side)
    if query.base is not None:
        picture = _opened("base", query.base, limit)
        base, size = _rgb(picture, side), picture.size
    if query.control_mask is not None:
        same_size = ("base", size) if query.base is not None else None
        control = _mask("control_mask", query.control_mask, same_size, "the defect shall be", config)
    if query.points is not None or query.boxes is not None:
        try:
            control = drawn_control(query.points or (), query.boxes or (), side, config.data.grid, size)
        except ValueError as error:
            raise RefusedError(422, str(error)) from None
    return base, control


def _reference(query: PairQuery, config: Config, placed: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The user's reference (h, w, 3) and its mask (h, w), each at the model's resolution."""
    if query.reference is None:
        return None, None
    side = config.data.resolution
    picture = _opened("reference", query.reference, config.serve.max_side)
    if query.reference_mask is not None:
        same_size = ("reference", picture.size)
        mask = _mask("reference_mask", query.reference_mask, same_size, "its defect is", config)
    elif placed:
        mask = np.full((side, side), 255, np.uint8)
    else:
        wanted = "send reference_mask, or control_mask, points or boxes for the new one"
        raise RefusedError(422, f"where is the defect? {wanted}")
    return _rgb(picture, side), mask


def _mask(
    field: str, data: bytes, same_size: tuple[str, tuple[int, int]] | None, where: str, config: Config
) -> np.ndarray:
    """A mask (h, w) at the model's resolution, as large as the picture it belongs to."""
    picture = _opened(field, data, config.serve.max_side)
    if same_size is not None and picture.size != same_size[1]:
        other, size = same_size
        raise RefusedError(422, f"{field} is {_pixels(picture.size)} pixels, {other} is {_pixels(size)}")
    mask = shrink_mask(_inside(picture), config.data.resolution)
    if not mask.any():
        raise RefusedError(422, f"{field} is empty; pixels above zero say where {where}")
    return mask


def _opened(field: str, data: bytes, max_side: int) -> Image.Image:
    """A picture from a request, upright; its size is read from the header before a pixel is unpacked."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = picture.size
        if max(width, height) > max_side or min(width, height) < MIN_SIDE:
            raise RefusedError(
                422, f"{field} is {_pixels(picture.size)} pixels; at least {MIN_SIDE} and at most {max_side} a side"
            )
        picture.load()
        return ImageOps.exif_transpose(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RefusedError(422, f"{field} unpacks to far too many pixels; at most {max_side} a side") from None
    except (*UNREADABLE, Warning) as error:
        raise RefusedError(422, f"{field} is not a PNG or JPEG in base64: {error}") from None


def _rgb(picture: Image.Image, side: int) -> np.ndarray:
    """The picture as uint8 (side, side, 3); 16-bit grey is scaled, transparency is dropped."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
    return np.array(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), dtype=np.uint8)


def _inside(picture: Image.Image) -> np.ndarray:
    """The picture as (h, w) of True where any colour is above zero and not wholly transparent."""
    values = np.asarray(picture.convert("RGBA") if "transparency" in picture.info or picture.mode == "P" else picture)
    if values.ndim == 2:
        return values > 0
    bands = picture.getbands() if values.shape[2] == len(picture.getbands()) else ("R", "G", "B", "A")
    colours = values[..., [i for i, band in enumerate(bands) if band != "A"]].max(axis=-1) > 0
    return colours & (values[..., bands.index("A")] > 0) if "A" in bands else colours


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
