"""Looking at a dataset: 10,000 headers after a first read, and decoding with one thread or worker against one per core.

All decodings read the same files, one after the other, with the files in memory: by threads of this process, and by
workers of Ray Data on a cluster of this machine (rates after the first units, so that its start-up is told apart). The
headers are those of a drawn tree of 64 x 64 PNGs, the decoded pictures are 1024 x 1024, as MVTec AD's are.
"""

import json
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from dhdiff_ray.config import DataConfig
from dhdiff_ray.data.encode import save_png
from dhdiff_ray.data.registry import open_dataset
from dhdiff_ray.data.survey import survey
from dhdiff_ray.data.verify import verify
from dhdiff_ray.on_ray.cluster.local import local_cluster
from dhdiff_ray.on_ray.verbs.verify import across

RESULT = Path(__file__).parent / "results" / "datasets.json"
HEADERS = 10_000
DECODED = 256
TARGET_SECONDS = 5.0


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as temporary:
        many, large = Path(temporary) / "many", Path(temporary) / "large"
        _tree(many, HEADERS, 64, copies=True)
        _tree(large, DECODED, 1024)
        loader = open_dataset("mvtec")
        first, again = (_seconds(lambda: survey(loader, many, (), print, areas=False)) for _ in range(2))
        samples = loader.scan(large)
        data = DataConfig(root=str(large))
        verify(data, samples=samples, workers=1)
        one, all_cores = (_seconds(lambda w=w: verify(data, samples=samples, workers=w)) for w in (1, cores))
        with local_cluster(num_cpus=cores):
            ray_one, ray_cores = (_through_ray(samples, workers) for workers in (1, cores))
    figures = {
        "headers": HEADERS,
        "first_scan_seconds": round(first, 2),
        "scan_seconds": round(again, 2),
        "target_seconds": TARGET_SECONDS,
        "decoded_images": DECODED,
        "verify_one_thread_seconds": round(one, 2),
        "verify_thread_per_core_seconds": round(all_cores, 2),
        "verify_speed_up": round(one / all_cores, 2),
        "verify_images_per_second": {
            "one thread": round(DECODED / one, 1),
            "thread per core": round(DECODED / all_cores, 1),
            "one Ray worker": round(ray_one["rate"], 1),
            "Ray worker per core": round(ray_cores["rate"], 1),
        },
        "verify_ray_speed_up": round(ray_cores["rate"] / ray_one["rate"], 2),
        "verify_ray_seconds_with_start_of_workers": round(ray_cores["seconds"], 2),
        "cores": cores,
        "processor": platform.processor() or platform.machine(),
        "load_average_before": round(os.getloadavg()[0], 1),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def _through_ray(samples, workers: int) -> dict[str, float]:
    """Seconds from the call to the last answer, and images per second once every worker has answered."""
    times: list[tuple[float, int]] = []
    start = time.perf_counter()
    for _ in across(samples, workers=workers, tell=lambda event: times.append((time.perf_counter(), event["done"]))):
        pass
    (first, before), (last, done) = times[workers - 1], times[-1]
    return {"seconds": last - start, "rate": (done - before) / (last - first)}


def _tree(root: Path, count: int, side: int, copies: bool = False) -> None:
    """One category of ``count`` images, a fifth of them anomalies; copies of one picture where only headers count."""
    rng = np.random.default_rng(0)
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side // 2, side // 4 : side // 2] = 255
    kinds = (("train/good", count * 3 // 5), ("test/good", count // 5), ("test/dent", count - count * 4 // 5))
    for kind, number in kinds:
        folder = root / "part" / kind
        folder.mkdir(parents=True)
        for index in range(number):
            file = folder / f"{index:05d}.png"
            if copies and index:
                shutil.copyfile(folder / "00000.png", file)
            else:
                small = rng.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
                save_png(file, np.kron(small, np.ones((8, 8, 1), np.uint8)))
            if kind == "test/dent":
                save_png(root / "part/ground_truth/dent" / f"{index:05d}_mask.png", mask)


def _seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
