"""What a job's driver does for a synthesis beside drawing: the real stage of a job, with samplers that draw nothing.

    python -m benchmarks.driver [--layout mvtec|webdataset] [--workers N] [PAIRS ...]

By default both layouts with 100,000 and 1,000,000 pairs of 200 categories on 64 logical workers, which are processes
of this machine. A sampler leaves what a unit leaves, without pictures: empty files and a marker, or an archive of
pictures of a few bytes. Each row is a process of its own, so that its memory is its own; rows of other layouts and
sizes stay as they were. ``before_a_unit`` is what the driver does up to handing a unit out: looking at what is there,
and planning.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.scheduling import Watch

RESULT = Path(__file__).parent / "results" / "driver.json"
LAYOUTS, SIZES = ("mvtec", "webdataset"), (100_000, 1_000_000)
CATEGORIES, DEFECTS, SHARD, WORKERS = 200, 4, 8, 64
TARGETS = {"driver_mb": 500, "before_a_unit_ms": 2, "first_pair_s": 60, "cards_and_status_s": 60}
GROWTH = {"seconds": 11, "driver_mb": 1.2}
"""The most of each, and the most it may grow by from the smaller size to the larger."""


class Sleeper:
    """A sampler that draws nothing and leaves what one leaves."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def __call__(self, unit: Any) -> float:
        """At once."""
        from dhdiff_ray.pairs.lots import ArchiveUnit
        from dhdiff_ray.pairs.writer import pair_row

        if not isinstance(unit, ArchiveUnit):
            self._files(unit)
            return 0.0
        requests = [request for batch in unit.batches(self.run) for request in batch if request.index in unit.missing]
        rows = [pair_row(request) | {"attempt": 0} | unit.told for request in requests]
        unit.write(self.run.folder, [(row, (b"image", b"mask")) for row in rows])
        return 0.0

    def _files(self, unit: Any) -> None:
        from dhdiff_ray.pairs.intact import marker_row, tries_file
        from dhdiff_ray.pairs.writer import image_file, mask_file

        place = Path(self.run.folder.path(f"pairs/{unit.category}"))
        for request in unit.missing:
            for file in (image_file(request), mask_file(request)):
                _leave(place / file, b"")
        told = [{"index": request.index, "seed": request.seed, "attempt": 0} for request in unit.requests]
        rows = [marker_row(row, {"image": [0, ""], "mask": [0, ""]}) for row in told]
        _leave(Path(self.run.folder.path(tries_file(unit.category, unit.requests[0]))), json.dumps(rows).encode())


def _leave(path: Path, data: bytes) -> None:
    """Without the flush to disk that the writer does: it is the samplers' affair."""
    try:
        path.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=int, nargs="*", default=SIZES)
    parser.add_argument("--layout", choices=LAYOUTS, help="the other as well if not given")
    parser.add_argument("--workers", type=int, default=WORKERS)
    asked = parser.parse_args()
    known = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    rows = {(row.get("layout"), row["pairs"]): row for row in known if "layout" in row}
    for layout in [asked.layout] if asked.layout else LAYOUTS:
        for pairs in asked.pairs:
            code = f"from benchmarks.driver import measured; measured({layout!r}, {pairs}, {asked.workers})"
            done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
            rows[layout, pairs] = json.loads(done.stdout)
            _write([rows[key] for key in sorted(rows)])
    print(RESULT.read_text())


def _write(rows: list[dict[str, Any]]) -> None:
    conditions = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    conditions |= {"categories": CATEGORIES, "defects": DEFECTS, "pairs_per_unit": SHARD}
    conditions["workers"] = "processes of this machine, which draw nothing; they share its cores with the driver"
    grown = {}
    for layout in LAYOUTS:
        if len(own := [row for row in rows if row["layout"] == layout]) > 1:
            small, large = own[0], own[-1]
            names = ("driver_cpu_s", "wall_s", "driver_mb", "driver_growth_mb", "status_s", "finishing_s")
            grown[layout] = {name: round(large[name] / max(small[name], 1e-9), 2) for name in names}
    told = {"targets": TARGETS, "most_growth": GROWTH, "conditions": conditions, "grown": grown, "rows": rows}
    RESULT.write_text(json.dumps(told, indent=2) + "\n")


