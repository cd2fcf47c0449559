"""What a Prometheus that scrapes the cluster sees of us; ``cluster/grafana.json`` draws it.

Not in the paper. Decided: Ray's own exporter carries them (with ``ray_`` before the name), so that nothing of ours
listens on a port; made where they are counted, since a meter lives in its process.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge, Histogram

SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
"""Bounds of the histogram of seconds per pair."""


def made(run: str, category: str, pairs: int, seconds: float) -> None:
    """Count pairs that lie in the run, and what one of them took."""
    counter = _counter("dhdiff_pairs_total", "Pairs made.", "run", "category")
    counter.inc(pairs, tags={"run": run, "category": category})
    _seconds().observe(seconds / max(pairs, 1), tags={"category": category})
    memory(category)


def failed(verb: str, category: str) -> None:
    """Count a unit or stage that failed."""
    counter = _counter("dhdiff_failures_total", "Units and stages that failed.", "verb", "category")
    counter.inc(1, tags={"verb": verb, "category": category})


def memory(category: str) -> None:
    """Tell the most GPU memory this process has held, in bytes; nothing without a GPU."""
    import torch

    if torch.cuda.is_available():
        _memory().set(torch.cuda.max_memory_allocated(), tags={"category": category})


@functools.cache
def _counter(name: str, about: str, *tags: str) -> Counter:
    from ray.util.metrics import Counter

    return Counter(name, about, tag_keys=tags)


@functools.cache
def _seconds() -> Histogram:
    from ray.util.metrics import Histogram

    return Histogram("dhdiff_seconds_per_pair", "Seconds per pair.", boundaries=SECONDS, tag_keys=("category",))


@functools.cache
def _memory() -> Gauge:
    from ray.util.metrics import Gauge

    return Gauge("dhdiff_gpu_memory_bytes", "Most GPU memory of a worker.", tag_keys=("category",))
