"""Bring the endpoint up and take it down: on this process' cluster, or as a job on another one.

Not in the paper. Decided: loopback unless a token is set (Ray's own token does not cover Serve's port); queues are
bounded, a full one answers 503 with Retry-After; on somebody's cluster the endpoint is a job, so that it is listed,
logged and stopped like any other.
"""

from __future__ import annotations

import logging
import signal
import threading
import time

import ray
from ray import serve
from ray.exceptions import RayError

from dhdiff_ray.config import Config
from dhdiff_ray.on_ray.cluster.jobs import ENDED, Jobs
from dhdiff_ray.on_ray.cluster.local import ClusterError, free_port, interrupt
from dhdiff_ray.on_ray.events import Events
from dhdiff_ray.on_ray.serve.doors import environment
from dhdiff_ray.on_ray.serve.replicas import APP, TOKEN_FILE, build, checked_token
from dhdiff_ray.run.events import event_of
from dhdiff_ray.run.run import Run
from dhdiff_ray.serving.catalogue import Catalogue

__all__ = ["TOKEN_FILE", "checked_token", "down", "drain", "main", "up"]
VERB = "serve"
HEALTHY_SECONDS = 120.0
DRAIN_SECONDS = 4.0
"""Seconds that open requests may take once the endpoint is to end."""


def up(config: Config, *, address: str | None = None, port: int | None = None) -> str:
    """Serve the models of a run; returns when the endpoint is healthy.

    Args:
        config: the run's configuration.
        address: a cluster's dashboard, where the endpoint becomes a job; None serves on the cluster that this process
            is connected to.
        port: None takes ``serve.port``; 0 picks a free one.

    Returns:
        Its URL.

    Raises:
        ValueError: no token for an address that others reach, or a run without models.
        ClusterError: it did not come up, or something is served already.
    """
    port = config.serve.port if port is None else port
    if address:
        return _up_there(config, address, port)
    token_file = checked_token(config.serve.host)
    Catalogue(config)  # a run without models is refused before anything is started
    if not ray.is_initialized():
        raise ClusterError("this process is not connected to a cluster; pass --address, or start one: local_cluster()")
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    host, port = config.serve.host, port or free_port(config.serve.host)
    begun_with = {"runtime_env": {"env_vars": environment(config.serve)}}
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, controller_options=begun_with)
        if APP in serve.status().applications:
            raise ClusterError(
                "this cluster serves a run already; take it down first: dhdiff-ray serve down --address ADDRESS"
            )
        serve.run(build(config, token_file), name=APP, route_prefix="/")
    except ClusterError:
        raise
    except (RayError, RuntimeError) as error:
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ClusterError(f"Ray Serve did not start: {last}; try again, or look with: dhdiff-ray doctor") from error
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    _wait_until_healthy(url)
    return url


def down(address: str | None = None) -> None:
    """Take the endpoint down: on the connected cluster, or the serving jobs of the one at ``address``."""
    if address is None:
        serve.shutdown()
        return
    jobs = Jobs(address)
    for job in jobs.list():
        if job.verb == VERB and job.status not in ENDED:
            jobs.stop(job.id)
            jobs.wait(job.id)


def drain() -> None:
    """Take no more requests and wait for open ones, for a limited time, before the cluster ends.

    Serve's own shutdown takes tens of seconds, and Ray warns of the controller that ended itself.
    """
    limit = time.monotonic() + DRAIN_SECONDS
    try:
        serve.delete(APP, _blocking=False)
        while APP in serve.status().applications and time.monotonic() < limit:
            time.sleep(0.1)
    except (RayError, RuntimeError, KeyError):
        return  # it is gone already, or was never there


def main(config: Config, resume: bool = False) -> int:
    """The endpoint as a job: up, told as an event, until the job is stopped."""
    signal.signal(signal.SIGTERM, interrupt)
    try:
        with Events(Run(config).folder, "serve") as events:
            events.emit("serving", url=up(config))
            threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    finally:
        down()
    return 0


def _up_there(config: Config, address: str, port: int) -> str:
    config = config.model_copy(update={"serve": config.serve.model_copy(update={"port": port})})
    jobs = Jobs(address)
    job = jobs.submit(VERB, config)
    for line in jobs.follow(job):
        event = event_of(line) or {}
        if event.get("event") == "failed":
            raise ClusterError(event["message"])
        if event.get("event") == "serving":
            return event["url"]
    raise ClusterError(f"the endpoint did not come up; see: dhdiff-ray jobs logs {job} --address {jobs.address}")


def _wait_until_healthy(url: str) -> None:
    import httpx

    limit, last = time.monotonic() + HEALTHY_SECONDS, "nothing"
    while time.monotonic() < limit:
        try:
            answer = httpx.get(f"{url}/healthz", timeout=10, trust_env=False)
            if answer.status_code == 200:
                return
            last = f"status {answer.status_code}"
        except httpx.HTTPError as error:
            last = type(error).__name__
        time.sleep(0.2)
    raise ClusterError(
        f"nothing healthy answers at {url} after {HEALTHY_SECONDS:g} s (last: {last}); "
        "is another Serve on this cluster?"
    )
