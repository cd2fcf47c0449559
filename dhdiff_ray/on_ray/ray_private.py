"""Every private API of Ray that is used, one function each; check these when Ray is upgraded.

Not in the paper. Each says what it is for and what breaks without it; ``tests/on_ray/test_ray_private.py`` tries each.
Nothing here imports Ray before it is called: some of its settings count only if they are there first.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import requests
    from ray.data import Dataset
    from ray.job_submission import JobSubmissionClient

SERVER_LOGS = ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging")
"""Loggers below ``ray`` that tell of each upload and connection."""


def write_cluster_address(address: str, folder: str) -> None:
    """Write the cluster's address into its temporary folder, as ``ray start`` does and ``ray.init`` does not.

    Without it a job's supervisor takes any cluster it finds on the machine for its own.
    """
    from ray._private.utils import write_ray_address

    write_ray_address(address, folder)


@contextlib.contextmanager
def free_agent_port() -> Iterator[None]:
    """While open, ``ray.init`` has its node's job agent take any free port.

    ``ray.init`` has no word for it (``ray start`` has ``--dashboard-agent-listen-port``), and with the fixed default
    the second cluster on a machine comes up but never accepts a job.
    """
    from ray._private import parameter

    original: Any = parameter.RayParams
    parameter.RayParams = functools.partial(original, dashboard_agent_listen_port=0)  # pyright: ignore
    try:
        yield
    finally:
        parameter.RayParams = original


def forget_token() -> None:
    """Make an imported Ray read its environment again; it caches the authentication mode and the token.

    Without it a process that starts a cluster with a token of its own goes on with the token it had before.
    """
    if "ray" in sys.modules:
        raylet: Any = sys.modules["ray._raylet"]
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def dashboard_answer(client: JobSubmissionClient, path: str) -> requests.Response:
    """What a cluster's dashboard answers to GET ``path``, asked with the client's token and certificates.

    The client has no word for a cluster's versions, nor for whether it asks for a token.
    """
    return client._do_request("GET", path)


def is_without_agent(error: RuntimeError) -> bool:
    """Whether a job was refused because the agents that start jobs do not run yet; only the text says so.

    Without it the first job of a cluster that has just come up on a busy machine fails.
    """
    return "No available agent" in str(error)


def finished_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """A data set's rows, each as soon as its block is done.

    ``iter_rows`` keeps four threads and a call to an actor busy to fetch ahead what is a few bytes.
    """
    import ray

    for bundle in dataset.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            block: Any = ray.get(cast(Any, entry.ref))
            yield from block.to_pylist()
