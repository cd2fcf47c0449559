"""``dhdiff-ray verify``: what is damaged in a run is named, and pairs are made again without a cluster."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dhdiff_ray.cli.app import app
from dhdiff_ray.on_ray.verbs.synthesize import Maker
from dhdiff_ray.pairs.units import CategoryPairs
from dhdiff_ray.run.run import Run


@pytest.fixture
def folder(paired):
    run = Run(paired("synthesize.pairs_per_defect=2"))
    run.folder.delete("pairs")
    run.folder.delete("synthesis")
    for category in ("capsule", "mesh"):
        lot = CategoryPairs.of(run, category)
        for unit in lot.units:
            Maker(run)(unit)
        lot.finish(run)
    return run.folder


def verify(folder, *words):
    place = ("--run", "trained", "--storage", str(Path(folder.path()).parent))
    done = CliRunner().invoke(app, ["verify", *place, *words, "--json"])
    return done.exit_code, json.loads(done.stdout)


def content(folder):
    return {name: folder.read_bytes(name) for part in ("pairs", "synthesis") for name in folder.files(part)}


def test_a_sound_run_leaves_0_and_one_without_hashes_too(folder):
    assert verify(folder) == (0, [])
    folder.delete("models/mesh/files.json")
    folder.delete("synthesis/mesh/finished.json")
    assert verify(folder) == (0, [])


@pytest.mark.parametrize(
    ("part", "knobs"),
    [("ablation", {"rows": [{"name": "plain"}]}), ("sources", [{"dataset": "procedural", "root": "/there"}])],
)
def test_a_table_and_a_foundation_have_no_split_of_their_own(folder, part, knobs):
    config = json.loads(folder.read_bytes("config.json")) | {part: knobs}
    for place in folder.files():
        if place != "config.json":
            folder.delete(place)
    folder.write_json("config.json", config)
    assert verify(folder) == (0, [])


def test_every_kind_of_damage_is_named_with_what_to_do(folder):
    damages = {
        "config.json": b"{",
        "split.json": b"{",
        "models/capsule/dhdiff.json": b"",
        "pairs/mesh/test/bent/000000.png": b"",
        "pairs/mesh/train/good/000000.png": b"cut",
        "pairs/capsule/metadata.jsonl": b"{",
        "synthesis/capsule.json": b"",
        "scores.json": b"[",
        "checkpoints/mesh/step_0000002/dhdiff.json": b"{",
    }
    for name, data in damages.items():
        folder.write_bytes(name, data)
    folder.delete("pairs/mesh/test/bent/000001.png")
    folder.delete("pairs/mesh/ground_truth/bent/000001_mask.png")
    code, faults = verify(folder)
    assert code == 1
    named = {fault["path"] for fault in faults}
    assert {name for name in damages if not name.startswith("checkpoints")} <= named
    assert "checkpoints/mesh/step_0000002" in named
    assert "pairs/mesh/test/bent/000001.png" in named, "its row is there, both its files are gone"
    assert all(fault["problem"] and fault["remedy"] for fault in faults)


def test_repair_makes_pairs_again_byte_for_byte_as_many_as_there_were(folder):
    before = content(folder)
    folder.write_bytes("pairs/mesh/test/bent/000000.png", b"")
    folder.delete("pairs/mesh/ground_truth/bent/000001_mask.png")
    folder.delete("pairs/capsule/test/crack")
    folder.write_bytes("pairs/capsule/metadata.jsonl", before["pairs/capsule/metadata.jsonl"][:-200])
    folder.write_bytes("synthesis/mesh/broken/000000.json", b"{")
    assert verify(folder)[0] == 1
    assert verify(folder, "--repair") == (0, [])
    after = content(folder)
    assert {k: v for k, v in after.items() if "mesh" in k} == {k: v for k, v in before.items() if "mesh" in k}


def test_a_run_that_is_not_there_is_a_usage_error(folder):
    error = CliRunner().invoke(app, ["verify", "--run", "none", "--storage", str(Path(folder.path()).parent)]).exception
    assert "there is no run" in str(error)
