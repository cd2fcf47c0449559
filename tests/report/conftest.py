"""A finished run in miniature: drawn images, and pairs that are drawn images too."""

import json

import numpy as np
import pytest

from dhdiff_ray.config import Config
from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.data.images import read_image, read_mask
from dhdiff_ray.data.prompts import prompt
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.data.split import make_split
from dhdiff_ray.pairs.writer import PairWriter, write_card
from dhdiff_ray.records import Pair, Request
from dhdiff_ray.run.folder import RunFolder

SIDE = 32


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    open_dataset("procedural").example(root)
    return root


@pytest.fixture
def started_run(dataset_root, tmp_path):
    """A run that has only its configuration and its split."""
    folder = RunFolder.of(str(tmp_path), "tiny-run")
    config = Config.model_validate(
        {
            "run": {"name": "tiny-run", "storage": str(tmp_path)},
            "data": {"dataset": "procedural", "root": str(dataset_root), "resolution": SIDE},
        }
    )
    split = make_split(open_dataset("procedural").scan(dataset_root), fraction=0.5, seed=0, root=dataset_root)
    folder.write_json("config.json", config.model_dump(mode="json"))
    folder.write_json("split.json", split.to_json())
    return folder, config, split


@pytest.fixture
def finished_run(started_run):
    folder, config, split = started_run
    writer = PairWriter(folder)
    for category in split.categories:
        own = split.category(category)
        base = next(s for s in own.train if s.is_good)
        requests = []
        for index, real in enumerate(s for s in own.test if not s.is_good):
            reference = next(s for s in own.train if s.defect == real.defect)
            index = sum(r.defect == real.defect for r in requests)
            text = prompt(category, real.defect)
            requests.append(Request(category, real.defect, index, 11, text, base.key, reference.key))
            writer.write_pair(Pair(requests[-1], read_image(real, SIDE), read_mask(real, SIDE)))
        writer.finish(category, requests, {})
        write_card(writer.folder)
    for c in split.categories:
        steps = [{"step": s, "loss": 1 / s, "loss_image": 0.5 / s, "loss_annotation": 0.4 / s} for s in range(1, 201)]
        folder.write_bytes(f"metrics/{c}.jsonl", "\n".join(map(json.dumps, steps)).encode())
    events = [{"event": "progress", "verb": "train", "category": c, "done": 200, "time": 9} for c in split.categories]
    cut = '{"event": "prog'
    folder.write_bytes("events.jsonl", ("\n".join(map(json.dumps, events)) + "\n" + cut).encode())
    conditions = {"backbone": "stand-in", "weights": "abcd", "splits": 1, "seed": 2020}
    rows = [
        ("run", None, None, 1.5),
        ("category", "mesh", None, 1.5),
        ("defect", "mesh", "bent", 1.25),
        ("defect", "mesh", "broken", None),
    ]
    folder.write_json(
        "scores.json",
        {
            "scores": [
                {
                    "level": level,
                    "category": category,
                    "defect": defect,
                    "metric": "is_standin",
                    "value": value,
                    "n": 8,
                    "conditions": {**conditions, **({"std": value} if defect else {})},
                }
                for level, category, defect, value in rows
            ],
            "pair_alignment": {
                "mesh": {"iou": 0.5125, "ap": 0.75, "nonempty": 0.95, "n": 24, "oracle": {"pixel_ap": 0.984}}
            },
        },
    )
    found = {"image_auroc": 1.0, "pixel_auroc": 0.987, "pixel_ap": 0.654, "n_good": 40, "n_defect": 120}
    folder.write_json(
        "detection.json",
        {
            "mesh": {
                "synthetic": {**found, "n_pairs": 120},
                "real": {**found, "pixel_ap": 0.981, "n_pairs": 120},
                "ratio_pixel_ap": 0.667,
            }
        },
    )
    folder.write_json(
        "timings.json",
        {
            "seconds": {"train": 240.5, "synthesize": 61.0},
            "total_seconds": 301.5,
            "peak_memory_bytes": 5_000_000_000,
            "memory_measure": "PSS",
        },
    )
    folder.write_json("served/request.json", {"request": {"category": "mesh", "seed": 0}, "models": {}})
    for name in ("image", "mask"):
        folder.write_bytes(f"served/{name}.png", png_bytes(np.zeros((SIDE, SIDE), np.uint8)))
    return folder, config, split
