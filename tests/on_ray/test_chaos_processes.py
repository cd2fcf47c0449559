"""A process that is killed costs its unfinished work and nothing else.

Which test tries which fault is told in ``test_chaos_jobs.py``.
"""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from dhdiff_ray.on_ray.verbs import synthesize, train
from dhdiff_ray.on_ray.verbs.synthesize import Maker
from dhdiff_ray.pairs.units import Unit
from dhdiff_ray.pairs.writer import read_pair_rows
from dhdiff_ray.run.events import read_events
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.run.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.chaos]


@pytest.fixture(autouse=True)
def pickled_by_value():
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file


def made(folder):
    names = [n for n in folder.files("pairs") if n.endswith(".png") and "/good/" not in n]
    return {name: folder.read_bytes(name) for name in names}


class Mortal(Maker):
    """Tells what it writes; its process is killed in the middle of three units, after the first pair of each."""

    def __call__(self, unit: Unit) -> float:
        own = Path(self.run.folder.path())
        if unit.category == "capsule" and unit.requests[0].index == 0:
            write, mark = self.writer.write_encoded, own / f"killed-{unit.requests[0].defect}"

            def write_and_die(request, pair):
                write(request, pair)
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)

            self.writer.write_encoded = write_and_die
            try:
                return super().__call__(unit)
            finally:
                self.writer.write_encoded = write
        return super().__call__(unit)

    def _made(self, unit):
        with (Path(self.run.folder.path()) / "computed").open("a") as told:
            told.write(f"{unit.category} {unit.name}\n")
        return super()._made(unit)


def test_three_kills_of_samplers_in_one_run_change_no_byte_and_only_what_was_not_committed_is_made_again(
    two_cores, trained, paired_once, monkeypatch
):
    config = trained("synthesize.workers=2")
    folder = Run(config).folder
    monkeypatch.setattr(synthesize, "Maker", Mortal)
    assert synthesize.main(config) == 0
    assert len(list(Path(folder.path()).glob("killed-*"))) == 3
    assert made(folder) == made(RunFolder(str(paired_once))), "the bytes of an undisturbed run"
    for category in ("capsule", "mesh"):
        rows = read_pair_rows(folder, category)
        assert len(rows) == 9, "none is missing"
        assert len({(row["defect"], row["index"]) for row in rows}) == 9, "none is there twice"
    computed = Path(folder.path("computed")).read_text().splitlines()
    twice = sorted(unit for unit in set(computed) if computed.count(unit) > 1)
    assert twice == [f"capsule {defect} 000000 to 000001" for defect in ("crack", "poke", "squeeze")]
    assert len(computed) == 12 + 3, "and no unit that was committed"


def told_work(settings):
    """The real work; tells where it starts, and its last step."""
    from dhdiff_ray.on_ray.verbs import train_worker

    real = train_worker.fit
    folder = Path(settings["run"].folder.path())

    def told(*arguments, start, on_step, **named):
        def step(done, log):
            with (folder / "steps").open("a") as stream:  # whole at any moment, for whoever reads it meanwhile
                stream.write(f"{done} ")
            on_step(done, log)
            time.sleep(0.1)

        with (folder / "starts").open("a") as stream:
            stream.write(f"{start} ")
        return real(*arguments, start=start, on_step=step, **named)

    train_worker.fit = told
    train_worker.train_worker(settings)


def mortal_driver(run, category, hub):
    """The real driver of a category's training; the first one is killed once a checkpoint is kept."""
    import threading

    from dhdiff_ray.on_ray.verbs import train

    folder = Path(run.folder.path())

    def kill():
        kept = folder / "checkpoints" / category / "checkpoint_manager_snapshot.json"
        while not (kept.exists() and "step_0000020" in kept.read_text()):
            time.sleep(0.05)
        (folder / "killed").write_text((folder / "steps").read_text().split()[-1])
        os.kill(os.getpid(), signal.SIGKILL)

    if not (folder / "killed").exists():
        threading.Thread(target=kill, daemon=True).start()
    train.work = told_work
    train.train_category(run, category, hub)


def test_the_killed_driver_of_a_training_is_begun_again_from_its_last_checkpoint_to_the_same_weights(
    two_cores, configure, monkeypatch
):
    sets = ("data.categories=['mesh']", "train.steps=80", "train.checkpoint_every=20")
    config = configure("disturbed", *sets)
    folder = Run(config).folder
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_category", mortal_driver)
        assert train.main(config) == 0
    killed_at = int(Path(folder.path("killed")).read_text())
    first, again = map(int, Path(folder.path("starts")).read_text().split())
    assert first == 0
    assert again >= 20, "from a checkpoint"
    assert killed_at - again <= 20, "one interval is done again at most"
    calm = configure("calm", *sets)
    assert train.main(calm) == 0
    weights = "models/mesh/unet/diffusion_pytorch_model.safetensors"
    assert folder.read_bytes(weights) == Run(calm).folder.read_bytes(weights)


def stuck_work(settings):
    """The real work, whose 25th step hangs and whose 45th freezes the process, each the first time."""
    from dhdiff_ray.on_ray.verbs import train_worker

    real = train_worker.fit
    folder = Path(settings["run"].folder.path())

    def stuck(*arguments, on_step, **named):
        def step(done, log):
            on_step(done, log)
            for at, mark in ((25, folder / "hung"), (45, folder / "frozen")):
                if done == at and not mark.exists():
                    mark.touch()
                    time.sleep(3600) if mark.name == "hung" else os.kill(os.getpid(), signal.SIGSTOP)

        return real(*arguments, on_step=step, **named)

    train_worker.fit = stuck
    train_worker.train_worker(settings)


def stuck_driver(run, category, hub):
    """The real driver of a category's training, of workers that get stuck."""
    from dhdiff_ray.on_ray.verbs import train

    real, train.work = train.work, stuck_work
    try:
        train.train_category(run, category, hub)
    finally:
        train.work = real  # Ray may give this process to the next training


def test_a_step_that_hangs_and_a_worker_that_is_frozen_cost_their_deadline_and_no_byte(
    two_cores, configure, monkeypatch
):
    sets = ("data.categories=['mesh']", "train.steps=60", "train.checkpoint_every=20")
    config = configure("stuck", *sets, "train.step_seconds=20")
    folder = Run(config).folder
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_category", stuck_driver)
        assert train.main(config) == 0
    assert folder.exists("hung") and folder.exists("frozen")
    told = [event["message"] for event in read_events(folder) if event["event"] == "warning"]
    assert [words for words in told if words.startswith("no step was done for 20 s")]
    calm = configure("calm", *sets)
    assert train.main(calm) == 0
    weights = "models/mesh/unet/diffusion_pytorch_model.safetensors"
    assert folder.read_bytes(weights) == Run(calm).folder.read_bytes(weights)
