"""Is a run that was killed over and over, and begun again each time, the run that nobody disturbed?

    python -m benchmarks.killed [--kills 5] [--steps 60] [--seed 0] [--result FILE]

``submit all`` on drawn images, once undisturbed and once killed with SIGKILL, command, cluster and all, at random
moments; then every file whose bytes may not depend on that is compared. Leaves with 1 if one differs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

RESULT = Path(__file__).parent / "results" / "killed.json"
TIMES = {"seconds"}
"""What of a file of figures says how long something took."""


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--result", type=Path, default=RESULT)
    asked = arguments.parse_args()
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory(prefix="dhdiff-") as temporary:
        from dhdiff_ray.data.datasets.procedural import generate

        root = Path(temporary) / "images"
        generate(root, resolution=64, defects_per_type=8, train_good=8, test_good=4)
        start = time.monotonic()
        _run(temporary, root, "whole", asked.steps)
        whole = time.monotonic() - start
        print(f"undisturbed: {whole:.0f} s", flush=True)
        moments = []
        for _ in range(asked.kills):
            moment = draw.uniform(0.15, 0.9) * whole
            ended = _run(temporary, root, "killed", asked.steps, moment)
            moments.append(round(moment, 1))
            print(f"killed after {moment:.0f} s" + (" (it had ended)" if ended else ""), flush=True)
        start = time.monotonic()
        _run(temporary, root, "killed", asked.steps)
        last = time.monotonic() - start
        one, two = (_digests(Path(temporary) / "runs" / name) for name in ("whole", "killed"))
    different = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    figures = {
        "kills": asked.kills,
        "killed_after_seconds": moments,
        "undisturbed_seconds": round(whole, 1),
        "last_rerun_seconds": round(last, 1),
        "files_compared": len(one),
        "files_that_differ": different,
        "training_steps": asked.steps,
        "seed": asked.seed,
    }
    asked.result.parent.mkdir(exist_ok=True)
    asked.result.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    raise SystemExit(1 if different or not one else 0)


def _run(storage: str, root: Path, name: str, steps: int, kill_after: float | None = None) -> bool:
    """Submit the line; kill it after so many seconds, if it still runs. Says whether it ended by itself."""
    words = [sys.executable, "-m", "dhdiff_ray", "submit", "all", "--dataset", "procedural", "--preset", "tiny"]
    words += ["--root", str(root), "--run", name, "--storage", f"{storage}/runs", "-n", "8"]
    for value in (f"train.steps={steps}", f"train.checkpoint_every={max(1, steps // 4)}", "detect.steps=60"):
        words += ["--set", value]
    mark = f"killed-{os.getpid()}-{time.monotonic_ns()}"
    log = Path(storage) / f"{name}.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            words, env=os.environ | {"DHDIFF_KILLED": mark}, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            code = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            _kill_all(process.pid, mark)
            return False
    if code:
        print(log.read_text()[-3000:])
        raise SystemExit(f"submit all left with {code}")
    return True


def _kill_all(pid: int, mark: str) -> None:
    """SIGKILL to the command and to everything that came of it, the way a machine that goes down does."""
    for _ in range(3):
        ours = [p for p in psutil.process_iter() if p.pid != os.getpid() and _is_ours(p, pid, mark)]
        for process in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(ours, timeout=10)


def _is_ours(process: psutil.Process, pid: int, mark: str) -> bool:
    """Ray's workers overwrite their environment: then it is that of a parent that counts."""
    with contextlib.suppress(psutil.Error, OSError):
        family = [process, *process.parents()]
        return any(p.pid == pid or p.environ().get("DHDIFF_KILLED") == mark for p in family)
    return False


def _digests(run: Path) -> dict[str, str]:
    """Hash of every pair, model and figure of a run."""
    found = {}
    for file in sorted(run.rglob("*")):
        name = file.relative_to(run).as_posix()
        kept = name.startswith(("pairs/", "models/")) or name in ("split.json", "scores.json", "detection.json")
        if file.is_file() and kept and not name.endswith("README.md"):
            data = file.read_bytes()
            if name.endswith(".json") and "/" not in name:
                data = json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
            found[name] = hashlib.sha256(data.replace(run.name.encode(), b"RUN")).hexdigest()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
