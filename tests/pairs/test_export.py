import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from dhdiff_ray.config import DataConfig
from dhdiff_ray.data.encode import png_bytes
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.data.verify import verify
from dhdiff_ray.pairs.card import card_text, counted, sampling_told
from dhdiff_ray.pairs.export import FORMS, export, run_lengths
from dhdiff_ray.pairs.writer import PairsError, PairWriter, read_pair, read_pair_rows, write_card
from dhdiff_ray.records import Pair, Request
from dhdiff_ray.run.folder import RunFolder


@pytest.fixture
def run(tmp_path):
    """A run with six pairs of two defects, each mask two separate regions, and two normal images."""
    folder = RunFolder.of(str(tmp_path), "made")
    rng, writer, requests = np.random.default_rng(0), PairWriter(folder), []
    for defect in ("bent", "torn off"):
        for index in range(3):
            words = f"a mesh with {defect}"
            request = Request("mesh v1.2", defect, index, 100 + index, words, "a.png", f"r{index}.png")
            mask = np.zeros((20, 30), np.uint8)
            mask[0:4, 0:6] = mask[10:15, 12 + index : 20] = 255
            writer.write_pair(Pair(request, rng.integers(0, 255, (20, 30, 3), dtype=np.uint8), mask))
            requests.append(request)
    for side in ("train", "test"):
        normal = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
        folder.write_bytes(f"pairs/mesh v1.2/{side}/good/000000.png", png_bytes(normal))
    writer.finish("mesh v1.2", requests, {"control": "raw_mask", "weights_sha256": "abc"})
    write_card(writer.folder)
    return folder


def test_shards_are_the_same_bytes_twice_with_sorted_keys_and_no_times(run, tmp_path):
    outs = [RunFolder.at(str(tmp_path / name)) for name in ("one", "two")]
    for out in outs:
        assert export(run, out, "webdataset", shard_size=4)["pairs"] == 6
    names = ["pairs-000000.tar", "pairs-000001.tar"]
    assert [n for n in outs[0].files() if n.endswith(".tar")] == names
    assert all(outs[0].read_bytes(n) == outs[1].read_bytes(n) for n in names)
    with tarfile.open(fileobj=io.BytesIO(outs[0].read_bytes(names[0]))) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == sorted(m.name for m in members)
        assert {(m.mtime, m.uid, m.uname) for m in members} == {(0, 0, "")}
        keys = {m.name.split(".", 1)[0] for m in members}
        assert len(keys) == 4
        assert {m.name.split(".", 1)[1] for m in members} == {"image.png", "json", "mask.png"}
        told = json.load(tar.extractfile(members[1]))
    assert {"prompt", "seed", "reference", "base", "control", "weights_sha256"} <= told.keys()
    card = outs[0].read_bytes("README.md").decode()
    assert card.startswith("---\nlicense: ")
    assert 'metadata.jsonl", ' not in card


def test_coco_has_a_box_and_the_exact_mask_of_each_region(run, tmp_path):
    out = RunFolder.at(str(tmp_path / "coco"))
    export(run, out, "coco")
    value = out.read_json("annotations.json")
    assert (len(value["images"]), len(value["annotations"]), len(value["categories"])) == (6, 12, 2)
    for image, row in zip(value["images"], read_pair_rows(run, "mesh v1.2"), strict=True):
        mask = read_pair(run, row)[1]
        union = np.zeros(mask.shape, bool)
        for found in (a for a in value["annotations"] if a["image_id"] == image["id"]):
            counts = found["segmentation"]["counts"]
            values = np.arange(len(counts)) % 2 == 1
            region = np.repeat(values, counts).reshape(mask.shape, order="F")
            x, y, w, h = found["bbox"]
            assert region[y : y + h, x : x + w].sum() == region.sum() == found["area"]
            union |= region
        assert np.array_equal(union, mask > 0)
        assert Image.open(io.BytesIO(out.read_bytes(image["file_name"]))).size == (image["width"], image["height"])


def test_run_lengths_begin_with_zeros():
    assert run_lengths(np.array([[1, 0], [1, 1]])) == [0, 2, 1, 1]
    assert run_lengths(np.array([[0, 0], [0, 0]])) == [4]


