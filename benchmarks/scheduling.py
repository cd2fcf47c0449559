"""What the scheduling costs: 5,000 units over 64 workers, 200 categories in a queue, Ray Data against a plain loop.

    python -m benchmarks.scheduling [units|queue|data ...]        (all three by default)

A cluster of logical nodes on this machine, so the figures are the driver's and the queue's, not those of a network.
Units and categories sleep; only ``data`` computes. Each part is a process of its own, so that its memory is its own.
Processor time is the driver's whole process, threads included. Start-up is told apart and counted nowhere.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

RESULT = Path(__file__).parent / "results" / "scheduling.json"
PARTS = ("units", "queue", "data")
UNITS, WORKERS, UNIT_SECONDS = 5000, 64, 2.0
CATEGORIES, SLOTS, CATEGORY_SECONDS = 200, 8, 2.0
ROUNDS, BATCHES, BATCH_SECONDS = 2, 10, 1.0
TARGETS = {
    "units.driver_cpu_ms_per_unit": 5.0,
    "units.wall_beyond_sleep_ms_per_unit": 5.0,
    "units.driver_growth_mb": 300.0,
    "queue.driver_growth_mb": 300.0,
    "queue.most_in_flight": float(SLOTS),
    "data.ray_over_loop": 1.05,
    "data.ray_over_sleep": 1.05,
}
"""The most each figure may be."""
EQUAL = {"RAY_worker_niceness": "0"}
"""Ray's workers give way to everything else on the machine (15), a loop does not: on a shared machine no comparison."""
SPARE_MB = 2000
"""A part ends itself when the machine has less memory left."""


class Sleeper:
    """A sampler that sleeps; as light as a process of Ray Data can be."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, unit: int) -> tuple[int, float, float]:
        """Which process slept, from when to when."""
        start = time.time()
        time.sleep(self.seconds)
        return os.getpid(), start, time.time()


class Watch:
    """Memory of this process, sampled while the block runs; ends the process before the machine is out of memory."""

    def __enter__(self) -> Watch:
        self._stop, self._own = threading.Event(), psutil.Process()
        self.first, self.peak = self._now(), self._now()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def figures(self) -> dict[str, float]:
        """Megabytes the driver grew by, imports included; the larger of RSS and USS first."""
        grown = [peak - first for peak, first in zip(self.peak, self.first, strict=True)]
        return {
            "driver_growth_mb": round(max(grown) / 2**20, 1),
            "driver_rss_growth_mb": round(grown[0] / 2**20, 1),
            "driver_uss_growth_mb": round(grown[1] / 2**20, 1),
            "driver_rss_mb": round(self.peak[0] / 2**20, 1),
        }

    def _now(self) -> tuple[int, int]:
        info = self._own.memory_full_info()
        return info.rss, info.uss

    def _look(self) -> None:
        while not self._stop.wait(2.0):
            now = self._now()
            self.peak = (max(self.peak[0], now[0]), max(self.peak[1], now[1]))
            if psutil.virtual_memory().available < SPARE_MB * 2**20:
                print("too little memory is left on this machine", file=sys.stderr, flush=True)
                os._exit(1)


@contextlib.contextmanager
def nodes(count: int, cores: int) -> Iterator[None]:
    """A cluster of that many logical nodes with that many cores each; this process is its driver."""
    os.environ.pop("RAY_ADDRESS", None)
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", **EQUAL}
    import ray
    from ray._common.utils import reset_ray_address
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="dhs-", dir="/tmp") as folder:
        Path("/tmp/ray").mkdir(exist_ok=True)  # the head writes its address there, whatever its folder is
        head = {"num_cpus": 0, "temp_dir": folder, "object_store_memory": 150 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            reset_ray_address()  # else every Ray on this machine would join it
            for _ in range(count):
                cluster.add_node(num_cpus=cores, object_store_memory=100 * 2**20)
            ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
            yield
        finally:
            ours = psutil.Process().children(recursive=True)
            ray.shutdown()
            cluster.shutdown()
            for process in psutil.wait_procs(ours, timeout=10)[1]:  # a worker that did not see its node go
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def memory_of(pids: set[int]) -> list[float]:
    """Megabytes of their own of those that still run."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid).memory_full_info().uss / 2**20)
    return found


