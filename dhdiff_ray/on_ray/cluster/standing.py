"""A cluster on this machine that stays until it is taken down: ``dhdiff-ray cluster up``.

Not in the paper. Decided: Ray's own ``ray start --head --block`` in a session of its own, on loopback, with a token
that only its owner may read and a temporary folder of its own; what was started is written down, and only that is
stopped again: ``ray stop`` would stop every Ray on the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from dhdiff_ray.on_ray.cluster.local import JOB_ENVIRONMENT, MARK, ClusterError, end, free_port, processes_of

UP_SECONDS = 300.0
DOWN_SECONDS = 10.0


@dataclass(frozen=True)
class Standing:
    """A cluster that was started, as recorded in the state folder."""

    address: str
    """Address of the Jobs API, ``http://127.0.0.1:PORT``."""
    token_file: Path
    """File with its token, mode 0600."""
    folder: Path
    """Ray's temporary folder: sockets and logs."""
    pid: int
    """Process id of ``ray start``."""
    since: float
    """Seconds since the epoch."""

    def processes(self) -> list[psutil.Process]:
        """All its processes that run now."""
        return processes_of(self.folder.name)


def state_folder() -> Path:
    """Folder that records the standing cluster."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "dhdiff-ray"


def standing() -> Standing | None:
    """The standing cluster if it still runs, or None."""
    cluster = _written()
    return cluster if cluster is not None and cluster.processes() else None


def up(num_cpus: int | None = None, port: int = 0) -> Standing:
    """Start a cluster that stays.

    Args:
        num_cpus: cores to offer; None takes all.
        port: of the Jobs API; 0 picks a free one.

    Raises:
        ClusterError: one stands already, or Ray did not start.
    """
    there = standing()
    if there is not None:
        raise ClusterError(f"a cluster stands already at {there.address}; take it down first: dhdiff-ray cluster down")
    down()  # the folder of one that died by itself
    state = state_folder()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = _private(state / "token", secrets.token_hex(32))
    folder = Path(tempfile.mkdtemp(prefix="dhdiff-up-", dir="/tmp" if Path("/tmp").is_dir() else None))
    port = port or free_port()
    words = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port=0"]
    words += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--dashboard-agent-listen-port=0"]
    words += ["--node-ip-address=127.0.0.1", "--disable-usage-stats", f"--temp-dir={folder / 'r'}"]
    words += [f"--num-cpus={num_cpus}"] if num_cpus is not None else []
    outer = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "OMP_NUM_THREADS")}
    ours = {MARK: folder.name, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    log = folder / "ray-start.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=outer | JOB_ENVIRONMENT | ours,
            start_new_session=True,
        )
    cluster = Standing(f"http://127.0.0.1:{port}", token, folder, process.pid, round(time.time(), 1))
    limit = time.monotonic() + UP_SECONDS
    while not _answers(cluster.address, token):
        if process.poll() is not None or time.monotonic() > limit:
            ended = process.poll() is not None
            why = f": {_last_line(log)}" if ended else f" within {UP_SECONDS:.0f} s. Is it busy, or out of memory?"
            _end(cluster)
            raise ClusterError(f"Ray did not start on this machine{why} Try again, or look with: dhdiff-ray doctor")
        time.sleep(0.5)
    (state / "cluster.json").write_text(json.dumps(asdict(cluster), indent=2, default=str) + "\n")
    return cluster


def down() -> Standing | None:
    """Stop what :func:`up` started and nothing else, and remove its folder; None if there is no standing cluster."""
    there, written = standing(), _written()
    if written is not None:
        _end(written)
    (state_folder() / "cluster.json").unlink(missing_ok=True)
    return there


def _written() -> Standing | None:
    """The recorded cluster, whether it still runs or not."""
    file = state_folder() / "cluster.json"
    if not file.is_file():
        return None
    record = json.loads(file.read_text())
    return Standing(**record | {name: Path(record[name]) for name in ("token_file", "folder")})


def _end(cluster: Standing) -> None:
    there = cluster.processes()
    for process in there:
        if process.pid == cluster.pid:  # `ray start --block` ends what it started; its number may be another's by now
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
    end(there, DOWN_SECONDS)
    end(cluster.processes(), 0)
    shutil.rmtree(cluster.folder, ignore_errors=True)


def _last_line(log: Path) -> str:
    """What a program said last, as one sentence of at most 300 characters."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return (lines[-1].strip()[:300].rstrip(".") + ".") if lines else "it said nothing."


def _private(file: Path, text: str) -> Path:
    """A file that only its owner may read, from its first moment on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    return file


def _answers(address: str, token: Path) -> bool:
    """Whether the Jobs API answers with our token and the node has joined: until then there is room for nothing."""
    headers = {"Authorization": f"Bearer {token.read_text()}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{address}/api/jobs/", headers=headers), timeout=5):
            pass
        asked = urllib.request.Request(f"{address}/api/v0/nodes", headers=headers)
        with urllib.request.urlopen(asked, timeout=5) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
    except OSError:
        return False
    return any(node["state"] == "ALIVE" for node in nodes)