def measured(layout: str, pairs: int, workers: int) -> None:
    """One row, told as JSON."""
    from dhdiff_ray.on_ray.cluster.local import local_cluster
    from dhdiff_ray.on_ray.events import Events
    from dhdiff_ray.on_ray.verbs import synthesize
    from dhdiff_ray.pairs.lots import ArchivedPairs, CategoryPairs
    from dhdiff_ray.run.run import Run

    out, sys.stdout = sys.stdout, Path(os.devnull).open("w")  # noqa: SIM115  events are printed too
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as storage, local_cluster(num_cpus=workers):
        run = Run(_laid_out(storage, layout, pairs))
        clock, spent = _Clock(), Watch()
        synthesize.Maker, synthesize.Work = Sleeper, clock.work(synthesize.Work)  # pyright: ignore
        synthesize.write_card = clock.timed("card_s", synthesize.write_card)
        for lot in (CategoryPairs, ArchivedPairs):
            lot.finish = clock.timed("finishing_s", lot.finish)
        with spent, Events(run.folder, "synthesize") as events:
            begun, cpu = time.monotonic(), time.process_time()
            clock.begun = begun
            assert not synthesize.stage(run, events)
            wall, cpu = time.monotonic() - begun, time.process_time() - cpu
        peak = spent.figures()
        status = _status(run)
        units = clock.units
        figures = {
            "layout": layout,
            "pairs": pairs,
            "units": units,
            "workers": workers,
            "wall_s": wall,
            "first_pair_s": clock.first,
            "driver_cpu_s": cpu,
            "driver_cpu_ms_per_unit": cpu / units * 1000,
            "before_a_unit_ms": clock.seconds["planning_s"] / units * 1000,
            "driver_mb": peak["driver_rss_mb"],
            "driver_growth_mb": peak["driver_rss_growth_mb"],
            "finishing_s": clock.seconds["finishing_s"],
            "card_s": clock.seconds["card_s"],
            **status,
            "cards_and_status_s": clock.seconds["card_s"] + status["status_s"],
            "load_average": [round(value, 1) for value in os.getloadavg()],
        }
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps(rounded), file=out)


class _Clock:
    """Where the driver's time goes."""

    def __init__(self) -> None:
        self.begun, self.first, self.units = 0.0, 0.0, 0
        self.seconds = {"planning_s": 0.0, "finishing_s": 0.0, "card_s": 0.0}

    def work(self, original: Any) -> type:
        """The driver's own class, watched."""
        clock = self

        class Watched(original):
            def units(self, lots: Any) -> Iterator[Any]:
                drawn = super().units(lots)
                while True:
                    start = time.process_time()
                    unit = next(drawn, None)
                    clock.seconds["planning_s"] += time.process_time() - start
                    if unit is None:
                        return
                    clock.units += 1
                    yield unit

            def take(self, at: int, seconds: float, error: str) -> None:
                assert not error, error
                clock.first = clock.first or time.monotonic() - clock.begun
                super().take(at, seconds, error)

        return Watched

    def timed(self, name: str, work: Any) -> Any:
        """The same function, its time added up."""

        def watched(*arguments: Any) -> Any:
            start = time.monotonic()
            try:
                return work(*arguments)
            finally:
                self.seconds[name] += time.monotonic() - start

        return watched


def _status(run: Any) -> dict[str, float]:
    """What ``jobs status`` does with the events of the whole run."""
    from dhdiff_ray.run.events import read_events
    from dhdiff_ray.run.status import Status, as_cells

    start = time.monotonic()
    events = read_events(run.folder)
    status = Status(events)
    cells, _ = as_cells(status, time.time()), status.as_dict(time.time())
    taken = time.monotonic() - start
    assert len(cells) == CATEGORIES
    assert all(row[2].startswith("done") for row in cells), cells[0]
    size = Path(run.folder.path("events.jsonl")).stat().st_size
    return {"status_s": taken, "events": len(events), "events_mb": size / 2**20}


def _laid_out(storage: str, layout: str, pairs: int) -> Any:
    """A run that is trained: images, split and what is told of each model, without weights."""
    from dhdiff_ray.config.load import load_config
    from dhdiff_ray.data.split import split_as
    from dhdiff_ray.records import Sample
    from dhdiff_ray.run.run import Run

    root = Path(storage) / "images"
    sets = [f'run.storage="{storage}"', "run.name=driver", f'data.root="{root}"', f"synthesize.layout={layout}"]
    sets += [f"synthesize.pairs_per_defect={pairs // CATEGORIES // DEFECTS}", f"synthesize.shard_size={SHARD}"]
    config = load_config(preset="tiny", sets=tuple(sets)).config
    samples, random = [], np.random.default_rng(0)
    for category in (f"category{at:03d}" for at in range(CATEGORIES)):
        for defect in ("good", *(f"defect{at}" for at in range(DEFECTS))):
            for at in range(4):
                side = "train" if defect == "good" and at else "test"
                key = f"{category}/{side}/{defect}/{at}.png"
                file, mask = root / key, root / category / "ground_truth" / defect / f"{at}_mask.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
                if defect != "good":
                    mask.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(mask)
                masked = None if defect == "good" else str(mask)
                samples.append(Sample(key, category, defect, side, str(file), masked, None))
    split = split_as(config.data, 0, samples, {"dataset": "drawn", "licence": "none"})
    run = Run(config)
    run.folder.write_json("split.json", split.to_json())
    run.write_config()
    for category in run.categories:
        facts = {"category": category, "defects": [f"defect{at}" for at in range(DEFECTS)], "weights_sha256": "a" * 64}
        run.folder.write_json(f"models/{category}/dhdiff.json", facts | {"split_digest": run.category(category).digest})
    return config


if __name__ == "__main__":
    main()
