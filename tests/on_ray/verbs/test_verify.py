"""Looking at a dataset's files on a cluster finds what threads on one machine find."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from dhdiff_ray.cli.app import app
from dhdiff_ray.config import DataConfig
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.data.verify import verify
from dhdiff_ray.on_ray.verbs import verify as on_ray


@pytest.fixture
def root(tmp_path):
    """MVTec's layout with an empty mask, a truncated image and two copies."""
    root = tmp_path / "d"
    open_dataset("mvtec").example(root)
    Image.new("L", (24, 24)).save(root / "grid/ground_truth/bent/002_mask.png")
    broken = root / "bottle/train/good/001.png"
    broken.write_bytes(broken.read_bytes()[:60])
    copied = (root / "grid/train/good/000.png").read_bytes()
    for name in ("001.png", "002.png"):
        (root / "grid/train/good" / name).write_bytes(copied)
    return root


@pytest.mark.ray
def test_a_clusters_cores_find_what_threads_find(two_cores, root, monkeypatch):
    monkeypatch.setattr(on_ray, "UNIT", 4)
    data, told = DataConfig(root=str(root)), []
    here = verify(data)
    there = verify(data, inspecting=lambda samples: on_ray.across(samples, tell=told.append))
    assert there == here
    assert {finding.code for finding in here[0]} == {"mask-empty", "unreadable", "duplicate"}
    assert told[-1]["done"] == told[-1]["total"] == 24


@pytest.mark.ray
def test_the_command_sends_the_looking_to_the_cluster_that_is_named(two_cores, root):
    here = CliRunner().invoke(app, ["data", "verify", "--root", str(root), "--json"])
    there = CliRunner().invoke(
        app, ["data", "verify", "--root", str(root), "--address", two_cores.address, "--json"], catch_exceptions=False
    )
    assert (here.exit_code, there.exit_code) == (1, 1)
    assert json.loads(there.stdout) == json.loads(here.stdout)
    nowhere = CliRunner().invoke(
        app, ["data", "verify", "--root", str(root / "x"), "--address", two_cores.address, "--json"]
    )
    assert nowhere.exit_code == 3
    assert str(root / "x") in json.loads(nowhere.stdout)["error"] + nowhere.stderr
