"""One job at a time works on a run: a lease in the run's folder, kept alive by whoever holds it.

Not in the paper. Decided: a file, because two submissions may go to two clusters that know nothing of each other. It
tells who holds it and is renewed every few seconds; one whose holder is seen to be dead, or that has not been renewed
for half a minute, is taken over, so that the rerun after a crash needs no hand. A holder that was only frozen, or cut
off, finds another's name in the file when it comes back, and its process ends there and then: whatever unwinds on the
way out may write, and Ray ends the workers of a driver that is gone. Whoever takes a run over from one that is only
silent first leaves a mark with its token: one that was frozen, starved or kept waiting by a disk between looking and
writing, and wrote over whatever was there, knows at once whether it had lost the run; if so, the one that took over
writes its own name again. A file that cannot be read, or a whole folder that is away, says nothing; a file that is gone
is written again while nobody can have held the run in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from dhdiff_ray.run.events import end_at_once
from dhdiff_ray.run.folder import RunFolder

FILE = "lease.json"
RENEW_SECONDS = 5.0
STALE_SECONDS = 30.0
"""Silence after which a holder counts as dead."""
SETTLE_SECONDS = 0.5
"""Wait before looking who won, where two can write at once."""

Holder = dict[str, Any]


@contextlib.contextmanager
def lease(
    folder: RunFolder,
    stale: float = STALE_SECONDS,
    renew: float = RENEW_SECONDS,
    lost: Callable[[str], object] | None = None,
) -> Iterator[None]:
    """Hold the run while the block runs.

    Args:
        folder: the run.
        stale: seconds of silence after which another holder counts as dead; waited for if it may be.
        renew: seconds between signs of life.
        lost: called with one line, from a thread, when another job has taken the run over; None ends the process.

    Raises:
        ValueError: another job works on the run; it says which and how to follow it.
    """
    mine = _me()
    _take(folder, mine, stale)
    stop = threading.Event()
    arguments = (folder, mine, stop, renew, stale, lost or end_at_once)
    keeper = threading.Thread(target=_keep, args=arguments, name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()
        if (holder(folder) or {}).get("token") == mine["token"]:
            folder.delete(FILE)


def _take(folder: RunFolder, mine: Holder, stale: float) -> None:
    """Wait for the run, or raise; ``mine`` gets another token where somebody else was faster."""
    seen: tuple[Any, float] = (None, 0.0)
    while True:
        if folder.create(FILE, _bytes(mine)):
            if not folder.is_local:
                time.sleep(SETTLE_SECONDS)
            if (holder(folder) or {}).get("token") == mine["token"]:
                return
            mine["token"] = secrets.token_hex(8)  # whoever was faster may have marked this one
            continue
        other = holder(folder)
        if other is None:
            continue  # it was given back just now
        sign = (other["token"], other["beat"])
        now = time.monotonic()
        if sign != seen[0]:
            alive = seen[0] is not None and seen[0][0] == sign[0]  # it gave a sign of life while we watched
            if alive or _running(other):
                who, follow = _who(other)
                raise ValueError(f"{who} works on the run {folder.uri} already{follow}. Wait for it, or stop it first")
            seen = (sign, now)
        elapsed = now - seen[1]
        if _running(other) is False or elapsed >= stale:
            if holder(folder) == other:
                if _running(other) is not False:
                    folder.write_bytes(_mark(other), _bytes(mine))
                folder.delete(FILE)
            continue
        time.sleep(min(1.0, stale / 10))


def _keep(
    folder: RunFolder,
    mine: Holder,
    stop: threading.Event,
    renew: float,
    stale: float,
    lost: Callable[[str], object],
) -> None:
    """Renew until told to stop or the run is another's; a disk that is full or away is not the lease's to tell."""
    beat = mine["beat"]
    while not stop.wait(renew):
        now = time.time()
        try:
            kept = _renew(folder, mine | {"beat": now}, now - beat < stale)
        except (OSError, ValueError):  # ValueError: not all of it could be read
            continue
        if kept:
            beat = now
        elif kept is False and not stop.is_set():
            lost(_lost(folder, mine))
            return


def _renew(folder: RunFolder, mine: Holder, fresh: bool) -> bool | None:
    """One sign of life; says whether the run is ours still, None if nothing can be said.

    Args:
        folder: the run.
        mine: what to write.
        fresh: whether the last sign is so young that nobody can have taken the run over since.
    """
    current = holder(folder)
    if current is not None and (current["token"] == mine["token"] or folder.exists(_mark(current))):
        folder.write_bytes(FILE, _bytes(mine))
        return not folder.exists(_mark(mine))  # it may have been taken over since we looked
    if current is None and fresh:
        away = folder.is_local and not folder.exists()  # else its place would be made anew on whatever lies below
        return None if away or not folder.create(FILE, _bytes(mine)) else True
    time.sleep(SETTLE_SECONDS)  # a store may show for a moment what was there before
    again = holder(folder)
    if again is None:
        return None if folder.is_local and not folder.exists() else False
    return None if again["token"] == mine["token"] else False


def _lost(folder: RunFolder, mine: Holder) -> str:
    who, follow = "another job", ""
    with contextlib.suppress(OSError, ValueError):
        other = holder(folder)
        if other is None or other["token"] == mine["token"]:
            other = holder(folder, _mark(mine))
        who, follow = _who(other) if other else (who, follow)
    return (
        f"{who} took over the run {folder.uri} while this job gave no sign of life (frozen, or cut off from its "
        f"storage); it ends here, before it writes more{follow}"
    )


def _me() -> Holder:
    now = time.time()
    process = psutil.Process()
    return {
        "token": secrets.token_hex(8),
        "job": _job_id(),
        "host": socket.gethostname(),
        "boot": psutil.boot_time(),
        "processes": _namespace(),
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


def _namespace() -> str:
    """Which numbers processes have: those of a container are its own, though its host's name may be another's too."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115  no path
    except OSError:
        return ""


def _here(other: Holder) -> bool:
    if other.get("processes", _namespace()) != _namespace():
        return False
    return other["host"] == socket.gethostname() and abs(other["boot"] - psutil.boot_time()) < 5


def _running(other: Holder) -> bool | None:
    """Whether a holder of this machine still runs; None for one of another machine."""
    if not _here(other):
        return None
    try:
        process = psutil.Process(other["pid"])
        started = process.create_time() - psutil.boot_time()  # since the machine's start: clocks may be set meanwhile
        same = abs(started - (other["process_started"] - other["boot"])) < 2
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _who(other: Holder) -> tuple[str, str]:
    """Names a holder, and says how to follow it, if it is a job."""
    who = f"job {other['job']}" if other["job"] else f"process {other['pid']}"
    follow = f"; follow it: dhdiff-ray jobs logs --follow {other['job']}" if other["job"] else ""
    return f"{who} on {other['host']}", follow


def _mark(other: Holder) -> str:
    """Where whoever took a run over from this silent holder says so."""
    return f"lease-lost/{other['token']}.json"


def holder(folder: RunFolder, file: str = FILE) -> Holder | None:
    """Who holds the run, or None."""
    try:
        return json.loads(folder.read_bytes(file))
    except FileNotFoundError:
        return None


def _bytes(value: Holder) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
