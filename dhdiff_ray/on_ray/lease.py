"""One job at a time works on a run: a lease in the run's folder, kept alive by whoever holds it.

Not in the paper. Decided: a file, because two submissions may go to two clusters that know nothing of each other. It
tells who holds it and is renewed every few seconds; one whose holder is seen to be dead, or that has not been renewed
for half a minute, is taken over, so that the rerun after a crash needs no hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil

from dhdiff_ray.storage import RunFolder

FILE = "lease.json"
RENEW_SECONDS = 5.0
STALE_SECONDS = 30.0
"""Silence after which a holder counts as dead."""
SETTLE_SECONDS = 0.5
"""Wait before looking who won, where two can write at once."""

Holder = dict[str, Any]


@contextlib.contextmanager
def lease(folder: RunFolder, stale: float = STALE_SECONDS, renew: float = RENEW_SECONDS) -> Iterator[None]:
    """Hold the run while the block runs.

    Args:
        folder: the run.
        stale: seconds of silence after which another holder counts as dead; waited for if it may be.
        renew: seconds between signs of life.

    Raises:
        ValueError: another job works on the run; it says which and how to follow it.
    """
    mine = _me()
    _take(folder, mine, stale)
    stop = threading.Event()
    keeper = threading.Thread(target=_keep, args=(folder, mine, stop, renew), name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()
        if (_read(folder) or {}).get("token") == mine["token"]:
            folder.delete(FILE)


def holder(folder: RunFolder) -> Holder | None:
    """Who holds the run, or None."""
    return _read(folder)


def _take(folder: RunFolder, mine: Holder, stale: float) -> None:
    seen: tuple[Any, float] = (None, 0.0)
    while True:
        if folder.create(FILE, _bytes(mine)):
            if not folder.is_local:
                time.sleep(SETTLE_SECONDS)
            if (_read(folder) or {}).get("token") == mine["token"]:
                return
            continue
        other = _read(folder)
        if other is None:
            continue  # it was given back just now
        sign = (other["token"], other["beat"])
        now = time.monotonic()
        if sign != seen[0]:
            if seen[0] is not None and seen[0][0] == sign[0]:
                raise ValueError(_taken(folder, other))  # it gave a sign of life while we watched
            if _alive(other):
                raise ValueError(_taken(folder, other))
            seen = (sign, now)
        elapsed = now - seen[1]
        if _dead(other) or elapsed >= stale:
            if _read(folder) == other:
                folder.delete(FILE)
            continue
        time.sleep(min(1.0, stale / 10))


def _keep(folder: RunFolder, mine: Holder, stop: threading.Event, renew: float) -> None:
    """Renew until told to stop; a disk that is full or gone for a while is not the lease's to tell."""
    while not stop.wait(renew):
        with contextlib.suppress(OSError):
            if (_read(folder) or {}).get("token") == mine["token"]:
                folder.write_bytes(FILE, _bytes(mine | {"beat": time.time()}))


def _me() -> Holder:
    now = time.time()
    process = psutil.Process()
    return {
        "token": secrets.token_hex(8),
        "job": _job_id(),
        "host": socket.gethostname(),
        "boot": psutil.boot_time(),
        "pid": process.pid,
        "process_started": process.create_time(),
        "since": now,
        "beat": now,
    }


def _job_id() -> str:
    """Id of the Ray job this process drives; empty outside of one."""
    with contextlib.suppress(KeyError, json.JSONDecodeError):
        return json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"]
    return ""


def _here(other: Holder) -> bool:
    return other["host"] == socket.gethostname() and abs(other["boot"] - psutil.boot_time()) < 5


def _running(other: Holder) -> bool:
    """Whether a holder of this machine still runs."""
    try:
        process = psutil.Process(other["pid"])
        same = abs(process.create_time() - other["process_started"]) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _alive(other: Holder) -> bool:
    return _here(other) and _running(other)


def _dead(other: Holder) -> bool:
    return _here(other) and not _running(other)


def _taken(folder: RunFolder, other: Holder) -> str:
    who = f"job {other['job']}" if other["job"] else f"process {other['pid']}"
    follow = f"; follow it: dhdiff-ray jobs logs --follow {other['job']}" if other["job"] else ""
    return f"{who} on {other['host']} works on the run {folder.uri} already{follow}. Wait for it, or stop it first"


def _read(folder: RunFolder) -> Holder | None:
    try:
        return json.loads(folder.read_bytes(FILE))
    except FileNotFoundError:
        return None


def _bytes(value: Holder) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
