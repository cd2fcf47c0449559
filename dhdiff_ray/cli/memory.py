"""How much memory a private cluster took at its worst, the calling command included.

Decided: PSS, which counts a page shared by n processes as 1/n in each, so that the sum is what the machine gave;
where the kernel does not tell it (no ``smaps_rollup``), RSS, which counts shared pages again and again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

MEASURE = "PSS" if Path("/proc/self/smaps_rollup").exists() else "RSS"


class MemoryWatch:
    """Samples the sum over processes every few seconds (reading PSS takes time) while the context is open."""

    def __init__(self, pids: Callable[[], Iterable[int]], every: float = 5.0) -> None:
        """Watch.

        Args:
            pids: the processes to add to the calling one, asked anew for each sample.
            every: seconds between samples.
        """
        self.peak_bytes = 0
        self._pids, self._every = pids, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            total = sum(memory_of(pid) for pid in [os.getpid(), *self._pids()])
            self.peak_bytes = max(self.peak_bytes, total)
            if self._stop.wait(self._every):
                return


def memory_of(pid: int) -> int:
    """Bytes of one process by ``MEASURE``; 0 if it has ended or is somebody else's."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.memory_full_info().pss if MEASURE == "PSS" else process.memory_info().rss
    except psutil.Error:
        return 0
