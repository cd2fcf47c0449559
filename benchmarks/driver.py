"""What a job's driver does for a synthesis beside drawing: planning, units, cards; at two sizes, no pair is drawn.

    python -m benchmarks.driver [PAIRS ...]        (10,000 and 100,000 by default)

Files of pairs are empty, since only their names and rows matter here. Each size is a process of its own, so that its
memory is its own. ``cards`` is one card from what was counted; ``cards_of_before`` is what it took while every category
wrote one of its own, each from all rows of all categories there were: measured once, over half of the categories, and
multiplied.
"""

from __future__ import annotations

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

import psutil

RESULT = Path(__file__).parent / "results" / "driver.json"
SIZES = (10_000, 100_000)
CATEGORIES, DEFECTS, SHARD = 50, 4, 8
WORKERS = 4


class Sleeper:
    """A sampler that draws nothing."""

    def __call__(self, unit: Any) -> float:
        """At once."""
        return 0.0


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or list(SIZES)
    rows = []
    for pairs in sizes:
        line = [sys.executable, "-c", f"from benchmarks.driver import measured; measured({pairs})"]
        rows.append(json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout))
    conditions = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    conditions |= {"categories": CATEGORIES, "defects": DEFECTS, "pairs_per_unit": SHARD, "workers": WORKERS}
    conditions["beside"] = "other work; nothing here is a speed, only growth and memory are"
    RESULT.write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=2) + "\n")
    print(RESULT.read_text())


def measured(pairs: int) -> None:
    """One size, told as JSON."""
    from dhdiff_ray.config import Config
    from dhdiff_ray.on_ray.cluster.local import local_cluster
    from dhdiff_ray.on_ray.pool import map_units
    from dhdiff_ray.pairs.plan import plan, shards
    from dhdiff_ray.records import Sample

    process, out = psutil.Process(), sys.stdout
    sys.stdout = sys.stderr
    config = Config.model_validate({"synthesize": {"pairs_per_defect": pairs // CATEGORIES // DEFECTS}})
    split = _split([f"category{at:03d}" for at in range(CATEGORIES)], Sample)
    figures: dict[str, Any] = {"pairs": pairs}
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as storage, local_cluster(num_cpus=WORKERS):
        first: list[float] = []

        def units() -> Iterator[Any]:
            for category in split.categories:
                for shard in shards(plan(config, split, category), SHARD):
                    first.append(time.monotonic()) if not first else None
                    yield shard

        memory, begun, cpu = process.memory_info().rss, time.monotonic(), time.process_time()
        count = peak = 0
        for count, (_, _, error) in enumerate(map_units(units(), Sleeper, {}, workers=WORKERS), 1):
            assert not error, error
            peak = max(peak, process.memory_info().rss) if not count % 100 else peak
        figures["units"] = count
        figures["first_unit_planned_s"] = round(first[0] - begun, 3)
        figures["driver_cpu_ms_per_unit"] = round((time.process_time() - cpu) / count * 1000, 3)
        figures["driver_growth_mb"] = round((peak - memory) / 2**20, 1)
        figures |= _cards(config, split, storage)
    print(json.dumps(figures), file=out)


def _split(categories: list[str], sample: Any) -> Any:
    from dhdiff_ray.data.split import Split

    samples = []
    for category in categories:
        for defect in ("good", *(f"defect{at}" for at in range(DEFECTS))):
            names = [f"{category}/{defect}/{at}.png" for at in range(10)]
            samples += [sample(name, category, defect, "train", f"/images/{name}", None, None) for name in names]
    return Split(tuple(samples), (), 0, 0.5, "/images")


def _cards(config: Any, split: Any, storage: str) -> dict[str, float]:
    """Finish every category, then write the card; and what the cards of before would have taken."""
    from dhdiff_ray.pairs.plan import plan
    from dhdiff_ray.pairs.writer import PairWriter, image_file, mask_file, read_pair_rows, write_card
    from dhdiff_ray.run.folder import RunFolder

    writer = PairWriter(RunFolder.of(storage, "run"))
    finishing, before = 0.0, 0.0
    for at, category in enumerate(split.categories, 1):
        requests = plan(config, split, category)
        place = Path(writer.folder.path(f"pairs/{category}"))
        for request in requests:
            for file in (image_file(request), mask_file(request)):
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                (place / file).touch()
        start = time.monotonic()
        writer.finish(category, requests, {"weights_sha256": "a" * 64}, marked=True)
        finishing += time.monotonic() - start
        if at == CATEGORIES // 2:
            start = time.monotonic()
            for _ in range(2):
                list(writer.folder.files("pairs"))
            for name in split.categories[:at]:
                read_pair_rows(writer.folder, name)
            before = time.monotonic() - start
    start = time.monotonic()
    write_card(writer.folder)
    card = time.monotonic() - start
    figures = {"finish_all_s": finishing, "cards_s": card, "cards_of_before_s": before * CATEGORIES}
    return {name: round(value, 3) for name, value in figures.items()}


if __name__ == "__main__":
    main()
