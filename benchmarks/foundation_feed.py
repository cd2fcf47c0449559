"""What feeding a foundation's training costs: Ray Data against tensors in memory, and memory as the pool grows.

    python -m benchmarks.foundation_feed [speed|memory ...]        (both by default)

Speed: the same steps of `tiny` with batches that lie ready in memory (nothing is fed), cut in the worker's own process
(``PoolSource``), and streamed (``RayFeed``), in turn, by one worker with a core to spare. The first step is start-up
and told apart. On a machine that others use the worker's processor time, of all its threads, says more than the clock.
Memory: a worker's and a reader's peak over whole eras for pools of 20 and 100 drawn categories, each from a cluster of
its own. Shards are small, so that the smaller pool, too, has more of them than are open.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import threading
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import psutil

from dhdiff_ray.config import Config
from dhdiff_ray.config.load import load_config, with_values
from dhdiff_ray.data.datasets.procedural import generate
from dhdiff_ray.run.run import Run
from dhdiff_ray.run.sources import lay_out_sources, parts_of

RESULT = Path(__file__).parent / "results" / "foundation_feed.json"
ROUNDS, STEPS, READY = 3, 128, 32
CATEGORIES, ANOMALIES, NORMAL, SHARD_ROWS = (20, 100), 6, 4, 16
KINDS = ("memory", "process", "ray")
EQUAL = {"RAY_worker_niceness": "0"}
"""Ray's workers give way to everything else on the machine (15): on a shared machine no comparison."""


def drawn(root: Path, categories: int) -> None:
    """So many meshes of different seeds in MVTec's layout."""
    for at in range(categories):
        if not (root / f"mesh{at:03d}").exists():
            with tempfile.TemporaryDirectory(dir=root.parent) as place:
                counts = {"defects_per_type": ANOMALIES, "train_good": NORMAL, "test_good": 1}
                generate(Path(place) / "one", resolution=64, seed=at, categories=["mesh"], **counts)
                root.mkdir(exist_ok=True)
                (Path(place) / "one" / "mesh").rename(root / f"mesh{at:03d}")


def laid_out(place: Path, categories: int) -> Config:
    """A run of `tiny` over so many categories, with its pool written."""
    from dhdiff_ray.training import pool

    pool.MOST_ROWS = SHARD_ROWS
    root = place / f"images{categories}"
    drawn(root, categories)
    sets = (f'run.storage="{place}"', f"run.name=feed{categories}", "model.backbone=")
    config = load_config(preset="tiny", sets=sets, environ={}).config
    config = Config.model_validate({**config.model_dump(), "sources": [{"dataset": "mvtec", "root": str(root)}]})
    run = Run(config)
    lay_out_sources(run, lambda *_, **__: None)
    pool.write_pool(run, partial(map, pool.ShardWriter(run)))
    return config


class Trainer:
    """One worker: the real loop on one core, without the other workers' gradients."""

    def __init__(self, config: Config) -> None:
        import torch

        from dhdiff_ray.training.pooled import build_foundation, prepare, read_fitted

        torch.set_num_threads(1)
        self.config, self.pool = config, read(config)
        pictures = read_fitted(config, parts_of(Run(config)))
        self.parts = build_foundation(config, pictures)
        self.words = prepare(self.parts, config, pictures, self.pool.prompts, "cpu")

    def train(self, kind: str, steps: int) -> dict[str, float]:
        """Seconds of the first step and of each later one, and the process's peak so far."""
        from dhdiff_ray.on_ray.verbs.pooled import RayFeed
        from dhdiff_ray.training.eras import Eras
        from dhdiff_ray.training.loop import PlainEngine, fit
        from dhdiff_ray.training.pooled import PoolSource

        config = with_values(self.config, {"train.steps": steps}, "benchmark")
        eras = Eras(self.pool, config)
        source: Any = RayFeed(eras, self.words) if kind == "ray" else PoolSource(eras, self.words)
        if kind == "memory":
            source = Ready([source.draw(step, config.train.global_batch_size) for step in range(READY)])
        times, used = [time.perf_counter()], [time.process_time()]

        def on_step(*_: Any) -> None:
            times.append(time.perf_counter())
            used.append(time.process_time())

        engine = PlainEngine(self.parts.objective, config.train)
        fit(engine, source, config.train, average=None, on_step=on_step)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        later = (times[-1] - times[1]) / (len(times) - 2)
        busy = (used[-1] - used[1]) / (len(used) - 2)
        return {"first": times[1] - times[0], "seconds_per_step": later, "busy_per_step": busy, "peak_mb": peak}


