"""How long something may take that has not told how long it takes: a pool's unit, a training's step.

Not in the paper. Decided: so many times the longest so far, so that no number is right for one machine alone.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

FIRST_SECONDS = 1800.0
"""How long one may take while nobody knows how long one takes."""
LEAST_SECONDS = 300.0
TIMES_LONGEST = 20.0
"""How long one may take after that: so many times the longest so far; all of a wait ``LEAST_SECONDS`` at least."""
TOLD_SECONDS = 1.0
"""What the last words of a process get to leave it."""


def longest_wait(asked: float, longest: float, number: int = 1) -> float:
    """Seconds that the next ones may take together.

    Args:
        asked: what one may take; 0 follows the longest so far.
        longest: seconds of the longest one so far; 0 for none.
        number: how many there are in a row.
    """
    each = asked or (TIMES_LONGEST * longest if longest else FIRST_SECONDS)
    return each * number if asked else max(LEAST_SECONDS, each * number)


class Watchdog:
    """Ends this process when no step is done for too long; whoever started it goes on from the last checkpoint.

    A process that is stopped as a whole cannot watch itself: Ray Train asks it for a sign of life.

    Args:
        asked: longest that a step may take; 0 follows the steps so far.
        tell: takes the reason, before the end.
        end: ends the process.
    """

    def __init__(self, asked: float, tell: Callable[[str], object], end: Callable[[int], object] = os._exit) -> None:
        self.asked, self.tell, self.end = asked, tell, end
        self._longest, self._last = 0.0, time.monotonic()
        self._least = 0.0
        """How long there is at least, for what is no step."""
        self._done = threading.Event()

    def __enter__(self) -> Watchdog:
        self._last = time.monotonic()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def step(self) -> None:
        """A step is done."""
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now

    @contextlib.contextmanager
    def between_steps(self) -> Iterator[None]:
        """What is done in the block, such as a checkpoint, may take as long as a first step, and counts for none."""
        self._least = FIRST_SECONDS
        try:
            yield
        finally:
            self._last, self._least = time.monotonic(), 0.0

    def _watch(self) -> None:
        while True:
            limit = max(longest_wait(self.asked, self._longest), self._least)
            if self._done.wait(min(1.0, limit / 4)):
                return
            if time.monotonic() - self._last > limit:
                break
        with contextlib.suppress(Exception):  # whoever listens may be gone; the worker ends all the same
            self.tell(
                f"no step was done for {limit:.0f} s: this worker ends, and training goes on from its last checkpoint"
            )
        time.sleep(TOLD_SECONDS)
        self.end(1)
