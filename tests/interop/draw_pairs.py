"""Lay down a small tree of pairs with the tool's own writer, for ``make interop`` where no run is at hand.

The "made" pictures are drawn ones: what is tried is the tree, not the model.
"""

import sys
from pathlib import Path

from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.data.images import read_image, read_mask
from dhdiff_ray.data.prompts import prompt
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.data.split import make_split
from dhdiff_ray.pairs.writer import PairWriter, write_card
from dhdiff_ray.records import Pair, Request, pair_seed
from dhdiff_ray.run.folder import RunFolder


def main(folder: str) -> None:
    """Draw images below ``folder``, and a run ``drawn`` with their pairs."""
    root = Path(folder).resolve()
    generate(root / "images", resolution=64, defects_per_type=6, train_good=4, test_good=3)
    run = RunFolder.of(str(root), "drawn")
    split = make_split(
        open_dataset("procedural").scan(root / "images"),
        fraction=0.5,
        seed=0,
        root=root / "images",
        about={"dataset": "procedural", "licence": "CC0-1.0", "source": "drawn"},
    )
    run.write_json("split.json", split.to_json())
    writer = PairWriter(run)
    for category in split.categories:
        own = split.category(category)
        goods = [s for s in own.train if s.is_good]
        requests = []
        for at, sample in enumerate(s for s in own.train if not s.is_good):
            seed = pair_seed(0, category, sample.defect, at)
            words = prompt(category, sample.defect)
            request = Request(category, sample.defect, at, seed, words, goods[0].key, sample.key)
            writer.write_pair(Pair(request, read_image(sample, 64), read_mask(sample, 64)))
            requests.append(request)
        writer.write_normals(category, goods, [s for s in own.test if s.is_good], 64)
        writer.finish(category, requests, {"control": "raw_mask", "weights_sha256": "drawn, not made"})
    write_card(run)


main(sys.argv[1])