def test_yolo_boxes_are_shares_of_the_image(run, tmp_path):
    out = RunFolder.at(str(tmp_path / "yolo"))
    export(run, out, "yolo")
    lines = out.read_bytes("labels/mesh v1.2/torn off/000000.txt").decode().splitlines()
    assert lines[0] == "1 0.100000 0.100000 0.200000 0.200000"
    assert len(lines) == 2
    assert b'1: "mesh v1.2/torn off"' in out.read_bytes("data.yaml")


def test_the_exported_folder_is_a_dataset_that_the_tool_opens(run, tmp_path):
    out = tmp_path / "folder"
    export(run, RunFolder.at(str(out)), "folder")
    samples = open_dataset("folder").scan(out)
    assert sum(not s.is_good for s in samples) == 6
    assert {s.group for s in samples if not s.is_good} == {"r0.png", "r1.png", "r2.png"}
    assert {(s.subset, s.is_good) for s in samples if s.is_good} == {("train", True), ("test", True)}
    findings, _ = verify(DataConfig(dataset="folder", root=str(out)))
    assert not [f for f in findings if f.level == "error"]


def test_nothing_is_written_over_and_a_run_without_pairs_is_named(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years")
    with pytest.raises(PairsError, match="not empty"):
        export(run, RunFolder.at(str(tmp_path / "full")), "coco")
    with pytest.raises(PairsError, match="submit synthesize"):
        export(RunFolder.of(str(tmp_path), "other"), RunFolder.at(str(tmp_path / "new")), "coco")
    with pytest.raises(PairsError, match="folder"):
        export(run, RunFolder.at(str(tmp_path / "new")), "voc")
    assert set(FORMS) == {"webdataset", "coco", "yolo", "folder"}


def test_the_card_tells_licence_model_seeds_and_scores():
    counts = {"mesh": counted([{"defect": "bent", "seed": at, "weights_sha256": "f" * 64} for at in range(3)])}
    about = {"dataset": "mvtec", "licence": "CC BY-NC-SA 4.0", "source": "there", "non_commercial": True}
    score = {"level": "category", "category": "mesh", "metric": "is_standin", "value": 1.5, "n": 3}
    detection = {
        "mesh": {"synthetic": {"pixel_ap": 0.5, "image_auroc": 0.75}},
        "conditions": {"test_holds_training_images": True},
    }
    scores = {"scores": [score], "pair_alignment": {"mesh": {"iou": 0.25, "n": 3}}}
    config = {"run": {"seed": 5}, "synthesize": {}}
    card = card_text(counts, about=about, scores=scores, detection=detection, config=config)
    assert card.startswith("---\nlicense: cc-by-nc-sa-4.0\n")
    assert "forbids commercial use" in card
    assert "Run seed 5" in card
    assert f"| mesh | {'f' * 16} | 3 |" in card
    assert "| mesh | is_standin | 1.500 | 3 |" in card
    assert "| mesh | pair alignment, iou | 0.250 | 3 |" in card
    assert "holds training images" in card
    assert "| mesh | synthetic | 0.500 | 0.750 |" in card
    assert "license: other" in card_text(counts)


def test_a_card_tells_what_pairs_were_sampled_with_and_not_what_the_run_was_trained_to(run):
    own = {"steps": 20, "guidance": 1.0, "start": "noise", "background": "clean", "fade": False}
    run.write_json("config.json", {"run": {"seed": 5}, "synthesize": own})
    write_card(run)
    card = run.read_bytes("pairs/README.md").decode()
    assert "Sampling: 20 steps, guidance 1.0, start noise, background clean." in card
    run.write_json("synthesis/mesh v1.2.json", {"steps": 50, "fade": True})
    write_card(run)
    card = run.read_bytes("pairs/README.md").decode()
    assert "Sampling: 50 steps, guidance 1.0, start noise, background clean, faded beside the masks." in card


def test_categories_that_were_sampled_alike_share_a_sentence():
    one, other = ({"steps": steps, "guidance": 1.0, "start": "noise", "background": "free"} for steps in (20, 50))
    assert sampling_told({"a": one, "c": one, "b": other}) == (
        "Sampling of a, c: 20 steps, guidance 1.0, start noise, background free. "
        "Sampling of b: 50 steps, guidance 1.0, start noise, background free."
    )