def units(count: int, workers: int, seconds: float) -> dict[str, Any]:
    """Sleeping units through the pool that synthesis uses."""
    from dhdiff_ray.on_ray.pool import map_units

    with nodes(4, -(-workers // 4)):
        from ray.data import DataContext

        DataContext.get_current().wait_for_min_actors_s = 1800  # all workers first, so that what follows is steady
        told: list[tuple[int, float, float]] = []
        with Watch() as watch:
            begun, cpu = time.time(), time.process_time()
            starting = cpu
            for _, answer, error in map_units(range(count), Sleeper, {"seconds": seconds}, workers=workers):
                assert not error, error
                if not told:
                    starting = time.process_time()
                told.append(answer)
            spent = time.process_time()
            worker_mb = memory_of({pid for pid, _, _ in told})
    first = min(start for _, start, _ in told)
    last = max(end for _, _, end in told)
    wall, ideal = last - first, count * seconds / workers
    busy = [sum(e - s for p, s, e in told if p == pid) for pid in {pid for pid, _, _ in told}]
    return {
        "units": count,
        "workers": len({pid for pid, _, _ in told}),
        "seconds_per_unit": seconds,
        "driver_cpu_ms_per_unit": round((spent - starting) / count * 1000, 2),
        "wall_beyond_sleep_ms_per_unit": round((wall - ideal) / count * 1000, 2),
        "wall_over_sleep": round(wall / ideal, 3),
        "busy_share_of_workers": round(sum(busy) / (len(busy) * wall), 3),
        "wall_seconds": round(wall, 1),
        "start_seconds": round(first - begun, 1),
        "start_driver_cpu_seconds": round(starting - cpu, 2),
        "worker_uss_mb": round(statistics.mean(worker_mb), 1) if worker_mb else None,
        **watch.figures(),
    }


def stub(run: Any, category: str, hub: Any) -> None:
    """A category whose training takes a moment and tells of itself as a real one does."""
    hub.emit.remote({"event": "metric", "verb": "train", "category": category, "at": "begin", "clock": time.time()})
    time.sleep(run.config.train.steps)
    hub.emit.remote({"event": "metric", "verb": "train", "category": category, "at": "end", "clock": time.time()})


def queue(count: int, slots: int, seconds: float) -> dict[str, Any]:
    """Sleeping categories through the queue that training uses."""
    from dhdiff_ray.config.load import load_config
    from dhdiff_ray.on_ray.events import Events
    from dhdiff_ray.on_ray.verbs.train import train_many
    from dhdiff_ray.run.events import read_events
    from dhdiff_ray.run.folder import RunFolder
    from dhdiff_ray.run.run import Run

    with nodes(2, slots), tempfile.TemporaryDirectory(prefix="dhdiff-") as storage:
        sets = (f"train.steps={int(seconds)}", "train.workers=2", f'run.storage="{storage}"', "run.name=queue")
        config = load_config(preset="tiny", sets=sets).config
        names = [f"category{at:03d}" for at in range(count)]
        folder = RunFolder.of(storage, "queue")
        with Watch() as watch, Events(folder, "train") as events, events.hub(every=0.5) as hub:
            assert not train_many(Run(config), names[: 2 * slots], hub, events, stub)  # its processes start
            cpu = time.process_time()
            assert not train_many(Run(config), names, hub, events, stub)
            spent = time.process_time() - cpu
        told = [e for e in read_events(folder) if e["event"] == "metric"][4 * slots :]
    turns = sorted((e["clock"], 1 if e["at"] == "begin" else -1) for e in told)
    assert len(turns) == 2 * count, "every category was told of twice"
    most = max(itertools.accumulate(turn for _, turn in turns))
    wall, ideal = turns[-1][0] - turns[0][0], count * seconds / slots
    return {
        "categories": count,
        "slots": slots,
        "seconds_per_category": seconds,
        "most_in_flight": most,
        "driver_cpu_ms_per_category": round(spent / count * 1000, 2),
        "wall_ms_per_category": round(wall / count * 1000, 1),
        "wall_beyond_sleep_ms_per_category": round((wall - ideal) / count * 1000, 2),
        "wall_over_sleep": round(wall / ideal, 3),
        "wall_seconds": round(wall, 1),
        **watch.figures(),
    }


def data(rounds: int, batches: int, seconds: float) -> dict[str, Any]:
    """The real sampler on batches of about a second: a loop here and Ray Data with one worker, in turns."""
    import torch

    from dhdiff_ray.on_ray.cluster.local import local_cluster
    from dhdiff_ray.on_ray.pool import map_units
    from dhdiff_ray.on_ray.verbs import synthesize
    from dhdiff_ray.run.run import Run

    torch.set_num_threads(1)
    os.environ |= EQUAL
    found: dict[str, list[float]] = {"loop": [], "ray": [], "inside": [], "start": [], "load": [], "sleep": []}
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as storage, local_cluster(num_cpus=2):
        config, todo = _ready(storage, batches + 1, seconds)
        run, pairs = Run(config), Path(storage) / config.run.name / "pairs"

        def through_ray(worker: Any, arguments: dict[str, Any], own: list[Any]) -> tuple[float, list[Any], float]:
            ends, answers, start = [], [], time.monotonic()
            for _, answer, error in map_units(own, worker, arguments, workers=1):
                assert not error, error
                ends.append(time.monotonic())
                answers.append(answer)
            return (ends[-1] - ends[0]) / (len(own) - 1), answers, ends[0] - start

        for _ in range(rounds):
            start = time.monotonic()
            maker = synthesize.Maker(run)
            maker(todo[0])
            found["load"].append(time.monotonic() - start)
            start = time.monotonic()
            for unit in todo[1:]:
                maker(unit)
            found["loop"].append((time.monotonic() - start) / batches)
            shutil.rmtree(pairs)
            each, inside, first = through_ray(synthesize.Maker, {"run": run}, todo)
            found["ray"].append(each)
            found["inside"].append(statistics.mean(inside[1:]))
            found["start"].append(first)
            shutil.rmtree(pairs)
        found["sleep"].append(through_ray(Sleeper, {"seconds": seconds}, list(range(batches + 1)))[0])
    loop, ray = statistics.median(found["loop"]), statistics.median(found["ray"])
    hand_off = [whole / inside for whole, inside in zip(found["ray"], found["inside"], strict=True)]
    return {
        "batches": batches,
        "rounds": rounds,
        "loop_seconds_per_batch": [round(v, 3) for v in found["loop"]],
        "ray_seconds_per_batch": [round(v, 3) for v in found["ray"]],
        "ray_seconds_inside_worker": [round(v, 3) for v in found["inside"]],
        "ray_over_loop": round(ray / loop, 3),
        "ray_over_inside": round(statistics.median(hand_off), 3),
        "ray_over_sleep": round(found["sleep"][0] / seconds, 3),
        "loop_first_batch_seconds": [round(v, 1) for v in found["load"]],
        "ray_first_batch_seconds": [round(v, 1) for v in found["start"]],
    }


def _ready(storage: str, batches: int, seconds: float) -> tuple[Any, list[Any]]:
    """A run with a model that saw one step, and units that take about so many seconds each."""
    from dhdiff_ray.config.load import load_config
    from dhdiff_ray.data.datasets.procedural import generate
    from dhdiff_ray.data.images import read_many
    from dhdiff_ray.data.registry import open_dataset
    from dhdiff_ray.data.split import make_split
    from dhdiff_ray.on_ray.verbs import synthesize
    from dhdiff_ray.pairs.units import units_of
    from dhdiff_ray.run.folder import RunFolder
    from dhdiff_ray.run.run import Run
    from dhdiff_ray.training.build import build
    from dhdiff_ray.training.checkpoint import publish

    root = Path(storage) / "images"
    generate(root, resolution=64, defects_per_type=4, train_good=4, test_good=2)

    def load(steps: int) -> Any:
        sets = ["data.dataset=procedural", f'data.root="{root}"', "data.categories=['mesh']", "run.name=data"]
        sets += [f'run.storage="{storage}"', "synthesize.shard_size=8", f"synthesize.steps={steps}"]
        return load_config(preset="tiny", sets=[*sets, f"synthesize.pairs_per_defect={8 * batches}"]).config

    config = load(10)
    folder = RunFolder.of(storage, "data")
    split = make_split(open_dataset("procedural").scan(root), fraction=0.5, seed=0, root=root)
    folder.write_json("split.json", split.to_json())
    own = split.category("mesh")
    samples, pictures, _ = read_many(own.train, 64, False, print)
    defects = sorted({s.defect for s in own.train if not s.is_good})
    publish(build(config, samples, pictures), None, Run(config), "mesh", {"defects": defects})
    trial = units_of(Run(config), "mesh", {})[1]
    maker = synthesize.Maker(Run(config))
    maker(trial[0])
    each = min(maker(unit) for unit in trial[1:4])
    shutil.rmtree(Path(storage) / "data" / "pairs")
    config = load(max(1, round(10 * seconds / each)))
    return config, units_of(Run(config), "mesh", {})[1][:batches]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    arguments.add_argument("--workers", type=int, default=WORKERS)
    arguments.add_argument("--units", type=int, default=UNITS)
    arguments.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = arguments.parse_args()
    if asked.inside:
        run = {
            "units": lambda: units(asked.units, asked.workers, UNIT_SECONDS),
            "queue": lambda: queue(CATEGORIES, SLOTS, CATEGORY_SECONDS),
            "data": lambda: data(ROUNDS, BATCHES, BATCH_SECONDS),
        }
        print(json.dumps(run[asked.parts[0]]()))
        return
    measured = json.loads(RESULT.read_text())["measured"] if RESULT.exists() else {}
    for part in asked.parts or PARTS:
        measured[part] = _alone(part, asked) | {"load_average": [round(v, 1) for v in os.getloadavg()]}
    beside = {}
    for name, most in TARGETS.items():
        part, _, figure = name.partition(".")
        if part in measured:
            value = measured[part][figure]
            beside[name] = {"value": value, "target": most, "met": value <= most}
            print(f"{name:40} {value:10} target <= {most:g}  {'met' if value <= most else 'MISSED'}")
    conditions = {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "processor": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("ray", "torch", "pyarrow")}
        | {"python": platform.python_version()},
        "shared": "what else ran shows in load_average (1, 5, 15 minutes, at the end, its own load included)",
        "time": "driver: processor time of its process; wall: from the first unit's start to the last one's end",
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"figures": beside, "measured": measured, "conditions": conditions}, indent=2) + "\n")


def _alone(part: str, asked: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own, so that memory is its own."""
    words = [sys.executable, "-m", "benchmarks.scheduling", part, "--inside"]
    words += ["--workers", str(asked.workers), "--units", str(asked.units)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
