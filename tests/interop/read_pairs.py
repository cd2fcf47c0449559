"""Open a tree of pairs with anomalib and with Hugging Face ``datasets``, and compare with its own metadata.

Runs in an environment of its own (``make interop``), since anomalib pins other versions; it imports nothing of ours.
Leaves 1 and says what differs if a reader sees something else than ``metadata.jsonl`` says.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np


def main(folder: str) -> None:
    """Try all readers on the tree ``folder``."""
    root = Path(folder).resolve()
    rows = {p.parent.name: [json.loads(line) for line in p.open()] for p in sorted(root.glob("*/metadata.jsonl"))}
    assert rows, f"{root} holds no pairs"
    print(f"{root}: {sum(map(len, rows.values()))} pairs of {len(rows)} categories")
    with_mvtec(root, rows)
    with_folder(root, rows)
    with_datasets(root, rows)
    print("all readers see what the metadata says")


def goods(root, category, side):
    return len(list((root / category / side / "good").glob("*.png")))


def with_mvtec(root, rows):
    from anomalib.data import MVTecAD

    print(f"anomalib {version('anomalib')}, MVTecAD")
    for category, own in rows.items():
        module = MVTecAD(root=root, category=category, val_split_mode="none", num_workers=0, eval_batch_size=4)
        module.setup()
        seen = module.test_data.samples
        counts = Counter(seen["label"])
        wanted = Counter(row["defect"] for row in own)
        if goods(root, category, "test"):
            wanted["good"] = goods(root, category, "test")
        same(counts, wanted, f"MVTecAD, {category}, test")
        same(len(module.train_data), goods(root, category, "train"), f"MVTecAD, {category}, train")
        for _, line in seen[seen["label"] != "good"].iterrows():
            same(Path(line["mask_path"]).stem, Path(line["image_path"]).stem + "_mask", "mask of the image")
        batch = next(iter(module.test_dataloader()))
        print(f"  {category}: train {len(module.train_data)}, test {dict(counts)}, batch {tuple(batch.image.shape)}")


def with_folder(root, rows):
    from anomalib.data import Folder

    print(f"anomalib {version('anomalib')}, Folder")
    for category, own in rows.items():
        for defect, count in Counter(row["defect"] for row in own).items():
            module = Folder(
                name=f"{category}_{defect}",
                root=root / category,
                normal_dir="train/good",
                abnormal_dir=f"test/{defect}",
                mask_dir=f"ground_truth/{defect}",
                normal_test_dir="test/good",
                val_split_mode="none",
                num_workers=0,
            )
            module.setup()
            abnormal = int((module.test_data.samples["label_index"] == 1).sum())
            same(abnormal, count, f"Folder, {category}/{defect}")
            item = next(i for i in module.test_data if int(i.gt_label) == 1)
            assert item.gt_mask.any(), "the mask is empty"
            print(f"  {category}/{defect}: {abnormal} abnormal, train {len(module.train_data)}")


def with_datasets(root, rows):
    from datasets import load_dataset

    print(f"datasets {version('datasets')}, load_dataset")
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as cache:
        check_rows(load_dataset(str(root), split="train", cache_dir=cache), rows)


def check_rows(table, rows):
    wanted = {(r["category"], r["defect"], r["index"]): r for own in rows.values() for r in own}
    same(len(table), len(wanted), "rows")
    for line in table:
        row = wanted.pop((line["category"], line["defect"], line["index"]))
        same((line["prompt"], line["seed"]), (row["prompt"], row["seed"]), "prompt and seed")
        image, mask = np.asarray(line["image"]), np.asarray(line["mask"])
        same(image.shape[:2], mask.shape[:2], "sizes of image and mask")
        assert mask.max() in (0, 255)
    same(wanted, {}, "rows that were not seen")
    print(f"  {len(table)} rows: {', '.join(table.column_names)}")


def same(found, expected, what):
    if found != expected:
        raise SystemExit(f"{what}: found {found}, expected {expected}")


main(sys.argv[1])
