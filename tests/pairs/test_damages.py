"""Thirty and more damages to a finished run: the same line again ends with the undisturbed bytes, or one line says why.

Each takes a copy of a run that was finished once, damages one file, and does what ``submit synthesize`` does, without a
cluster. What the run cannot make again is named by ``verify``. The rest of what may happen is in ``test_chaos_disks``.
"""

import re
import shutil
from pathlib import Path

import pytest
from damaging import content, cut, deleted, emptied, flipped, made_again

from dhdiff_ray.report.health import faults_of
from dhdiff_ray.run.damage import DamagedError
from dhdiff_ray.run.run import Run

IMAGE, MASK = "pairs/mesh/test/bent/000001.png", "pairs/mesh/ground_truth/bent/000001_mask.png"
GOOD, ROWS, CARD = "pairs/mesh/train/good/000001.png", "pairs/mesh/metadata.jsonl", "pairs/README.md"
SETTINGS, MARKER, FINISHED = "synthesis/mesh.json", "synthesis/mesh/bent/000000.json", "synthesis/mesh/finished.json"
FACTS, PROMISES = "models/mesh/dhdiff.json", "models/mesh/files.json"
WEIGHTS = "models/mesh/unet/diffusion_pytorch_model.safetensors"


def remade(run, categories=("capsule", "mesh")):
    """What the verb does with every category, beginning with its look at the split."""
    run.check_split()
    made_again(run, categories)


@pytest.fixture(scope="module")
def finished(trained_once, images, load_run, tmp_path_factory):
    """A run with all its pairs, rows, markers and card, and a model that tells its split; its configuration."""
    storage = tmp_path_factory.mktemp("finished")
    shutil.copytree(trained_once, storage / "trained")
    run = Run(load_run(storage, images, "trained"))
    run.write_config()
    remade(run)
    return run


@pytest.fixture
def run(finished, images, load_run, tmp_path):
    """A copy, to be damaged."""
    shutil.copytree(finished.folder.path(), tmp_path / "trained")
    return Run(load_run(tmp_path, images, "trained"))


def miscounted(file):
    """One digit is another: still JSON, or still a picture of the same size."""
    data = file.read_bytes()
    digits = list(re.finditer(rb"[1-8]", data))
    at = digits[len(digits) // 2].start()
    file.write_bytes(data[:at] + bytes([data[at] + 1]) + data[at + 1 :])


def renamed(file):
    file.rename(file.with_name(f"other-{file.name}"))


def of_another(file):
    """What belongs to another product, or another pair."""
    other = Path(str(file).replace("/mesh", "/capsule"))
    shutil.copyfile(other if other.exists() else str(file).replace("000001", "000000"), file)


def another_kind(file):
    """JSON, of another form."""
    file.write_bytes(b"[]")


DAMAGES = (cut, emptied, flipped, miscounted, deleted, renamed, of_another, another_kind)
MENDED = [(name, damage) for name in (ROWS, FINISHED) for damage in DAMAGES]
MENDED += [(CARD, emptied), (MARKER, miscounted), (MARKER, another_kind)]
MENDED += [(IMAGE, of_another), (MASK, of_another), (GOOD, of_another)]
NAMED = [
    *(("split.json", damage) for damage in (cut, miscounted, deleted, renamed, another_kind)),
    *((SETTINGS, damage) for damage in (cut, flipped, miscounted, of_another, another_kind)),
    *((WEIGHTS, damage) for damage in (cut, emptied, flipped, deleted, of_another)),
    *((FACTS, damage) for damage in (cut, flipped, miscounted, deleted, of_another, another_kind)),
    *((PROMISES, damage) for damage in (cut, miscounted, of_another, another_kind)),
]


@pytest.mark.parametrize(("name", "damage"), MENDED, ids=lambda value: getattr(value, "__name__", value))
def test_what_the_run_can_make_again_is_as_it_was_after_the_same_line(run, finished, name, damage):
    damage(Path(run.folder.path(name)))
    remade(run)
    before, after = content(finished.folder), content(run.folder)
    assert {name: after.get(name) for name in before} == before
    assert not faults_of(run.folder)


@pytest.mark.parametrize(("name", "damage"), NAMED, ids=lambda value: getattr(value, "__name__", value))
def test_what_it_cannot_is_named_in_one_line_and_nothing_is_made_from_it(run, finished, name, damage):
    run.folder.delete(IMAGE)  # so that there is something to make
    damage(Path(run.folder.path(name)))
    with pytest.raises((ValueError, OSError)) as caught:
        remade(run)
    words = str(caught.value)
    assert "\n" not in words and ("mesh" in words or name in words) and ("; " in words or ": " in words)
    assert not run.folder.exists(IMAGE)
    if (name, damage) != ("split.json", miscounted):  # what it says of the images is held to them, not to a hash
        faults = [fault for fault in faults_of(run.folder) if fault.path in (name, FACTS)]
        assert faults and faults[0].remedy


def test_settings_that_are_gone_let_no_other_settings_in(run, load_run, images):
    run.folder.delete(SETTINGS)
    assert [fault.path for fault in faults_of(run.folder)] == [SETTINGS]
    other = Run(load_run(Path(run.folder.path()).parent, images, "trained", "synthesize.steps=3"))
    with pytest.raises(DamagedError, match=f"{SETTINGS} is damaged .it is missing, and the pairs there"):
        remade(other, ["mesh"])
    remade(run)
    assert not faults_of(run.folder)


def test_a_marker_that_tells_another_try_is_not_believed(run, finished):
    rows = run.folder.read_json(MARKER)
    rows[0]["attempt"] += 1
    run.folder.write_json(MARKER, rows)
    assert MARKER in {fault.path for fault in faults_of(run.folder)}
    remade(run)
    assert run.folder.read_bytes(MARKER) == finished.folder.read_bytes(MARKER)


@pytest.mark.parametrize("name", ["config.json", "split.json"])
def test_a_run_without_its_first_files_is_not_called_sound(run, name):
    run.folder.delete(name)
    assert name in {fault.path for fault in faults_of(run.folder)}
