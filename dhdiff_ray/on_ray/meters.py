"""Our metrics for a Prometheus that scrapes the cluster; ``cluster/grafana.json`` draws them.

Not in the paper. Decided: Ray's own exporter serves them (with the prefix ``ray_``), so nothing of ours listens on
a port. A metric is made in the process that counts.
"""

from __future__ import annotations

from functools import cache

from ray.util.metrics import Counter, Gauge, Histogram

SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
"""Bounds of the histogram of seconds per pair."""


class _Meters:
    def __init__(self) -> None:
        self.pairs = Counter("dhdiff_pairs_total", "Pairs made.", tag_keys=("run", "category"))
        failures = "Units and stages that failed."
        self.failures = Counter("dhdiff_failures_total", failures, tag_keys=("verb", "category"))
        seconds = "dhdiff_seconds_per_pair"
        self.seconds = Histogram(seconds, "Seconds per pair.", boundaries=SECONDS, tag_keys=("category",))
        self.memory = Gauge("dhdiff_gpu_memory_bytes", "Most GPU memory of a worker.", tag_keys=("category",))


_meters = cache(_Meters)


def made(run: str, category: str, pairs: int, seconds: float) -> None:
    """Count finished pairs, and the seconds that one took."""
    _meters().pairs.inc(pairs, tags={"run": run, "category": category})
    _meters().seconds.observe(seconds / max(pairs, 1), tags={"category": category})
    memory(category)


def failed(verb: str, category: str) -> None:
    """Count a unit or stage that failed."""
    _meters().failures.inc(1, tags={"verb": verb, "category": category})


def memory(category: str) -> None:
    """Report this process' peak GPU memory in bytes; nothing without a GPU."""
    import torch  # the job's driver counts failures and needs none of it

    if torch.cuda.is_available():
        _meters().memory.set(torch.cuda.max_memory_allocated(), tags={"category": category})
