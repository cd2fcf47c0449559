"""A few loaded models at a time: least recently used leaves first, and never while it is in use.

Not in the paper. Decided: our own in place of ``serve.multiplexed``'s, which takes a model from under the request that
uses it; one load at a time, so that memory never holds two half-loaded ones.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class _Held:
    model: Any
    users: int = 0


class ModelCache:
    """Models by key; safe to use from several threads.

    Args:
        load: makes the model of a key.
        size: models held; one more stays only while every one of them is in use.
    """

    def __init__(self, load: Callable[[Any], Any], size: int) -> None:
        self.load, self.size = load, size
        self._held: OrderedDict[Hashable, _Held] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    @contextlib.contextmanager
    def using(self, key: Hashable) -> Iterator[Any]:
        """The key's model, loaded if it is not there; it stays at least until the block ends."""
        held = self._take(key)
        if held is None:
            with self._loading:
                held = self._take(key)  # somebody may have loaded it while we waited
                if held is None:
                    self._make_room()
                    held = _Held(self.load(key), users=1)
                    with self._lock:
                        self._held[key] = held
        try:
            yield held.model
        finally:
            with self._lock:
                held.users -= 1
            self._make_room(0)

    @property
    def keys(self) -> list[Hashable]:
        """What is held, the least recently used first."""
        with self._lock:
            return list(self._held)

    def _take(self, key: Hashable) -> _Held | None:
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                held.users += 1
                self._held.move_to_end(key)
            return held

    def _make_room(self, wanted: int = 1) -> None:
        with self._lock:
            for key in [key for key, held in self._held.items() if not held.users]:
                if len(self._held) + wanted <= self.size:
                    return
                del self._held[key]
