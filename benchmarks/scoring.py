"""How fast the scores are: against all pairs by the lpips package, with more images, and through Ray Data.

    python -m benchmarks.scoring        (SCORING_WITHOUT_RAY=1 leaves Ray Data out)

Random weights, small images and the squeeze backbone, so that it ends on a laptop: the ratios count, not the seconds.
Processor time of one thread is compared, because a shared machine's clock says more about its neighbours. The procedure
of the peers would take hours, so a sample of its pairs is timed and multiplied by how many there are. Memory is the
largest of a process of its own.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "scoring.json"
SIDE, CENTRES, SAMPLE = 64, 10, 60
TARGETS = {"speed_up": 20, "growth_4000_over_1000": 4.4, "memory_4000_over_1000": 1.1, "ray_over_loop": 1.1}


def image(index: int):
    """One of ten pictures, with noise of its own."""
    import numpy as np

    base = np.random.default_rng([1, index % CENTRES]).integers(0, 200, (SIDE, SIDE, 3))
    noise = np.random.default_rng([2, index]).integers(0, 56, (SIDE, SIDE, 3))
    return (base + noise).astype(np.uint8)


def images(count: int):
    return ((f"{index:05d}", image(index)) for index in range(count))


def perceiver():
    import torch

    from dhdiff_ray.metrics.features.published import Lpips, lpips_network

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Lpips.of(lpips_network("squeeze", None), "squeeze", "random", SIDE)


def ours(count: int, profile: str) -> dict[str, float]:
    """Score ``count`` images in this process."""
    from dhdiff_ray.metrics.ic_lpips import ic_lpips
    from dhdiff_ray.metrics.profiles import PROFILES

    network = perceiver()
    centres = {f"c{name}": picture for name, picture in images(CENTRES)}
    start = time.process_time()
    names = [f"{index:05d}" for index in range(count)]
    value = ic_lpips(network, centres, names, lambda name: image(int(name)), PROFILES[profile]).value
    seconds = time.process_time() - start
    return {
        "seconds": seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "value": value or 0.0,
    }


def pair_by_pair(count: int) -> dict[str, float]:
    """What AnomalyDiffusion's script would take: every image against every centre, then the pairs of 50 per cluster."""
    import itertools

    import torch

    network = perceiver()._network
    some = [torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1 for _, picture in images(12)]
    pairs = list(itertools.islice(itertools.cycle(itertools.combinations(some, 2)), SAMPLE))
    with torch.inference_mode():
        network(*pairs[0])
        start = time.process_time()
        for a, b in pairs:
            network(a, b)
        each = (time.process_time() - start) / SAMPLE
    members = min(50, count // CENTRES)
    total = count * CENTRES + CENTRES * members * (members - 1) // 2
    return {"seconds": each * total, "pairs": total, "seconds_per_pair": each, "pairs_timed": SAMPLE}


class Observer:
    """One worker of the pool: the first pass over a shard."""

    def __init__(self) -> None:
        from dhdiff_ray.metrics.ic_lpips import CentreDistances

        centres = {f"c{name}": picture for name, picture in images(CENTRES)}
        self.first = CentreDistances(perceiver(), list(centres), list(centres.values()))

    def __call__(self, names: list[str]) -> dict[str, float]:
        start = time.monotonic()
        self.first.observe(names, [image(int(name)) for name in names])
        return {"seconds": time.monotonic() - start}


def through_ray(count: int = 768, shard: int = 96) -> dict[str, float]:
    """The same shards in a loop here and through Ray Data on one worker; start-up is not counted."""
    from dhdiff_ray.on_ray.cluster.local import local_cluster
    from dhdiff_ray.on_ray.pool import map_units

    names = [f"{index:05d}" for index in range(count)]
    units = [names[at : at + shard] for at in range(0, count, shard)]
    observer = Observer()
    observer(units[0])
    start = time.monotonic()
    for unit in units:
        observer(unit)
    loop = time.monotonic() - start
    with local_cluster(num_cpus=2):
        ends = []
        inside = 0.0
        start = time.monotonic()
        for _, answer, error in map_units(units, Observer, {}, workers=1):
            assert not error, error
            ends.append(time.monotonic())
            inside += answer["seconds"]
        whole = time.monotonic() - start
    per_unit = (ends[-1] - ends[0]) / (len(units) - 1)
    return {
        "loop_seconds_per_shard": loop / len(units),
        "ray_seconds_per_shard": per_unit,
        "ray_seconds_with_start": whole,
        "ray_seconds_inside_workers": inside,
    }


def main() -> None:
    if len(sys.argv) > 1:
        kind, count, profile = sys.argv[1:4]
        result = {"ours": lambda: ours(int(count), profile), "pairs": lambda: pair_by_pair(int(count))}
        result["ray"] = lambda: through_ray()
        print(json.dumps(result[kind]()))
        return
    found = {
        "pair_by_pair_1000": _alone("pairs", 1000, "-"),
        "anomalydiffusion_1000": _alone("ours", 1000, "anomalydiffusion"),
        "anomalydiffusion_4000": _alone("ours", 4000, "anomalydiffusion"),
        "full_1000": _alone("ours", 1000, "full"),
        "full_4000": _alone("ours", 4000, "full"),
    }
    ratios = {
        "speed_up": found["pair_by_pair_1000"]["seconds"] / found["anomalydiffusion_1000"]["seconds"],
        "speed_up_full": found["pair_by_pair_1000"]["seconds"] / found["full_1000"]["seconds"],
        "growth_4000_over_1000": found["full_4000"]["seconds"] / found["full_1000"]["seconds"],
        "growth_4000_over_1000_anomalydiffusion": found["anomalydiffusion_4000"]["seconds"]
        / found["anomalydiffusion_1000"]["seconds"],
        "memory_4000_over_1000": found["full_4000"]["peak_mb"] / found["full_1000"]["peak_mb"],
    }
    if "SCORING_WITHOUT_RAY" not in os.environ:
        found["ray"] = _alone("ray", 0, "-")
        ratios["ray_over_loop"] = found["ray"]["ray_seconds_per_shard"] / found["ray"]["loop_seconds_per_shard"]
    conditions = {
        "backbone": "squeeze, random weights",
        "side": SIDE,
        "centres": CENTRES,
        "time": "processor time, one thread; ray: wall time per shard after the first",
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "processor": platform.processor() or platform.machine(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    text = json.dumps({"ratios": ratios, "targets": TARGETS, "measured": found, "conditions": conditions}, indent=2)
    RESULT.write_text(text + "\n")
    print(text)


def _alone(kind: str, count: int, profile: str) -> dict[str, float]:
    """In a process of its own, so that memory is its own."""
    words = [sys.executable, "-m", "benchmarks.scoring", kind, str(count), profile]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
