"""MVTec LOCO AD: structural and logical anomalies, each image with a folder of masks.

Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization",
IJCV 2022. Images are CC BY-NC-SA 4.0, and not square. The layout::

    <root>/<category>/{train,validation}/good/000.png
    <root>/<category>/test/{good,logical_anomalies,structural_anomalies}/000.png
    <root>/<category>/ground_truth/{logical_anomalies,structural_anomalies}/000/000.png   # one PNG per defect instance
    <root>/<category>/defects_config.json               # pixel value -> defect name, and how much of it counts as all

What we decided: the defect is the name that ``defects_config.json`` gives to the masks' pixel value, since the folders
tell only two kinds; several PNGs of one defect are one mask; so masks are opened to list the images. For sPRO each PNG
is an instance of its own, as in the publisher's evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dhdiff_ray.data.datasets.mvtec import MVTec
from dhdiff_ray.data.encode import save_png
from dhdiff_ray.data.examples import noise, spoiled
from dhdiff_ray.data.images import ImageError, mask_array, mask_values
from dhdiff_ray.data.layout import COMBINED, check_name, folders_in, images_in
from dhdiff_ray.data.registry import DatasetError, Instance, dataset
from dhdiff_ray.records import GOOD, Sample

NAMES = "defects_config.json"
_SIZE = (20, 32)
T = TypeVar("T")


@dataset("loco")
class LOCO(MVTec):
    """The MVTec LOCO AD tree."""

    licence = "CC BY-NC-SA 4.0"
    source = "https://www.mvtec.com/company/research/datasets/mvtec-loco"

    def anomalies(self, root: Path, category: str, subset: str, images: Sequence[Path]) -> Iterator[Sample]:
        """Samples of one kind's folder, named by what their masks hold."""
        names = read_names(root / category / NAMES)
        ground_truth = root / category / "ground_truth" / images[0].parent.name
        folders = {p.name: images_in(p, root) for p in folders_in(ground_truth, root)}
        with ThreadPoolExecutor() as pool:
            values = dict(pool.map(lambda p: (p, self._values(p)), (p for files in folders.values() for p in files)))
        for image in images:
            held: dict[str, list[Path]] = {}
            unusable = False
            for mask in folders.get(image.stem, []):
                for value in values[mask]:
                    if value not in names:
                        problem = f"{mask} has the pixel value {value}, which {root / category / NAMES} does not name"
                        self.leave_out(f"{problem}; it names {min(names)} to {max(names)}", mask)
                        unusable = True
                    else:
                        held.setdefault(names[value], []).append(mask)
            key = image.relative_to(root).as_posix()
            if unusable:
                continue
            if not held:
                wanted = ground_truth / image.stem
                self.leave_out(f"{image} shows a defect but has no mask; expected PNGs in {wanted}", image)
            elif len(held) == 1 or self.reading.several_defects == "combined":
                masks = sorted({str(m) for files in held.values() for m in files})
                defect = next(iter(held)) if len(held) == 1 else COMBINED
                yield Sample(key, category, defect, subset, str(image), masks[0], None, tuple(masks[1:]))
            else:
                values_of = {name: value for value, name in names.items()}
                for defect, files in held.items():
                    masks, wanted = sorted(map(str, files)), (values_of[defect],)
                    one = Sample(f"{key}#{defect}", category, defect, subset, str(image), masks[0], values=wanted)
                    yield replace(one, more_masks=tuple(masks[1:]))

    def instances(self, root: Path, sample: Sample) -> list[Instance]:
        """Each mask file's defect, with the saturation area that ``defects_config.json`` gives it."""
        rules = read_saturations(root / sample.category / NAMES) if sample.masks else {}
        instances = []
        for path in sample.masks:
            values = mask_array(path)
            for value in np.unique(values[values > 0]).tolist():
                if sample.values and value not in sample.values:
                    continue
                if value not in rules:
                    raise DatasetError(
                        f"{path} has the pixel value {value}, for which {NAMES} gives no saturation threshold"
                    )
                pixels = values == value
                instances.append(Instance(pixels, saturation_area(int(pixels.sum()), *rules[value])))
        return instances

    def _values(self, mask: Path) -> tuple[int, ...]:
        try:
            return mask_values(str(mask))
        except ImageError as error:
            self.leave_out(str(error), mask)
            return ()

    def example(self, root: Path, seed: int = 0) -> None:
        """One category of wide pictures: two logical defects, one structural, and images that show two."""
        rng = np.random.default_rng(seed)
        folder = root / "breakfast_box"
        names = {255: "missing_almonds", 241: "overflow", 234: "contamination"}
        folder.mkdir(parents=True, exist_ok=True)
        # As in the archive: of one defect a share counts as all, of another so many pixels.
        saturations = {255: (0.5, True), 241: (6, False), 234: (1.0, True)}
        table = [
            {"defect_name": names[v], "pixel_value": v, "saturation_threshold": t, "relative_saturation": relative}
            for v, (t, relative) in saturations.items()
        ]
        (folder / NAMES).write_text(json.dumps(table, indent=2) + "\n")
        for subset, count in (("train", 4), ("validation", 2), ("test", 2)):
            for index in range(count):
                save_png(folder / subset / GOOD / f"{index:03d}.png", noise(rng, _SIZE))
        kinds = (
            ("logical_anomalies", [(255,)] * 3 + [(241, 241)] * 3 + [(255, 241)] * 2),
            ("structural_anomalies", [(234,)] * 3),
        )
        for kind, shown in kinds:
            for index, held in enumerate(shown):
                image, _ = spoiled(rng, _SIZE)
                for number, value in enumerate(held):
                    _, mask = spoiled(rng, _SIZE)
                    image[mask > 0] = 30
                    save_png(folder / "ground_truth" / kind / f"{index:03d}" / f"{number:03d}.png", mask // 255 * value)
                save_png(folder / "test" / kind / f"{index:03d}.png", image)


def read_names(path: Path) -> dict[int, str]:
    """Pixel value -> defect, as the data set says it.

    Raises:
        DatasetError: the file is missing or says something else.
    """
    about = "names the defects and comes with the archive", "defect_name and pixel_value"
    return _read(path, lambda e: check_name(str(e["defect_name"]), str(path)), *about)


def read_saturations(path: Path) -> dict[int, tuple[float, bool]]:
    """Pixel value -> (threshold, whether it is a share of the defect's area or a number of pixels).

    Raises:
        DatasetError: the file is missing or says something else.
    """
    about = "says how much of a defect counts as all", "pixel_value, saturation_threshold and relative_saturation"
    return _read(path, lambda e: (float(e["saturation_threshold"]), e["relative_saturation"]), *about)


def _read(path: Path, fact: Callable[[dict[str, Any]], T], purpose: str, expected: str) -> dict[int, T]:
    try:
        return {int(e["pixel_value"]): fact(e) for e in json.loads(path.read_text(encoding="utf-8-sig"))}
    except FileNotFoundError:
        raise DatasetError(f"{path} is not there; it {purpose}") from None
    except DatasetError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); expected a list of {expected}") from None


def saturation_area(area: int, threshold: float, relative: bool) -> float:
    """The publisher's rule: a share of the area in whole pixels, or pixels but never more than the area."""
    return float(int(threshold * area) if relative else min(threshold, area))
