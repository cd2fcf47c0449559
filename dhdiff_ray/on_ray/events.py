"""Events of a running job: one JSON object each, in its log and in the run's ``events.jsonl``.

Not in the paper. Decided: the job's driver is the only writer; workers send through one small actor, ``EventHub``, so
that it works on any storage. In a log an event is a line that starts with ``@event ``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, cast

import ray
from ray.actor import ActorHandle

from dhdiff_ray.on_ray.pool import RemoteMethod, beside_driver
from dhdiff_ray.run.events import FILE, PREFIX, SEGMENTS
from dhdiff_ray.run.folder import RunFolder

FLUSH_SECONDS = 10.0
"""How often events reach a storage that cannot append."""
SEGMENT_CHARACTERS = 200_000
"""Largest size of such a file, so that little is rewritten each time."""
PROGRESS_SECONDS = 1.0
"""Seconds between two reports of one training's progress."""


class Hub(Protocol):
    """A handle of :class:`EventHub`, for workers and the driver."""

    emit: RemoteMethod
    arrived: RemoteMethod
    drain: RemoteMethod


class Events:
    """Writes the events of one verb: to standard output, and appended to the run's ``events.jsonl``.

    Safe to use from several threads. Use it as a context manager, or call ``close()``.
    """

    def __init__(self, folder: RunFolder, verb: str) -> None:
        self.folder = folder
        self.verb = verb
        self._lock = threading.Lock()
        self._last_flush = time.monotonic()
        self._waiting = ""
        self._segment: str | None = None
        """The file that is written to, with what it holds, on a storage that cannot append."""
        self._text = ""

    def emit(self, event: str = "progress", **fields: Any) -> None:
        """Tell one event.

        Args:
            event: ``plan``, ``start``, ``progress``, ``metric``, ``warning``, ``failed``, ``verdict`` or ``done``.
            fields: plain JSON values; ``category``, ``done``, ``total`` and ``loss`` are drawn as a progress bar.
        """
        record = {"event": event, "verb": self.verb, **fields}
        record.setdefault("time", round(time.time(), 3))
        line = json.dumps(record, ensure_ascii=False, default=_plain) + "\n"
        with self._lock:
            sys.stdout.write(PREFIX + line)
            sys.stdout.flush()
            if self.folder.is_local:
                path = Path(self.folder.path(FILE))
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as stream:
                    stream.write(line)
                return
            self._waiting += line
            if time.monotonic() - self._last_flush >= FLUSH_SECONDS:
                self._flush()

    @contextlib.contextmanager
    def hub(self, every: float = 1.0) -> Iterator[Hub]:
        """An actor for workers to send through (``hub.emit.remote({...})``), emptied into this log by a thread."""
        handle = cast(Hub, EventHub.options(scheduling_strategy=beside_driver()).remote())
        stop = threading.Event()

        def pump() -> None:
            while not stop.wait(every):
                self.pump(handle)

        thread = threading.Thread(target=pump, name="events", daemon=True)
        thread.start()
        try:
            yield handle
        finally:
            stop.set()
            thread.join()
            self.pump(handle)
            ray.kill(cast(ActorHandle, handle))

    def pump(self, hub: Hub) -> int:
        """Write what workers sent since the last call; returns the number of events."""
        records = cast("list[dict[str, Any]]", ray.get(hub.drain.remote()))
        for record in records:
            self.emit(**record)
        return len(records)

    def close(self) -> None:
        """Write what is still waiting."""
        with self._lock:
            if self._waiting:
                self._flush()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _flush(self) -> None:
        """An object store cannot append: the last file is rewritten until it is large, then a new one begins."""
        if self._segment is None:
            self._segment = max([FILE, *self.folder.files(SEGMENTS)], key=lambda name: (name != FILE, name))
            self._text = self.folder.read_bytes(self._segment).decode() if self.folder.exists(self._segment) else ""
        if len(self._text) >= SEGMENT_CHARACTERS:
            number = 0 if self._segment == FILE else int(Path(self._segment).stem) + 1
            self._segment, self._text = f"{SEGMENTS}/{number:06d}.jsonl", ""
        self._text += self._waiting
        self._waiting = ""
        self.folder.write_bytes(self._segment, self._text.encode())
        self._last_flush = time.monotonic()


class Relay(Events):
    """Events from inside a task: they go to the mailbox of the job's driver, the only writer."""

    def __init__(self, folder: RunFolder, verb: str, hub: Hub) -> None:
        super().__init__(folder, verb)
        self._hub = hub

    def emit(self, event: str = "progress", **fields: Any) -> None:
        """Send one event; numpy's and torch's numbers become plain ones first."""
        record = json.loads(json.dumps({"event": event, "verb": self.verb, **fields}, default=_plain))
        self._hub.emit.remote(record)

    @contextlib.contextmanager
    def hub(self, every: float = 1.0) -> Iterator[Hub]:
        """The driver's own mailbox."""
        yield self._hub


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class EventHub:
    """Mailbox between workers and the driver; takes no core.

    It runs on the driver's node, so that the loss of another node does not end the job. If it dies alone it is started
    again empty, and a second of progress is lost.
    """

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []

    def emit(self, event: dict[str, Any]) -> None:
        """Put one event in; its time is the sender's, if given."""
        self._events.append({"time": round(time.time(), 3), **event})

    def arrived(self) -> None:
        """Answers when all that the asking process sent before is in."""

    def drain(self) -> list[dict[str, Any]]:
        """Take everything out."""
        taken, self._events = self._events, []
        return taken


class Teller:
    """Sends the progress of one training to the driver; the name labels its progress bar."""

    def __init__(self, hub: Hub, verb: str, name: str, steps: int) -> None:
        self._send = lambda **event: hub.emit.remote({"verb": verb, "category": name, **event})
        self._steps = steps
        self._last = 0.0

    def __call__(self, done: int, loss: float | None = None) -> None:
        """Tell the steps done, at most once a second and after the last."""
        now = time.monotonic()
        if done == self._steps or now - self._last >= PROGRESS_SECONDS:
            self._last = now
            loss = None if loss is None else round(loss, 5)
            self._send(event="progress", done=done, total=self._steps, loss=loss)

    def warn(self, message: str) -> None:
        """Send a warning."""
        self._send(event="warning", message=message)


def _plain(value: Any) -> Any:
    """Numpy and torch scalars as Python numbers; anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
