import json
from pathlib import Path

import numpy as np
import pytest

from dhdiff_ray.data.encode import jpeg_bytes, png_bytes
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.pairs.writer import (
    PairsError,
    PairWriter,
    finished_categories,
    finished_file,
    read_pair,
    read_pair_rows,
    write_card,
)
from dhdiff_ray.records import Pair, Request
from dhdiff_ray.run.folder import RunFolder


def request_of(defect: str, index: int, category: str = "mesh") -> Request:
    return Request(category, defect, index, 2**62 + index, f"a photo with {defect}", "mesh/train/good/000.png", "r.png")


def pair_of(request: Request) -> Pair:
    rng = np.random.default_rng(request.index)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 3 : 6 + request.index] = 255
    return Pair(request, rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), mask)


REQUESTS = [request_of(defect, index) for defect in ("bent", "stain") for index in range(3)]


@pytest.fixture
def writer(tmp_path) -> PairWriter:
    return PairWriter(RunFolder.of(str(tmp_path), "demo"))


def pngs(writer: PairWriter) -> dict[str, bytes]:
    return {f: writer.folder.read_bytes(f) for f in writer.folder.files("pairs") if f.endswith(".png")}


def test_pairs_come_back_as_they_were_written(writer):
    for request in REQUESTS:
        assert not writer.has_pair(request)
        writer.write_pair(pair_of(request))
        assert writer.has_pair(request)
    writer.finish("mesh", REQUESTS[::-1], {"config": "abc"})
    rows = read_pair_rows(writer.folder, "mesh")
    assert [(row["defect"], row["index"]) for row in rows] == [(r.defect, r.index) for r in REQUESTS]
    assert rows[0] == {
        "file_name": "test/bent/000000.png",
        "mask_file_name": "ground_truth/bent/000000_mask.png",
        **REQUESTS[0].as_dict(),
        "config": "abc",
    }
    for request, row in zip(REQUESTS, rows, strict=True):
        image, mask = read_pair(writer.folder, row)
        assert np.array_equal(image, pair_of(request).image)
        assert np.array_equal(mask, pair_of(request).mask)


def test_the_same_pairs_are_the_same_bytes_in_any_order(writer, tmp_path):
    other = PairWriter(RunFolder.of(str(tmp_path), "other"))
    for request in REQUESTS:
        writer.write_pair(pair_of(request))
    for request in REQUESTS[::-1]:
        other.write_pair(pair_of(request))
    assert pngs(writer) == pngs(other)
    assert len(pngs(writer)) == 12


def test_an_interrupted_pair_does_not_count_as_there(writer):
    request = REQUESTS[0]
    writer.write_pair(pair_of(request))
    (image,) = Path(writer.folder.path()).rglob("000000.png")
    image.unlink()
    assert not writer.has_pair(request)
    with pytest.raises(PairsError, match=r"1 files are missing, the first is test/bent/000000\.png"):
        writer.finish("mesh", [request], {})


def test_the_mask_is_on_disk_before_the_image(writer, monkeypatch):
    written = []
    monkeypatch.setattr(RunFolder, "write_bytes", lambda self, name, data: written.append(name))
    writer.write_pair(pair_of(REQUESTS[0]))
    assert written == ["pairs/mesh/ground_truth/bent/000000_mask.png", "pairs/mesh/test/bent/000000.png"]


def test_files_that_nobody_asked_for_stop_the_finish(writer):
    for request in REQUESTS:
        writer.write_pair(pair_of(request))
    with pytest.raises(PairsError, match="2 files were not asked for"):
        writer.finish("mesh", REQUESTS[:-1], {})
    writer.finish("mesh", REQUESTS, {})
    writer.folder.write_bytes("pairs/mesh/previews/test/x.png", png_bytes(np.zeros((2, 2), np.uint8)))
    with pytest.raises(PairsError, match="previews"):
        writer.finish("mesh", REQUESTS, {})


def test_the_tree_is_mvtecs_and_its_own_loader_opens_it(writer, tmp_path):
    open_dataset("procedural").example(tmp_path / "data")
    goods = [sample for sample in open_dataset("procedural").scan(tmp_path / "data", ["mesh"]) if sample.is_good]
    train, test = ([sample for sample in goods if sample.subset == side] for side in ("train", "test"))
    for request in REQUESTS:
        writer.write_pair(pair_of(request))
    writer.write_normals("mesh", train, test, 16)
    writer.finish("mesh", REQUESTS, {})
    samples = open_dataset("mvtec").scan(Path(writer.folder.path("pairs")))
    assert len(samples) == len(REQUESTS) + len(train) + len(test)
    assert all(sample.mask for sample in samples if not sample.is_good)


def test_the_card_lists_every_finished_category(writer):
    for category in ("mesh", "capsule"):
        requests = [request_of("bent", index, category) for index in range(2)]
        for request in requests:
            writer.write_pair(pair_of(request))
        writer.finish(category, requests, {})
    write_card(writer.folder)
    card = writer.folder.read_bytes("pairs/README.md").decode()
    head = card.split("---")[1]
    assert 'path: ["*/metadata.jsonl", "*/test/**/*.png", "*/ground_truth/**/*.png"]' in head
    assert "| capsule | bent | 2 |\n| mesh | bent | 2 |" in card
    for line in writer.folder.read_bytes("pairs/mesh/metadata.jsonl").splitlines():
        assert not any(isinstance(value, (list, dict)) for value in json.loads(line).values())


def test_pairs_of_wrong_shape_or_grey_masks_are_refused(writer):
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    for bad in (Pair(REQUESTS[0], image[..., 0], mask), Pair(REQUESTS[0], image, mask + 7)):
        with pytest.raises(ValueError, match="must be uint8"):
            writer.write_pair(bad)


def test_unfinished_pairs_say_which_verb_is_missing(writer):
    with pytest.raises(PairsError, match="submit synthesize"):
        read_pair_rows(writer.folder, "mesh")


def test_previews_are_jpeg():
    assert jpeg_bytes(np.zeros((4, 4, 3), np.uint8), 80)[:2] == b"\xff\xd8"


def test_a_card_that_is_written_once_tells_the_same_as_rows_that_are_counted_anew(writer):
    """Else every card would read all rows again, and a job of many categories would take the square of its time."""
    for category in ("mesh", "capsule"):
        requests = [request_of("bent", index, category) for index in range(2)]
        for request in requests:
            writer.write_pair(pair_of(request))
        writer.finish(category, requests, {"weights_sha256": "ab" * 32}, marked=True)
    assert not writer.folder.exists("pairs/README.md")
    write_card(writer.folder)
    card = writer.folder.read_bytes("pairs/README.md")
    for category in ("mesh", "capsule"):
        file = finished_file(category)
        told = writer.folder.read_json(file)
        assert told.pop("counted") == {"defects": {"bent": 2}, "seeds": 2, "weights": ["ab" * 32]}
        writer.folder.write_json(file, told)  # as runs of before have it
    write_card(writer.folder)
    assert writer.folder.read_bytes("pairs/README.md") == card


def test_a_card_lists_no_files_of_pairs(writer, monkeypatch):
    requests = [request_of("bent", index, "mesh") for index in range(2)]
    for request in requests:
        writer.write_pair(pair_of(request))
    writer.finish("mesh", requests, {}, marked=True)
    monkeypatch.setattr(type(writer.folder), "sizes", lambda *_: pytest.fail("all files were listed"))
    write_card(writer.folder)
    assert finished_categories(writer.folder) == ["mesh"]
