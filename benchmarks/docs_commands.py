"""Run every command of README and docs, in order, on tiny drawn data, and say which could not be run here and why.

``python -m benchmarks.docs_commands --out docs_commands.md [--only docs/serve.md] [--taef2 FOLDER]``

Lines are run as they stand there, by a shell, in a temporary folder, but for the replacements in ``INSTEAD`` (places
and numbers); what is left is made small by ``DHDIFF__...`` variables. Pages of one group share runs, data and one Ray.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dhdiff_ray.data.encode import save_jpeg, save_png
from dhdiff_ray.data.examples import noise, spoiled
from dhdiff_ray.data.registry import open_dataset

ROOT = Path(__file__).parent.parent
GROUPS = (
    ("README.md",),
    ("docs/getting-started.md",),
    ("docs/your-data.md",),
    ("docs/train.md", "docs/make-pairs.md", "docs/scores.md", "docs/serve.md"),
    ("docs/clusters.md",),
    ("CONTRIBUTING.md", "jobs/README.md", "cluster/README.md"),
)
ONE_RAY = ("README.md", "docs/getting-started.md", "docs/train.md")
"""First pages of the groups whose jobs go to one Ray, to save its starts, until a page starts its own: ``--address
local`` is added."""
BEFORE = {
    "README.md": ("dhdiff-ray data make --root data/drawn",),
    "docs/make-pairs.md": ("cp -r runs/first runs/other", "cp -r runs/first runs/large"),
}
"""What a page asks for in a sentence, and stands in for what it takes as given."""
SMALL = {
    "TRAIN__STEPS": "6",
    "DETECT__STEPS": "4",
    "DETECT__BATCH_SIZE": "4",
    "SCORE__SPLITS": "2",
    "SYNTHESIZE__PAIRS_PER_DEFECT": "2",
    "SYNTHESIZE__STEPS": "2",
}
INSTEAD = (
    (r"/data/mine\b|\bDIR\b", "{data}/folder"),
    (r"/data/mvtec\b|/shared/mvtec\b", "{data}/mvtec"),
    (r"(?<==)(FOLDER|W)\b", "{taef2}"),
    (r"(?<=train\.steps=)300", "6"),
    (r"(?<=-n )\d+", "2"),
    (r"(?<=--per-defect )120", "4"),
    (r"data make --root data/drawn$", "data make --root data/drawn --per-defect 6"),
    (r"(?<=detect\.seeds=)3", "2"),
    (r"localhost:8000|127\.0\.0\.1:8000", "127.0.0.1:{port}"),
    (r"http://127\.0\.0\.1:8265", "local"),
    (r"train-first-1a2b3c", "{job}"),
    (r"-o pairs\.zip", "-o pairs.zip && python -m zipfile -t pairs.zip"),
    (r"(jobs/table8\.toml .*)", r"\1 --dry-run"),
)
"""What is typed in place of a page's word."""
NOT_HERE = (
    (r"^make |^git clone|^source ", "sets up, or runs for minutes: done on its own"),
    (r"uv pip compile", "needs the package index"),
    (r"^pip install|^docker |^ray get-auth-token", "needs Docker, the network, or this user's own Ray token"),
    (r"^ray (up|down|dashboard)|submit .*(s3|gs)://", "needs a cloud"),
    (r"kubectl|helm", "needs Kubernetes"),
    (r"^sbatch|^tail ", "needs Slurm"),
    (r"--address lab", "needs a cluster of that name"),
    (r"FOLDER_OR_HUB_ID", "needs a Stable Diffusion"),
    (r"--weights-dir", "needs the published weights of the scores"),
)
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def commands(page):
    """Command lines of a page: all lines of its bash blocks, those after ``$`` of its consoles."""
    lines = []
    for language, block in FENCE.findall((ROOT / page).read_text()):
        joined = [line.strip() for line in re.sub(r"\\\n\s*", "", block).splitlines()]
        if language == "bash":
            lines += [line for line in joined if line and not line.startswith("#")]
        elif language == "console":
            lines += [line.removeprefix("$ ") for line in joined if line.startswith("$ ")]
    return [re.sub(r"\s+# .*$", "", line) for line in lines]


def draw(data):
    """Photographs of a bottle in MVTec's layout, and of a knob with a table and in folders by name."""
    open_dataset("mvtec").example(data / "mvtec")
    rng, rows = np.random.default_rng(0), ["image,mask,category,defect,split,group"]
    for defect, count in (("good", 8), ("dent", 4), ("scratch", 4)):
        for index in range(count):
            image, mask = spoiled(rng)
            image_name, mask_name = f"knob/{defect}/{index}.jpg", f"knob/masks/{defect}/{index}.png"
            save_jpeg(data / "folder" / image_name, noise(rng) if defect == "good" else image)
            if defect != "good":
                save_png(data / "folder" / mask_name, mask)
            rows.append(f"{image_name},,knob,,," if defect == "good" else f"{image_name},{mask_name},knob,{defect},,")
    (data / "folder" / "manifest.csv").write_text("\n".join(rows) + "\n")


