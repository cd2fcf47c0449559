"""A foundation on Ray: two workers fed by Ray Data, through a killed worker and a killed reader."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from dhdiff_ray.config import FOUNDATION_NAME, Config
from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.model.pipeline import DHDiffPipeline
from dhdiff_ray.on_ray.verbs import train
from dhdiff_ray.run.events import read_events
from dhdiff_ray.run.run import Run
from dhdiff_ray.training.checkpoint import model_facts
from dhdiff_ray.training.pooled import train_foundation


def mortal_work(settings):
    """The real work, of which the second worker kills itself once after the third step, and a reader before that."""
    from dhdiff_ray.on_ray.verbs import feed, train_worker
    from dhdiff_ray.training.loop import fit

    folder = Path(settings["run"].folder.path())

    class MortalReader(feed.Reader):
        def __call__(self, item):
            for row in super().__call__(item):
                yield row
                if row["step"] == 1 and not (dead := folder / f"reader{self.rank}.dead").exists():
                    dead.touch()
                    os.kill(os.getpid(), signal.SIGKILL)

    feed.Reader = MortalReader

    def watched(*arguments, start, on_step, rank, **named):
        with (folder / f"starts{rank}").open("a") as told:
            told.write(f"{start} ")

        def mortal_step(done, log):
            on_step(done, log)
            if (rank, done, start) == (1, 3, 0):
                known = folder / "checkpoints" / "foundation" / "checkpoint_manager_snapshot.json"
                until = time.monotonic() + 60
                while not (known.exists() and "step_0000002" in known.read_text()) and time.monotonic() < until:
                    time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGKILL)

        return fit(*arguments, start=start, on_step=mortal_step, rank=rank, **named)

    train_worker.fit = watched
    train_worker.train_worker(settings)


def mortal_category(run, category, hub):
    from dhdiff_ray.on_ray.verbs import train

    train.work = mortal_work
    train.train_category(run, category, hub)


@pytest.mark.ray
def test_two_workers_train_a_foundation_through_a_killed_worker_and_readers_to_the_weights_of_an_undisturbed_run(
    two_cores, configure, monkeypatch, tmp_path
):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    roots = [tmp_path / name for name in ("one", "two")]
    for seed, (root, category) in enumerate(zip(roots, ("mesh", "capsule"), strict=True)):
        generate(root, resolution=32, seed=seed, categories=[category], defects_per_type=4, train_good=3, test_good=1)
    sources = [{"dataset": "procedural", "root": str(root)} for root in roots]

    def configured(run, *sets):
        return Config.model_validate({**configure(run, *sets).model_dump(), "sources": sources})

    config = configured("killed", "train.workers=2", "train.max_failures=1")
    folder = Run(config).folder
    monkeypatch.setattr(train, "train_category", mortal_category)
    assert train.main(config) == 0
    for rank in (0, 1):
        assert Path(folder.path(f"starts{rank}")).read_text().split() == ["0", "2"], "from its last checkpoint"
        assert Path(folder.path(f"reader{rank}.dead")).exists()
    events = read_events(folder)
    assert [e["total"] for e in events if e.get("category") == "foundation, images"][-1] == 18

    alone = configured("alone")
    train_foundation(Run(alone))
    models = [DHDiffPipeline.from_pretrained(Run(c).folder.path("models/foundation")).unet for c in (config, alone)]
    weights, expected = (model.state_dict() for model in models)
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], atol=2e-5, rtol=1e-3, msg=name)
    facts = [model_facts(Run(c).folder, FOUNDATION_NAME) for c in (config, alone)]
    assert facts[0]["split_digest"] == facts[1]["split_digest"]
    assert train.main(config, resume=True) == 0, "nothing is trained again"
