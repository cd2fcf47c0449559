"""The format of events: one JSON object per event, in a job's log and in the run's ``events.jsonl``.

Not in the paper. In a log an event is a line that starts with ``@event ``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, NoReturn

from dhdiff_ray.run.folder import RunFolder

REFUSED = 78
"""Exit code of a job whose configuration was refused (sysexits' EX_CONFIG); libraries such as MKL exit with 2 too."""
PREFIX = "@event "
FILE = "events.jsonl"
SEGMENTS = "events"
"""Folder of further files, in order, on a storage that cannot append."""


def tell(record: dict[str, Any]) -> None:
    """Write one event into this process' log alone."""
    sys.stdout.write(PREFIX + json.dumps(record, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def end_at_once(message: str) -> NoReturn:
    """Tell why and end the process from any thread, with the exit code of a failed job and without unwinding."""
    tell({"event": "failed", "message": message, "code": 1})
    os._exit(1)


def event_of(line: str) -> dict[str, Any] | None:
    """The event in a line of a job's log; None if the line is none."""
    if not line.startswith(PREFIX):
        return None
    try:
        event = json.loads(line[len(PREFIX) :])
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def read_events(folder: RunFolder) -> list[dict[str, Any]]:
    """All events of a run, oldest first; a line cut short by a crash is left out."""
    files = [FILE] * folder.exists(FILE) + list(folder.files(SEGMENTS))
    records = []
    for file in files:
        for line in folder.read_bytes(file).decode(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                records.append(json.loads(line))
    return records
