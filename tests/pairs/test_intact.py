"""A run's pairs are damaged: the same line makes them again, byte for byte, or one line says what to type."""

import json
from pathlib import Path

import pytest
from damaging import content, cut, deleted, emptied, flipped, halved, made_again

from dhdiff_ray.pairs.intact import FILES, existing, looked_through
from dhdiff_ray.pairs.units import CategoryPairs
from dhdiff_ray.pairs.writer import read_pair, read_pair_rows, write_card
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.run import Run

PAIR = "pairs/mesh/{}/bent/000001{}.png"
IMAGE, MASK = PAIR.format("test", ""), PAIR.format("ground_truth", "_mask")
MARKER = "synthesis/mesh/bent/000000.json"
METADATA = "pairs/mesh/metadata.jsonl"
GOOD = "pairs/mesh/train/good/000001.png"


@pytest.fixture
def run(paired):
    run = Run(paired())
    made_again(run)
    return run


def renamed(file):
    file.rename(file.with_name(file.name.replace("000001", "000077").replace("000000", "000076")))


def without_last_line(file):
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def read_only(file):
    file.chmod(0o444)


@pytest.mark.parametrize(
    "name", [IMAGE, MASK, MARKER, METADATA, GOOD, "pairs/README.md", "synthesis/mesh/finished.json"]
)
@pytest.mark.parametrize("damage", [cut, emptied, flipped, deleted, renamed, halved, read_only])
def test_whatever_happens_to_a_file_the_same_line_ends_with_the_same_bytes(run, name, damage):
    before, file = content(run.folder), Path(run.folder.path(name))
    damage(file)
    told = made_again(run)
    after = content(run.folder)
    assert {k: v for k, v in after.items() if k in before} == before
    left = after.keys() - before.keys()
    assert not left or (damage is renamed and name.endswith((".md", ".jsonl", "finished.json")))
    if name in (IMAGE, MASK, MARKER) and damage not in (deleted, renamed, read_only):
        assert told, "what was mended is told"


def test_a_deleted_mask_is_no_dead_end(run):
    Path(run.folder.path(MASK)).unlink()
    found = looked_through(run.folder, "mesh")
    assert found.pairs["bent"] == {0: True, 1: False, 2: True}
    assert found.damaged == {IMAGE: "its mask is missing"}


def test_a_broken_row_of_one_category_stops_no_other(run):
    cut(Path(run.folder.path("pairs/capsule/metadata.jsonl")))
    card = run.folder.read_bytes("pairs/README.md")
    lot = CategoryPairs.of(run, "mesh")
    lot.finish(run)
    write_card(run.folder)
    assert b"mesh" in run.folder.read_bytes("pairs/README.md")
    with pytest.raises(DamagedError, match=r"pairs/capsule/metadata.jsonl is damaged .*submit synthesize"):
        read_pair_rows(run.folder, "capsule")
    made_again(run)
    assert run.folder.read_bytes("pairs/README.md") == card


def test_rows_that_are_missing_at_the_end_are_noticed_by_every_reader(run):
    without_last_line(Path(run.folder.path(METADATA)))
    with pytest.raises(DamagedError, match="rows are missing"):
        read_pair_rows(run.folder, "mesh")


def test_a_picture_that_cannot_be_read_is_named_with_what_to_type(run):
    row = read_pair_rows(run.folder, "mesh")[1]
    cut(Path(run.folder.path(IMAGE)))
    with pytest.raises(DamagedError, match=rf"{IMAGE} is damaged .*submit synthesize"):
        read_pair(run.folder, row)


def test_pairs_of_a_marker_without_hashes_count_where_both_files_are_whole(run):
    for name in run.folder.files("synthesis/mesh/bent"):
        rows = run.folder.read_json(name)
        run.folder.write_json(name, [{k: v for k, v in row.items() if k != FILES} for row in rows])
    run.folder.delete("synthesis/mesh/finished.json")
    flipped(Path(run.folder.path(MASK)))  # cannot be known
    assert existing(run.folder, "mesh")["bent"] == {0: True, 1: True, 2: True}
    assert made_again(run) == {}
    cut(Path(run.folder.path(IMAGE)))
    assert existing(run.folder, "mesh")["bent"] == {0: True, 1: False, 2: True}


def test_metadata_says_nothing_of_files_and_hashes(run):
    for line in run.folder.read_bytes(METADATA).decode().splitlines():
        assert FILES not in json.loads(line)
