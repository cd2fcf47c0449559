"""Finished pairs in the forms other tools read: WebDataset shards, COCO, YOLO, or a folder with a manifest.

Not in the paper. What we decided: files are copied byte for byte; shards hold sorted keys and no times, so the same
pairs are the same bytes; one COCO or YOLO object per connected region, COCO with its exact mask as run lengths, YOLO
with its box, since its text form knows no holes; pairs of one reference share a group in the manifest.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dhdiff_ray.pairs.archives import Row, add_pair, key_of
from dhdiff_ray.pairs.writer import PAIRS, PairsError, finished_categories, read_encoded, read_pair, read_pair_rows
from dhdiff_ray.records import GOOD
from dhdiff_ray.run.folder import RunFolder

COLUMNS: tuple[str, ...] = ("image", "mask", "category", "defect", "split", "group",
                            "prompt", "seed", "base", "reference", "control")  # fmt: skip


def export(run: RunFolder, out: RunFolder, form: str, *, shard_size: int = 1000) -> dict[str, Any]:
    """Copy all finished pairs of ``run`` to ``out``.

    Args:
        run: a run with pairs.
        out: a place with nothing in it.
        form: ``webdataset``, ``coco``, ``yolo`` or ``folder``.
        shard_size: pairs in one WebDataset shard.

    Returns:
        How many pairs and files were written.

    Raises:
        PairsError: no finished pairs, an unknown form, or ``out`` is not empty.
    """
    if form not in FORMS:
        raise PairsError(f"unknown form {form!r}; there are: {', '.join(FORMS)}")
    rows = [row for category in finished_categories(run) for row in read_pair_rows(run, category)]
    if not rows:
        raise PairsError(f"{run.uri} has no finished pairs; submit synthesize for this run first")
    if any(True for _ in out.files()):
        raise PairsError(f"{out.uri} is not empty; export to a new place")
    files = FORMS[form](run, out, rows, shard_size)
    card = run.read_bytes(f"{PAIRS}/README.md").decode()
    # What the card's head says of the files is true of the run's own tree alone.
    out.write_bytes("README.md", re.sub(r"configs:\n(?:(?:- |  ).*\n)+", "", card, count=1).encode())
    return {"form": form, "out": out.uri, "pairs": len(rows), "files": files + 1}


def webdataset(run: RunFolder, out: RunFolder, rows: list[Row], shard_size: int) -> int:
    """Shards ``pairs-000000.tar`` with ``<key>.image.png``, ``<key>.json`` and ``<key>.mask.png``."""
    ordered = sorted(rows, key=key_of)
    shards = [ordered[at : at + shard_size] for at in range(0, len(ordered), shard_size)]
    for number, shard in enumerate(shards):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for row in shard:
                add_pair(tar, row, *_bytes(run, row))
        out.write_bytes(f"pairs-{number:06d}.tar", buffer.getvalue())
    return len(shards)


def coco(run: RunFolder, out: RunFolder, rows: list[Row], _: int) -> int:
    """``images/`` and ``annotations.json`` with a box and an exact mask (uncompressed run lengths) per region."""
    names = sorted({f"{row['category']}/{row['defect']}" for row in rows})
    images, annotations = [], []
    for number, row in enumerate(rows, 1):
        file = f"images/{_place(row)}.png"
        out.write_bytes(file, _bytes(run, row)[0])
        mask = read_pair(run, row)[1] > 0
        height, width = mask.shape
        origin = {key: row.get(key) for key in ("prompt", "seed", "base", "reference")}
        images.append({"id": number, "file_name": file, "width": width, "height": height, **origin})
        for region, box in _regions(mask):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": names.index(f"{row['category']}/{row['defect']}") + 1,
                    "bbox": list(box),
                    "area": int(region.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": run_lengths(region)},
                }
            )
    kinds = [{"id": at, "name": name, "supercategory": name.split("/")[0]} for at, name in enumerate(names, 1)]
    value = {"info": {"description": "made pairs"}, "images": images, "annotations": annotations, "categories": kinds}
    out.write_json("annotations.json", value)
    return len(rows) + 1


def yolo(run: RunFolder, out: RunFolder, rows: list[Row], _: int) -> int:
    """``images/``, ``labels/`` with ``class x y w h`` per region, and ``data.yaml``; boxes alone, masks are left."""
    names = sorted({f"{row['category']}/{row['defect']}" for row in rows})
    for row in rows:
        out.write_bytes(f"images/{_place(row)}.png", _bytes(run, row)[0])
        mask = read_pair(run, row)[1] > 0
        at, (height, width) = names.index(f"{row['category']}/{row['defect']}"), mask.shape
        lines = [
            f"{at} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n"
            for _, (x, y, w, h) in _regions(mask)
        ]
        out.write_bytes(f"labels/{_place(row)}.txt", "".join(lines).encode())
    listed = "".join(f"  {at}: {json.dumps(name, ensure_ascii=False)}\n" for at, name in enumerate(names))
    out.write_bytes(
        "data.yaml",
        f"path: .\ntrain: images\nval: images  # made pairs only: validate on real ones\nnames:\n{listed}".encode(),
    )
    return 2 * len(rows) + 1


def folder(run: RunFolder, out: RunFolder, rows: list[Row], _: int) -> int:
    """``images/``, ``masks/`` and a ``manifest.csv`` that the loader ``folder`` opens; normal images go along."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for row in rows:
        image, mask = (f"{kind}/{_place(row)}.png" for kind in ("images", "masks"))
        for name, data in zip((image, mask), _bytes(run, row), strict=True):
            out.write_bytes(name, data)
        table.writerow({**row, "image": image, "mask": mask, "split": "", "group": row["reference"]})
    normals = 0
    for category in dict.fromkeys(row["category"] for row in rows):
        for subset in ("train", "test"):
            for file in run.files(f"{PAIRS}/{category}/{subset}/{GOOD}"):
                name = f"images/{category}/{subset}_{GOOD}/{file.rsplit('/', 1)[1]}"
                out.write_bytes(name, run.read_bytes(file))
                table.writerow({"image": name, "category": category, "defect": GOOD, "split": subset})
                normals += 1
    out.write_bytes("manifest.csv", text.getvalue().encode())
    return 2 * len(rows) + normals + 1


Form = Callable[[RunFolder, RunFolder, list[Row], int], int]
FORMS: dict[str, Form] = {"webdataset": webdataset, "coco": coco, "yolo": yolo, "folder": folder}


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's run lengths of a mask (h, w): column by column, first the zeros, then the ones, and so on."""
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def _regions(mask: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """Each 8-connected region, bool (h, w), with its box x, y, width, height."""
    from scipy import ndimage

    labels: np.ndarray = ndimage.label(mask, structure=np.ones((3, 3)))[0]  # pyright: ignore
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        yield labels == number, box


def _bytes(run: RunFolder, row: Row) -> tuple[bytes, bytes]:
    pair = read_encoded(run, row)
    return pair.image, pair.mask


def _place(row: Row) -> str:
    return f"{row['category']}/{row['defect']}/{row['index']:06d}"
