"""What every loader promises, checked on the example it carries: shipped ones in the tests, yours by ``data check``.

Not in the paper. Each promise is a function of (loader, folder with its example, an empty folder) that raises
``PromiseError``; so a new loader is tested by being registered.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dhdiff_ray.data.images import read_many
from dhdiff_ray.data.registry import Dataset, DatasetError, Reading
from dhdiff_ray.data.split import Split, make_split
from dhdiff_ray.records import GOOD

SIDE = 32
"""Pixels of the working image that examples are read at."""


class PromiseError(ValueError):
    """A loader does not do what every loader must; the message says what was expected."""


Promise = Callable[[Dataset, Path, Path], None]


def lists_the_example_whole(loader: Dataset, root: Path, empty: Path) -> None:
    """Unique sorted keys, paths below the root, a mask exactly where a defect is, records that can be shipped."""
    samples = loader.scan(root)
    keys = [sample.key for sample in samples]
    _expect(keys == sorted(set(keys)), "scan() gives unique keys in sorted order", keys[:3])
    _expect({s.category for s in samples} == set(loader.categories(root)), "scan() and categories() agree")
    for sample in samples:
        _expect(Path(sample.image) == root / sample.key.partition("#")[0], "image is root / key", sample)
        _expect(all(Path(m).is_relative_to(root) for m in sample.masks), "masks lie below the root", sample)
        _expect(sample.is_good == (sample.mask is None), "an anomaly has a mask and nothing else has one", sample)
        _expect(sample.subset in ("train", "test", "validation", ""), "subset is train, test, validation or ''", sample)
    _expect(pickle.loads(pickle.dumps(samples)) == samples, "samples survive pickling")
    _expect(bool(loader.licence and loader.source), "licence and source are said")


def names_normal_images_and_defects(loader: Dataset, root: Path, empty: Path) -> None:
    """Each category has normal images to train on and at least one defect with a name of its own."""
    for category in loader.categories(root):
        samples = loader.scan(root, [category])
        _expect(any(s.is_good and s.subset != "test" for s in samples), f"{category} has normal images that may train")
        defects = {s.defect for s in samples if not s.is_good}
        _expect(bool(defects) and GOOD not in defects, f"{category} has a defect", defects)


def gives_readable_images_and_nonempty_masks(loader: Dataset, root: Path, empty: Path) -> None:
    """Every image opens as RGB; a mask has a pixel exactly where there is a defect."""
    kept, images, masks = read_many(loader.scan(root), SIDE, False, _fail)
    _expect(images.shape == (len(kept), SIDE, SIDE, 3), "images become (n, h, w, 3)", images.shape)
    for sample, mask in zip(kept, masks, strict=True):
        _expect(bool(mask.any()) != sample.is_good, "a mask is empty exactly for normal images", sample)


def can_be_split(loader: Dataset, root: Path, empty: Path) -> None:
    """Half of each defect on each side, and the split survives its file."""
    split = make_split(loader.scan(root), fraction=0.5, seed=0, root=root)
    for category, defect in split.defects():
        for side in (split.train, split.test):
            there = any((s.category, s.defect) == (category, defect) for s in side)
            _expect(there, "each defect is on both sides of the split", (category, defect))
    again = Split.from_json(split.to_json())
    _expect((again.train, again.test) == (split.train, split.test), "the split comes back from split.json")
    again.check(root)


def gives_each_defect_of_an_image_on_request(loader: Dataset, root: Path, empty: Path) -> None:
    """With ``several_defects = each`` keys stay unique, masks non-empty, and no defect is called combined."""
    each = type(loader)()
    each.reading = Reading(several_defects="each", tell=_fail)
    samples = each.scan(root)
    _expect(len({s.key for s in samples}) == len(samples), "keys stay unique")
    several = {s.image for s in samples if "#" in s.key}
    _expect(not any(s.defect == "combined" for s in samples if s.image in several), "none is called combined")
    _, _, masks = read_many([s for s in samples if s.image in several], SIDE, False, _fail)
    _expect(all(mask.any() for mask in masks), "each defect has pixels of its own")


def chooses_categories_and_suggests_the_nearest(loader: Dataset, root: Path, empty: Path) -> None:
    """A wanted category comes alone; a misspelt one is answered with the right one."""
    first = loader.categories(root)[0]
    _expect({s.category for s in loader.scan(root, [first])} == {first}, "a category can be chosen", first)
    _refuses(lambda: loader.scan(root, [first + "x"]), f"did you mean {first!r}")


def names_a_folder_that_is_not_there(loader: Dataset, root: Path, empty: Path) -> None:
    """A wrong root is named in the error."""
    _refuses(lambda: loader.categories(root / "nowhere"), "nowhere")


def names_a_mask_that_is_not_there(loader: Dataset, root: Path, empty: Path) -> None:
    """An anomaly whose mask vanished is named, and left out only on request."""
    loader.example(empty / "broken", seed=1)
    victims = [s for s in loader.scan(empty / "broken") if s.mask and not s.more_masks]
    _expect(bool(victims), "the example has an anomaly with one mask file")
    victim = victims[0]
    Path(victim.mask or "").unlink()
    _refuses(lambda: loader.scan(empty / "broken"), Path(victim.image).name, Path(victim.mask or "").stem)
    remarks: list[str] = []
    lenient = type(loader)()
    lenient.reading = Reading(skip_bad=True, tell=remarks.append)
    left = {s.key for s in lenient.scan(empty / "broken")}
    _expect(victim.key not in left and bool(left), "skip_bad leaves out the one and keeps the others", victim.key)
    _expect(any("left out" in line for line in remarks), "what is left out is told", remarks)


def draws_the_same_example_for_the_same_seed(loader: Dataset, root: Path, empty: Path) -> None:
    """``example`` is a function of its seed."""
    loader.example(empty / "again", seed=1)
    loader.example(empty / "other", seed=2)
    _, first, _ = read_many(loader.scan(root), SIDE, False, _fail)
    _, again, _ = read_many(loader.scan(empty / "again"), SIDE, False, _fail)
    _, other, _ = read_many(loader.scan(empty / "other"), SIDE, False, _fail)
    _expect(np.array_equal(first, again) and not np.array_equal(first, other), "the seed alone decides the example")


PROMISES: dict[str, Promise] = {
    promise.__name__: promise
    for promise in (
        lists_the_example_whole,
        names_normal_images_and_defects,
        gives_readable_images_and_nonempty_masks,
        can_be_split,
        gives_each_defect_of_an_image_on_request,
        chooses_categories_and_suggests_the_nearest,
        names_a_folder_that_is_not_there,
        names_a_mask_that_is_not_there,
        draws_the_same_example_for_the_same_seed,
    )
}


def check_loader(loader: Dataset, folder: Path) -> dict[str, str]:
    """Try every promise on the loader's example, drawn below ``folder``; promise -> what is wrong, or empty."""
    root = folder / "example"
    loader.example(root, seed=1)
    problems: dict[str, str] = {}
    for name, promise in PROMISES.items():
        empty = folder / name
        empty.mkdir(parents=True)
        try:
            promise(loader, root, empty)
            problems[name] = ""
        except ValueError as error:
            problems[name] = str(error)
    return problems


def _expect(holds: bool, promise: str, instead: object = "") -> None:
    if not holds:
        raise PromiseError(f"expected: {promise}" + (f"; found {instead}" if instead != "" else ""))


def _refuses(call: Callable[[], object], *words: str) -> None:
    try:
        call()
    except DatasetError as error:
        _expect(all(word in str(error) for word in words), f"the error names {words}", str(error))
        return
    raise PromiseError(f"expected: a DatasetError that names {words}; nothing was raised")


def _fail(message: str) -> None:
    raise PromiseError(f"expected: nothing to remark; found {message}")
