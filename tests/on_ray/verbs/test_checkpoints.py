"""A damaged checkpoint is passed over for the one before it, and told."""

import json
from pathlib import Path

import pytest

from dhdiff_ray.on_ray.verbs.checkpoints import newest_whole
from dhdiff_ray.on_ray.verbs.train import SNAPSHOT, forget_what_is_lost
from dhdiff_ray.run.damage import promises_below
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.training.checkpoint import MANIFEST
from dhdiff_ray.training.checkpoint import MARKER as FACTS

NAMES = ("step_0000002", "step_0000004", "step_0000006")


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints of two ranks."""
    for name in NAMES:
        for rank in range(2):
            own = tmp_path / "of a rank" / name / str(rank)
            (own / "engine").mkdir(parents=True)
            (own / "engine" / f"states_{rank}.pt").write_bytes(name.encode() * 100)
            if rank == 0:
                (own / FACTS).write_text(json.dumps({"done": 2, "world_size": 2}))
            promises = promises_below(own)
            place = tmp_path / "mesh" / name
            (place / "engine").mkdir(parents=True, exist_ok=True)
            (own / MANIFEST.format(rank=rank)).write_text(json.dumps(promises))
            for file in own.rglob("*.*"):
                file.rename(place / file.relative_to(own))
    return RunFolder.at(str(tmp_path / "mesh"))


def test_the_newest_is_taken_where_it_is_whole_and_nothing_newer_than_rays(folder):
    told = []
    assert newest_whole(folder, NAMES[2], told.append) == NAMES[2]
    assert newest_whole(folder, NAMES[1], told.append) == NAMES[1]
    assert newest_whole(folder, "", told.append) == NAMES[2]
    assert told == []


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("engine/states_1.pt", b"cut", "engine/states_1.pt has 3 bytes, not 1200"),
        ("engine/states_0.pt", b"x" * 1200, "engine/states_0.pt has another content"),
        ("engine/states_1.pt", None, "engine/states_1.pt is missing"),
        (FACTS, b"{", "cannot be read"),
        (FACTS, None, f"{FACTS} is missing"),
        ("manifest-1.json", None, "manifest-1.json is missing"),
        ("manifest-1.json", b"", "cannot be read"),
    ],
)
def test_a_damaged_one_is_passed_over_and_named(folder, file, content, words):
    place = Path(folder.path(f"{NAMES[2]}/{file}"))
    place.unlink() if content is None else place.write_bytes(content)
    told = []
    assert newest_whole(folder, NAMES[2], told.append) == NAMES[1]
    assert len(told) == 1
    assert NAMES[2] in told[0]
    assert words in told[0]


def test_where_none_is_whole_training_begins_anew_and_says_so(folder):
    for name in NAMES:
        folder.write_bytes(f"{name}/engine/states_0.pt", b"")
    told = []
    assert newest_whole(folder, NAMES[2], told.append) == ""
    assert len(told) == 4
    assert "begins anew" in told[-1]


def test_a_checkpoint_older_than_manifests_is_taken_as_it_is_if_ray_knows_it(folder):
    for name in NAMES:
        for rank in range(2):
            folder.delete(f"{name}/{MANIFEST.format(rank=rank)}")
    assert newest_whole(folder, NAMES[2], pytest.fail) == NAMES[2]
    assert newest_whole(folder, "", pytest.fail) == ""


def test_rays_list_of_checkpoints_is_forgotten_where_it_cannot_be_right(folder):
    assert forget_what_is_lost(folder) == ""
    snapshot = {"checkpoint_results": [{"checkpoint_dir_name": name} for name in NAMES]}
    folder.write_json(SNAPSHOT, snapshot)
    assert forget_what_is_lost(folder) == ""
    folder.delete(NAMES[2])
    assert f"{NAMES[2]} is gone" in forget_what_is_lost(folder)
    assert not folder.exists(SNAPSHOT)
    folder.write_bytes(SNAPSHOT, b'{"checkpoint_res')
    assert "cannot be read" in forget_what_is_lost(folder)
    assert newest_whole(folder, "", pytest.fail) == NAMES[1]