class Ready:
    """Batches that lie in memory."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def draw(self, step: int, *_: int) -> Any:
        """One of them."""
        return self.batches[step % len(self.batches)]


class Readers:
    """The most memory that a process that reads shards has had, looked at ten times a second."""

    def __enter__(self) -> Readers:
        self.peak_mb, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            for process in psutil.process_iter(["cmdline", "memory_info"]):
                words, memory = process.info["cmdline"] or [], process.info["memory_info"]
                if memory and words and words[0].startswith("ray::") and "Reader" in words[0]:
                    self.peak_mb = max(self.peak_mb, memory.rss / 2**20)


def read(config: Config) -> Any:
    from dhdiff_ray.training.pool import read_pool

    return read_pool(Run(config))


def with_cluster(config: Config, what: list[tuple[str, int]]) -> tuple[list[dict[str, float]], float]:
    """Train on a cluster of two cores, one of them the worker's; the figures of each, and the readers' peak."""
    import ray

    from dhdiff_ray.on_ray.cluster.local import local_cluster

    with local_cluster(num_cpus=2), Readers() as readers:
        trainer: Any = cast(Any, ray.remote(num_cpus=1)(Trainer)).remote(config)
        answers: list[Any] = [ray.get(trainer.train.remote(kind, steps)) for kind, steps in what]
        rows = [{"kind": kind, **answer} for (kind, _), answer in zip(what, answers, strict=True)]
    return rows, readers.peak_mb


def speed(place: Path) -> dict[str, Any]:
    """Steps per second by how they are fed, as the median over rounds, and the ratios within rounds."""
    rows, _ = with_cluster(laid_out(place, CATEGORIES[0]), [(kind, STEPS) for _ in range(ROUNDS) for kind in KINDS])
    found: dict[str, Any] = {}
    for name, measure in {"clock": "seconds_per_step", "processor": "busy_per_step"}.items():
        taken = {kind: [row[measure] for row in rows if row["kind"] == kind] for kind in KINDS}
        shares = {kind: [a / b for a, b in zip(taken["memory"], taken[kind], strict=True)] for kind in KINDS[1:]}
        found[name] = {
            "steps_per_second": {kind: [round(1 / s, 2) for s in seconds] for kind, seconds in taken.items()},
            "share_of_memory": {kind: round(statistics.median(values), 3) for kind, values in shares.items()},
            "share_of_memory_by_round": {kind: [round(v, 3) for v in values] for kind, values in shares.items()},
        }
    return found | {
        "first_step_seconds": {
            kind: round(statistics.median(row["first"] for row in rows if row["kind"] == kind), 2) for kind in KINDS
        },
    }


def memory(place: Path) -> dict[str, Any]:
    """Peaks of a worker and of a reader by the size of the pool."""
    found: dict[str, Any] = {}
    for categories in CATEGORIES:
        config = laid_out(place, categories)
        pool = read(config)
        (row,), readers = with_cluster(config, [("ray", 3 * 1024 // config.train.global_batch_size // 4)])
        size = sum(len(Run(config).folder.read_bytes(shard.file)) for shard in pool.shards)
        found[str(categories)] = {
            "images": pool.images,
            "shards": len(pool.shards),
            "pool_mb": round(size / 2**20, 1),
            "worker_peak_mb": round(row["peak_mb"], 1),
            "reader_peak_mb": round(readers, 1),
        }
    few, many = (found[str(n)] for n in CATEGORIES)
    found["growth"] = {name: round(many[name] / few[name], 3) for name in ("worker_peak_mb", "reader_peak_mb")}
    return found


def main(names: list[str]) -> None:
    """Measure, and keep the figures with their conditions; parts that are not asked for stay as they were."""
    os.environ.update(EQUAL)
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory(prefix="dhdiff-feed-") as place:
        for name, part in {"speed": speed, "memory": memory}.items():
            if not names or name in names:
                kept[name] = part(Path(place))
                print(json.dumps(kept[name], indent=2), flush=True)
    kept["conditions"] = {
        "network": "tiny as it is: 64 x 64, windows of 40, batch 4; one worker of one core on a machine with "
        f"{os.cpu_count()}, load {os.getloadavg()[1]:.1f} over five minutes",
        "rounds": f"{ROUNDS} of {STEPS} steps each",
        "pool": f"{CATEGORIES[0]} and {CATEGORIES[1]} categories, each {NORMAL} normal images and half of {ANOMALIES} "
        f"anomalies of each of three defects, in shards of at most {SHARD_ROWS}",
        **{name: version(name) for name in ("torch", "ray")},
        "python": platform.python_version(),
    }
    RESULT.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
