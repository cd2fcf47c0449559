"""A private one-machine Ray cluster that lives exactly as long as one command.

Not in the paper. Decided: in-process through ``ray.init(address="local")``, so that even a killed command takes its
cluster along (at once, but for two small helpers that Ray ends within a minute); its own random token, handed down by
environment, so that nothing is written to the home folder; its own folder and ports, so that two on one machine never
meet. ``ray stop`` is never called: it would stop everyone's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dhdiff_ray.on_ray.ray_private import forget_token, free_agent_port, write_cluster_address

MARK = "DHDIFF_CLUSTER"
"""Environment variable that all processes of one cluster inherit; by it we know our own."""

JOB_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_COLOR_PREFIX": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "10",
}
"""Ray's settings for every job: lost workers are noticed early, no usage statistics are sent."""

PATIENCE = {"RAY_DASHBOARD_STARTUP_TIMEOUT_S": "180"}
"""A busy machine takes longer to start Ray than the minute Ray gives it; counts if ``ray`` is not imported yet."""

STARTS = 2
"""Ray gives its node 30 s to come up, whatever the machine is doing; then we try once more."""

SHUT_DOWN_SECONDS = 15
"""Ray ends within 4 s; for a process that no longer answers it would wait for minutes."""

LONGEST_TEMP = 20
"""Ray puts sockets up to 87 characters below it, and a socket's path may have 107."""


class ClusterError(RuntimeError):
    """A cluster that cannot be started, reached or used; the message says what to type next."""


@dataclass(frozen=True)
class LocalCluster:
    """A running private cluster."""

    address: str
    """Address of the Jobs API, ``http://127.0.0.1:PORT``."""
    folder: Path
    """Short-lived folder of this cluster: sockets, logs, configurations of its jobs."""

    def processes(self) -> list[psutil.Process]:
        """Every process of the cluster, without the calling one."""
        return processes_of(self.folder.name)


def auth_env() -> None:
    """Make Ray's clients send the token they have; call before ``ray`` is imported.

    Ray 2.59+ turns tokens on for its clusters by default but its clients stay silent unless ``RAY_AUTH_MODE`` is set.
    """
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if "RAY_AUTH_MODE" not in os.environ and (os.environ.get("RAY_AUTH_TOKEN") or file.exists()):
        os.environ["RAY_AUTH_MODE"] = "token"
        forget_token()


@contextlib.contextmanager
def local_cluster(num_cpus: int | None = None) -> Iterator[LocalCluster]:
    """Start a private cluster, yield it, and leave no process and no file of it behind.

    Args:
        num_cpus: cores to offer; None takes all.

    Raises:
        ClusterError: Ray did not start; the message has Ray's own words.
    """
    base = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="dhdiff-", dir=base if len(base) <= LONGEST_TEMP else "/tmp"))
    before = dict(os.environ)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN_PATH", "OMP_NUM_THREADS"):
        os.environ.pop(name, None)  # cores are shared out by Ray, which sets OMP_NUM_THREADS for each worker
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.update(JOB_ENVIRONMENT | PATIENCE | token | {MARK: folder.name})
    forget_token()
    with _handled(interrupt, signal.SIGTERM) as arm:  # SIGTERM ends the command the way Ctrl-C does
        try:
            address = _start(folder, num_cpus)
            arm()  # Ray has put its own handler, which dies on the spot
            yield LocalCluster(address, folder)
        finally:
            with _handled(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C leaves no half a cluster
                _shut_down(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.environ.clear()
                os.environ.update(before)
                forget_token()


def _start(folder: Path, num_cpus: int | None) -> str:
    import ray

    if ray.is_initialized():
        raise ClusterError("this process is already connected to a Ray cluster; call ray.shutdown() first")
    for attempt in range(STARTS):
        settings: dict[str, Any] = {
            "address": "local",  # without it ray.init joins any cluster it finds
            "num_cpus": num_cpus,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": free_port(),
            "object_store_memory": 200 * 2**20,  # images travel through files, so little is needed
            "log_to_driver": False,
            "logging_level": "ERROR",
            "_temp_dir": str(folder / f"r{attempt}"),  # Ray opens its folder to everybody; the one above is ours alone
        }
        try:
            with free_agent_port():
                context = ray.init(**settings)
            write_cluster_address(ray.get_runtime_context().gcs_address, settings["_temp_dir"])
            return f"http://{context.dashboard_url}"
        except Exception as error:  # Ray raises bare ones here
            if attempt + 1 == STARTS:
                raise ClusterError(
                    f"Ray did not start on this machine ({str(error).strip() or type(error).__name__}). Is it busy, or "
                    "out of memory? Try again, or look with: dhdiff-ray doctor"
                ) from error
            _shut_down(folder)
    raise AssertionError("the last attempt returns or raises")


def free_port(host: str = "127.0.0.1") -> int:
    """A port of an address of this machine that nobody listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _shut_down(folder: Path) -> None:
    """Shut Ray down; kill it if that takes too long, and kill processes of ours that are left 3 s later."""
    started = processes_of(folder.name)
    impatient = threading.Timer(SHUT_DOWN_SECONDS, lambda: _kill(processes_of(folder.name)))
    impatient.daemon = True
    impatient.start()
    try:
        if "ray" in sys.modules:
            import ray

            ray.shutdown()
    finally:
        impatient.cancel()
        end(list({*started, *processes_of(folder.name)}), 3)


def end(processes: list[psutil.Process], seconds: float) -> None:
    """Wait for processes that were told to end, and kill those left after so many seconds."""
    _kill(psutil.wait_procs(processes, timeout=seconds)[1])
    psutil.wait_procs(processes, timeout=3)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def processes_of(mark: str) -> list[psutil.Process]:
    """Processes that carry the mark in their environment, and everything below them.

    Ray's workers rename themselves and lose their readable environment, hence the second half.
    """
    ours: dict[int, psutil.Process] = {}
    others: list[tuple[int, psutil.Process]] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid():
                continue
            if process.environ().get(MARK) == mark:
                ours[process.pid] = process
            else:
                others.append((process.ppid(), process))
    grown = True
    while grown:
        below = {process.pid: process for parent, process in others if parent in ours and process.pid not in ours}
        ours |= below
        grown = bool(below)
    return [ours[pid] for pid in sorted(ours)]


def interrupt(*_: object) -> None:
    """A signal handler that does what Ctrl-C does."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(handler: Any, *numbers: signal.Signals) -> Iterator[Callable[[], object]]:
    """Signals go to the handler, where this is the main thread; call what is given to put it in place again."""
    ours = numbers if threading.current_thread() is threading.main_thread() else ()
    arm = lambda: {number: signal.signal(number, handler) for number in ours}  # noqa: E731
    before = arm()
    try:
        yield arm
    finally:
        for number, original in before.items():
            signal.signal(number, original)