class Shell:
    """Runs lines in one folder; endpoints stay up until the group ends."""

    def __init__(self, folder, data, taef2, local):
        self.folder, self.local, self.endpoint = folder, local, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.words = {"data": data, "taef2": taef2 or "", "port": self.port, "job": ""}
        small = {f"DHDIFF__{key}": value for key, value in {**SMALL, "SERVE__PORT": str(self.port)}.items()}
        program = folder / "bin" / "dhdiff-ray"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dhdiff_ray "$@"\n')
        program.chmod(0o755)
        path = f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env = {
            **os.environ,
            **small,
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "80",
        }
        self.env |= {"XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config")}
        for name in ("jobs", "cluster", "benchmarks"):
            (folder / name).symlink_to(ROOT / name)
        for name in ("mine.png", "where.png"):
            rng = np.random.default_rng(0)
            save_png(folder / name, noise(rng, (64, 64)) if name == "mine.png" else spoiled(rng, (64, 64))[1])

    def typed(self, line):
        """The line as it is run here."""
        if "{job}" in (line := replaced(line)):
            code, jobs, _ = self._run("dhdiff-ray jobs list --address local --json")
            self.words["job"] = json.loads(jobs)[-1]["id"] if code == 0 and jobs.strip() != "[]" else "none"
        for word, value in self.words.items():
            line = line.replace(f"{{{word}}}", str(value))
        sends = re.match(r"dhdiff-ray (submit|serve up)\b", line) and "--address" not in line
        return f"{line} --address local" if sends and self.local else line

    def run(self, line):
        """Exit code, seconds and the end of what was said."""
        if self.local and line == "dhdiff-ray cluster up":
            self.end()
        began = time.monotonic()
        code, out, said = self._serve(line) if line.startswith("dhdiff-ray serve up") else self._run(line)
        return code, time.monotonic() - began, (said or out).strip().splitlines()[-3:]

    def _run(self, line):
        done = subprocess.run(["bash", "-c", line], cwd=self.folder, env=self.env, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def _serve(self, line):
        """Start an endpoint and wait for its address; 0 if it came."""
        self.stop()
        log = self.folder / "serve.log"
        with log.open("w") as file:
            self.endpoint = subprocess.Popen(
                shlex.split(line), cwd=self.folder, env=self.env, stdout=file, stderr=file, start_new_session=True
            )
        while self.endpoint.poll() is None and "open it in a browser" not in log.read_text():
            time.sleep(0.5)
        return self.endpoint.poll() or 0, "", log.read_text()

    def begin(self):
        """Start the one Ray; a busy machine may need another try."""
        tries = (self._run("dhdiff-ray cluster up")[0] for _ in range(3))
        if self.local and all(tries):
            sys.exit("Ray did not start three times; is this machine busy?")

    def end(self):
        """End the endpoint and the one Ray."""
        self.stop()
        self._run("dhdiff-ray cluster down")
        self.local = False

    def stop(self):
        """End the endpoint."""
        if self.endpoint and self.endpoint.poll() is None:
            self.endpoint.terminate()
            self.endpoint.wait(120)


def replaced(line):
    """The line with this script's places and numbers."""
    for word, other in INSTEAD:
        line = re.sub(word, other, line)
    return line


def why_not(line, taef2):
    """Why a line cannot be run here, or nothing."""
    if re.search(r"autoencoder_weights", line) and not taef2:
        return "needs taef2's weights (--taef2 FOLDER)"
    return next((reason for word, reason in NOT_HERE if re.search(word, line)), "")


def run_group(pages, folder, taef2, tell):
    """All commands of some pages in one folder."""
    data = folder / "given"
    draw(data)
    shell = Shell(folder, data, taef2, local=pages[0] in ONE_RAY)
    shell.begin()
    try:
        for page in pages:
            for line in (*BEFORE.get(page, ()), *commands(page)):
                if reason := why_not(line, taef2):
                    tell(page, line, "not run", "", reason)
                    continue
                code, seconds, said = shell.run(shell.typed(line))
                tell(page, line, str(code), f"{seconds:.0f}", "" if code == 0 else " / ".join(said))
    finally:
        shell.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="a page: its group alone")
    parser.add_argument("--taef2", type=Path, help="folder of taef2_encoder.pth and taef2_decoder.pth")
    asked = parser.parse_args()
    rows = []

    def tell(page, line, code, seconds, note):
        rows.append((page, f"`{line.replace('|', chr(92) + '|')}`", code, seconds, note.replace("|", "\\|")))
        print(f"{code:>7} {seconds:>4}  {page}: {line}{'  # ' + note if note else ''}", flush=True)

    with contextlib.ExitStack() as stack:
        for pages in GROUPS:
            if not asked.only or asked.only in pages:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dhd-")))
                run_group(pages, folder, asked.taef2 and asked.taef2.resolve(), tell)
    ran = [row for row in rows if row[2] != "not run"]
    head = f"{len(rows)} commands, {len(ran)} run, {sum(row[2] != '0' for row in ran)} failed."
    table = ["| page | command | exit code | s | why |", "|---|---|---|---|---|"]
    asked.out.write_text("\n".join([head, "", *table, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n")
    sys.exit(any(row[2] != "0" for row in ran))


if __name__ == "__main__":
    main()
