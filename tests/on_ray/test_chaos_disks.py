"""A full or read-only disk ends a job with a clear word, and nothing half written passes for whole."""

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from dhdiff_ray.on_ray.verbs import synthesize, train
from dhdiff_ray.pairs.writer import read_pair_rows
from dhdiff_ray.run.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.chaos]


@pytest.fixture
def small_disk():
    """small_disk(bytes) -> a folder on a disk of its own, and how to mount it anew with other options."""
    mounted = []

    def mount(size):
        folder = Path(tempfile.mkdtemp(prefix="dhd-"))
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if made.returncode or os.geteuid():
            pytest.skip("mounting a small disk needs the rights of root")
        mounted.append(folder)
        return folder, lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", str(folder)], check=True, capture_output=True
        )

    yield mount
    for folder in mounted:
        limit = time.monotonic() + 60  # workers that read from it may take a moment to end
        while subprocess.run(["umount", str(folder)], capture_output=True).returncode:
            assert time.monotonic() < limit, f"{folder} is still in use"
            time.sleep(0.5)
        folder.rmdir()


def made_files(config):
    """Names of the made images and masks."""
    names = Run(config).folder.files("pairs")
    return [name for name in names if name.endswith(".png") and "/good/" not in name]


@pytest.fixture
def on_disk(small_disk, trained_once, images, load_run):
    """The trained run on a small disk: its configuration and how to change the disk."""
    pages = sum(1 - file.stat().st_size // -4096 for file in trained_once.rglob("*"))  # such a disk counts in pages
    size = 4096 * pages

    def make(spare, *sets):
        folder, remount = small_disk(size + spare)
        shutil.copytree(trained_once, folder / "trained")
        return load_run(folder, images, "trained", *sets), remount

    return make


def test_pairs_that_do_not_fit_are_refused_before_any_is_made(two_cores, on_disk):
    config, _ = on_disk(100_000, "synthesize.pairs_per_defect=2000")
    with pytest.raises(ValueError, match=r"pairs need about .* make room"):
        synthesize.main(config)
    assert not made_files(config)


def test_after_room_was_made_a_run_on_a_full_disk_goes_on_and_nothing_half_written_passes_for_whole(
    two_cores, on_disk, monkeypatch
):
    config, remount = on_disk(200_000, "synthesize.pairs_per_defect=12")
    folder = Run(config).folder
    with monkeypatch.context() as patch:
        patch.setattr(synthesize, "refuse_full_disk", lambda *_: None)  # somebody else filled it meanwhile
        try:
            assert synthesize.main(config) == 1
        except OSError as error:
            assert error.errno == errno.ENOSPC
    there = made_files(config)
    assert 0 < len(there) < 6 * 12 * 2
    for name in there:
        Image.open(folder.path(name)).load()
        if "/test/" in name:
            assert folder.exists(name.replace("/test/", "/ground_truth/").replace(".png", "_mask.png"))
    remount(f"size={64 * 2**20}")
    assert synthesize.main(config) == 0
    for category in ("capsule", "mesh"):
        assert len(read_pair_rows(folder, category)) == 36


def test_a_storage_that_may_not_be_written_is_told_at_once(two_cores, on_disk):
    config, remount = on_disk(2**20)
    remount("ro")
    with pytest.raises(OSError, match="Read-only"):
        synthesize.main(config)
    remount("rw")


def test_a_training_whose_disk_filled_up_at_a_checkpoint_goes_on_to_the_same_weights_once_there_is_room(
    two_cores, small_disk, images, load_run, configure
):
    sets = ("data.categories=['mesh']", "train.steps=60", "train.checkpoint_every=10", "train.max_failures=0")
    disk, _ = small_disk(256 * 2**20)
    config = load_run(disk, images, "full", *sets)
    folder = Run(config).folder
    kept, filler = Path(folder.path("checkpoints/mesh/checkpoint_manager_snapshot.json")), disk / "filler"

    def fill():
        while not (kept.exists() and "step_" in kept.read_text()):
            time.sleep(0.05)
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))

    threading.Thread(target=fill, daemon=True).start()
    try:
        assert train.main(config) == 1
    except OSError as error:
        assert error.errno == errno.ENOSPC
    assert not folder.exists("models/mesh")
    filler.unlink()
    assert train.main(config, resume=True) == 0
    calm = configure("calm", *sets)
    assert train.main(calm) == 0
    weights = "models/mesh/unet/diffusion_pytorch_model.safetensors"
    assert folder.read_bytes(weights) == Run(calm).folder.read_bytes(weights)
