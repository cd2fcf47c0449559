"""``doctor``: check that everything a run needs is there; each fault comes with its remedy."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from dhdiff_ray.cli import options
from dhdiff_ray.cli.output import Output, table

PACKAGES = ("ray", "torch", "deepspeed", "diffusers", "transformers")
WEIGHTS = {
    "Inception Score": "weights-inception-2015-12-05-6726825d.pth",
    "IC-LPIPS": "vgg16-397923af.pth",
}
"""Files of the published networks as PyTorch's hub cache names them."""
GIGABYTE = 1e9


@dataclass(frozen=True)
class Check:
    """One finding; ``state`` is ok, warning or failed."""

    name: str
    state: str
    found: str
    remedy: str = ""


def doctor(
    address: options.Address = None,
    dataset: options.DatasetName = None,
    root: options.Root = None,
    storage: options.Storage = None,
    weights_dir: str = typer.Option(
        "", metavar="FOLDER", help="Where the networks' files are. [default: PyTorch's hub cache]", show_default=False
    ),
    as_json: options.Json = False,
) -> None:
    """Check versions, cluster, dataset, weights and disk.

    Leaves with 1 if something failed; each failure comes with what to do.

    Example: dhdiff-ray doctor --dataset mvtec --root data/mvtec
    """
    checks = [*_versions(), *_space(storage or "runs"), *_weights(weights_dir), *_token()]
    where = options.address_or_environment(address)
    if where:
        checks += _cluster(where)
    if root:
        checks += _dataset(dataset or "mvtec", root)
    output = Output(as_json)
    rows = [(check.state, check.name, check.found) for check in checks]
    output.data([asdict(check) for check in checks], table=table("", ("", "what", "found"), rows))
    for check in checks:
        if check.remedy:
            output.note(f"{check.name}: {check.remedy}")
    if any(check.state == "failed" for check in checks):
        raise typer.Exit(1)


def _judged(name: str, good: bool, found: str, remedy: str, otherwise: str = "failed") -> Check:
    """A finding with a remedy where it is needed."""
    return Check(name, "ok", found) if good else Check(name, otherwise, found, remedy)


def _versions() -> Iterator[Check]:
    from importlib import metadata

    version = ".".join(map(str, sys.version_info[:3]))
    yield _judged("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")
    for name in PACKAGES:
        try:
            yield Check(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check(name, "failed", "not installed", "install the package with its dependencies: make setup")


def _space(storage: str) -> Iterator[Check]:
    if "://" not in storage:
        folder = Path(storage).expanduser().resolve()
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free / GIGABYTE
        remedy = "free some space, or put runs elsewhere: --storage FOLDER"
        yield _judged("storage", free > 2, f"{free:.1f} GB free at {folder}", remedy)
    shared = Path("/dev/shm")
    if shared.exists():
        free = shutil.disk_usage(shared).free / GIGABYTE
        remedy = "give the container shared memory: docker run --shm-size=2g"
        yield _judged("shared memory", free > 0.3, f"{free:.1f} GB free at /dev/shm", remedy, "warning")


def _weights(weights_dir: str) -> Iterator[Check]:
    hub = Path("~/.cache/torch/hub/checkpoints").expanduser()
    folder = Path(weights_dir).expanduser() if weights_dir else hub
    for name, file in WEIGHTS.items():
        there = (folder / file).is_file()
        remedy = f"put {file} into {folder}, or score with labelled stand-ins: --set score.features=standin"
        place = str(folder / file) if there else "not on this machine"
        yield _judged(f"weights for {name}", there, place, remedy, "warning")


def _cluster(address: str) -> Iterator[Check]:
    from importlib.metadata import version

    from dhdiff_ray.on_ray.cluster.jobs import Jobs
    from dhdiff_ray.on_ray.cluster.local import ClusterError

    try:
        jobs = Jobs(address)
        there = jobs.versions()["ray"]
    except ClusterError as error:
        yield Check("cluster", "failed", address, str(error))
        return
    here = version("ray")
    remedy = f"use the same Ray on both sides: pip install ray=={there}"
    yield _judged("cluster", there == here, f"Ray {there} at {address}, {here} here", remedy)
    try:
        jobs.check_cluster()
        yield Check("access to the cluster", "ok", "versions match, and it wants a token or is on this machine")
    except ClusterError as error:
        yield Check("access to the cluster", "failed", address, str(error))
    have = jobs.resources()
    size = f"{have.get('CPU', 0):g} CPU, {have.get('GPU', 0):g} GPU"
    yield Check("size of the cluster", "ok" if have.get("CPU") else "warning", size)


def _token() -> Iterator[Check]:
    """A token on this machine that others can read is as good as none; Ray itself writes it for everybody."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if file.is_file():
        mode = stat.S_IMODE(file.stat().st_mode)
        yield _judged("token", not mode & 0o077, f"{file}, mode {mode:o}", f"type: chmod 600 {file}")


def _dataset(name: str, root: str) -> Iterator[Check]:
    from dhdiff_ray.data.registry import open_dataset

    try:
        samples = open_dataset(name).scan(Path(root).expanduser().resolve())
    except (ValueError, OSError) as error:
        yield Check("dataset", "failed", f"{name} at {root}", str(error))
        return
    categories = {sample.category for sample in samples}
    anomalies = sum(not sample.is_good for sample in samples)
    counts = f"{len(categories)} categories, {len(samples)} images, {anomalies} of them anomalies"
    yield Check("dataset", "ok", counts)
