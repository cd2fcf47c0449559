"""Checks of a cluster before a job is sent: it answers, has room, has our versions, and asks for a token.

Not in the paper. Decided: Ray would leave a job that does not fit pending for ever, and fail at the first pickle of
another Python. A cluster without a token runs anybody's code, so it is used on this machine only, unless the user
insists.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from dhdiff_ray.config import Config
from dhdiff_ray.config.load import ConfigError
from dhdiff_ray.on_ray.cluster.local import ClusterError
from dhdiff_ray.serving.access import is_loopback

ANSWER_SECONDS = 5.0
"""How long a cluster may take to answer the first question; Ray's own client would wait for ever."""


def check_answers(address: str) -> None:
    """Ask a cluster for its version, so that an address where nothing answers fails at once.

    Raises:
        ClusterError: nobody answers there in time.
    """
    import requests

    with reached(address):
        requests.get(f"{address}/api/version", timeout=ANSWER_SECONDS)


@contextlib.contextmanager
def reached(address: str, job_id: str = "") -> Iterator[None]:
    """A context in which errors of Ray's client become errors that say what to do.

    Args:
        address: of the cluster.
        job_id: the job that is asked for, if one is.

    Raises:
        ClusterError: nobody answers, the token is missing or wrong, or the cluster says something else.
        ValueError: there is no such job, or its id is taken.
    """
    import requests
    from ray.exceptions import AuthenticationError
    from ray.util.state.exception import RayStateApiException, ServerUnavailable

    try:
        yield
    except AuthenticationError:
        raise ClusterError(
            f"the cluster at {address} refuses us: it wants a token. Put it into ~/.ray/auth_token or "
            "RAY_AUTH_TOKEN (on the head node `ray get-auth-token` prints it), then: dhdiff-ray doctor --address "
            f"{address}"
        ) from None
    except (ConnectionError, requests.exceptions.RequestException, ServerUnavailable) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({type(error).__name__}); give the dashboard's address, "
            f"such as http://127.0.0.1:8265. Check with: dhdiff-ray doctor --address {address}; without "
            "--address and RAY_ADDRESS a private cluster is started for the command"
        ) from None
    except RayStateApiException as error:
        raise ClusterError(f"the cluster at {address} does not tell what it has: {error}") from None
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, ClusterError):
            raise
        if "already exists" in text or "already been used" in text:
            raise ValueError("a job of that id was already submitted; see: dhdiff-ray jobs list") from None
        if "404" in text or "does not exist" in text:
            what = f"no job {job_id!r} at {address}; see: dhdiff-ray jobs list" if job_id else text
            raise ValueError(what) from None
        raise ClusterError(f"the cluster at {address} answered: {text}") from None


def check_versions(address: str, there: Mapping[str, str]) -> None:
    """Refuse a cluster of another Ray version, or of another Python minor version.

    Args:
        address: for the message.
        there: ``ray`` and, where the cluster tells, ``python``.

    Raises:
        ClusterError: it says what to install.
    """
    import ray

    here = {"ray": ray.__version__, "python": ".".join(platform.python_version_tuple()[:2])}
    theirs = {name: version if name == "ray" else ".".join(version.split(".")[:2]) for name, version in there.items()}
    for name, version in theirs.items():
        if version != here[name]:
            what = "Ray" if name == "ray" else "Python"
            remedy = f"pip install ray=={version}" if name == "ray" else f"make PYTHON=python{version} setup"
            raise ClusterError(
                f"the cluster at {address} runs {what} {version}, this command {here[name]}; both sides need the same: "
                f"{remedy}, or start the cluster with {what} {here[name]}"
            )


def check_closed(address: str, mode: str) -> None:
    """Refuse a cluster without a token, unless it is on this machine.

    Raises:
        ClusterError: it says how to close it.
    """
    if mode == "token" or is_loopback(urlsplit(address).hostname or ""):
        return
    raise ClusterError(
        f"the cluster at {address} asks nobody for a token: whoever reaches it can run code on it. Start it with "
        "RAY_AUTH_MODE=token (see cluster/README.md), or use it as it is: --insecure"
    )


def node_resources(address: str) -> list[dict[str, float]]:
    """Resources of each living node of a cluster."""
    from ray.util.state import list_nodes

    with without_addresses():
        nodes: list[Any] = list_nodes(address)
    return [node.resources_total or {} for node in nodes if node.state == "ALIVE"]


def check_room(nodes: Sequence[Mapping[str, float]], verb: str, config: Config) -> None:
    """Refuse what the cluster as it is now cannot hold.

    Raises:
        ConfigError: more is asked for than there is.
    """
    need = resources(verb, config)
    if not need:
        return
    workers = int(need["workers"])
    one = {"CPU": need["CPU"], "GPU": need["GPU"]}
    room = sum(min(int(node.get(k, 0) / v) for k, v in one.items() if v) for node in nodes)
    if room < workers:
        part = "synthesize" if verb == "synthesize" else "train"
        have = ", ".join(f"{sum(node.get(k, 0) for node in nodes):g} {k}" for k in ("CPU", "GPU"))
        wanted = " and ".join(f"{v:g} {k}" for k, v in one.items() if v)
        raise ConfigError(
            f"{verb} asks for {workers} worker(s) with {wanted} each; the cluster has {have} on {len(nodes)} "
            f"node(s) and room for {room}. Ask for less (--set {part}.workers=1 --set {part}.gpus_per_worker=0) "
            "or, where nodes are added on demand, pass --no-check"
        )


def resources(verb: str, config: Config) -> dict[str, float]:
    """What must be free at once for the verb to make progress: workers, and CPU and GPU of each."""
    if verb in ("train", "ablate", "all"):
        part = config.train
        return {"workers": part.least_workers, "CPU": part.cpus_per_worker, "GPU": part.gpus_per_worker}
    if verb == "synthesize":
        part = config.synthesize
        return {"workers": max(1, part.workers), "CPU": part.cpus_per_worker, "GPU": part.gpus_per_worker}
    return {}


@contextlib.contextmanager
def without_addresses() -> Iterator[None]:
    """Hide Ray's environment variables meanwhile: they would override the given address."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
