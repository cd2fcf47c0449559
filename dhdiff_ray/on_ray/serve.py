"""Ray Serve around the sampler: replicas that hold a few categories' models each, behind the FastAPI application.

Not in the paper. Decided: loopback unless a token is set (Ray's own token does not cover Serve's port); queues are
bounded, a full one answers 503 with Retry-After; on somebody's cluster the endpoint is a job, so that it is listed,
logged and stopped like any other.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import signal
import socket
import threading
import time
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from dhdiff_ray.config import Config
from dhdiff_ray.on_ray.api import BusyError, make_app, read_token
from dhdiff_ray.on_ray.cluster import ClusterError
from dhdiff_ray.on_ray.entry import entry
from dhdiff_ray.on_ray.events import PREFIX, Events
from dhdiff_ray.on_ray.jobs import ENDED, Jobs
from dhdiff_ray.on_ray.run import run_folder
from dhdiff_ray.on_ray.sampler import Ask, RefusedError, SamplerCore

APP = "dhdiff"
MODULE = "dhdiff_ray.on_ray.serve"
TOKEN_FILE = "DHDIFF_SERVE_TOKEN_FILE"
"""Environment variable that names a file with the endpoint's token."""
MODELS_HELD = 3
"""Categories whose models one replica keeps loaded."""
AT_WORK, QUEUED, RETRY_SECONDS = 4, 32, 3
HEALTHY_SECONDS = 120.0
PATIENCE = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
"""On a busy machine the proxy needs longer to start than the 5 s that Serve gives it before it is killed."""


@serve.deployment(name="Sampler")
class Sampler:
    """One replica: samples one pair at a time."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.core = SamplerCore(Config.model_validate(values))

    async def models(self) -> list[dict[str, Any]]:
        """What can be asked for."""
        return self.core.models()

    @serve.multiplexed(max_num_models_per_replica=MODELS_HELD)
    async def pipeline(self, category: str) -> Any:
        """The category's model; requests for it are sent to replicas that hold it."""
        return await asyncio.to_thread(self.core.load, category)

    async def pairs(self, ask: Ask) -> list[dict[str, Any]] | RefusedError:
        """The pairs; a refusal is returned, since Ray would wrap what is raised."""
        try:
            self.core.check(ask)
            load: Any = self.pipeline  # what the decorator makes of it
            pipeline = await load(ask.category)
            return await asyncio.to_thread(self.core.pairs, ask, pipeline)
        except RefusedError as refused:
            return refused


class Replicas:
    """The application's backend: asks the replicas."""

    async def models(self) -> list[dict[str, Any]]:
        """What can be asked for."""
        return await self._answer(self._handle().models.remote())

    async def pairs(self, ask: Ask) -> list[dict[str, Any]]:
        """The pairs, from a replica that holds the model if there is one."""
        handle = self._handle().options(multiplexed_model_id=ask.category)
        answer = await self._answer(handle.pairs.remote(ask))
        if isinstance(answer, RefusedError):
            raise answer
        return answer

    def _handle(self) -> Any:
        return serve.get_deployment_handle("Sampler", APP)

    async def _answer(self, response: Any) -> Any:
        try:
            return await response
        except (BackPressureError, DeploymentUnavailableError, RayActorError):
            raise BusyError from None


def build(config: Config, token_file: str = "") -> Any:
    """The Serve application: ingress and samplers."""
    s = config.serve
    # On the head node, where the token's file is; it forwards and takes no core.
    place = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
    queues = {"max_ongoing_requests": AT_WORK + QUEUED, "max_queued_requests": QUEUED, "ray_actor_options": place}

    def application() -> FastAPI:
        """Called in the ingress replica, so that the token itself is never sent anywhere."""
        return make_app(Replicas(), read_token(token_file) if token_file else None)

    ingress = serve.deployment(name="Ingress", **queues)(serve.ingress(application)())
    needs = {"num_cpus": config.synthesize.cpus_per_worker, "num_gpus": s.gpus_per_replica}
    samplers = Sampler.options(
        num_replicas=s.replicas, max_ongoing_requests=AT_WORK, max_queued_requests=QUEUED, ray_actor_options=needs
    )
    return ingress.bind(samplers.bind(config.model_dump(mode="json")))


def up(config: Config, *, address: str | None = None, port: int | None = None, block: bool = True) -> str:
    """Serve the models of a run.

    Args:
        config: the run's configuration.
        address: a cluster's dashboard, where the endpoint becomes a job; None serves on the cluster that this process
            is connected to.
        port: None takes ``serve.port``; 0 picks a free one.
        block: stay until Ctrl-C and then take the endpoint down; else return when it is healthy.

    Returns:
        Its URL.

    Raises:
        ValueError: no token for an address that others reach, or a run without models.
        ClusterError: it did not come up, or something is served already.
    """
    port = config.serve.port if port is None else port
    if address:
        return _up_there(config, address, port, block)
    token_file = checked_token(config.serve.host)
    SamplerCore(config)  # a run without models is refused before anything is started
    if not ray.is_initialized():
        raise ClusterError("this process is not connected to a cluster; pass --address, or start one: local_cluster()")
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    host, port = config.serve.host, port or _free_port(config.serve.host)
    patience = {"runtime_env": {"env_vars": PATIENCE}}
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, controller_options=patience)
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
    if block:
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            down()
    return url


def down(address: str | None = None) -> None:
    """Take the endpoint down: on the connected cluster, or the serving jobs of the one at ``address``."""
    if address is None:
        serve.shutdown()
        return
    jobs = Jobs(address)
    for job in jobs.list():
        if job.verb == MODULE and job.status not in ENDED:
            jobs.stop(job.id)
            jobs.wait(job.id)


def checked_token(host: str) -> str:
    """The file with the endpoint's token, or nothing where none is set and none is needed.

    Raises:
        ValueError: others can reach the host and there is no token, or the file is unusable.
    """
    file = os.environ.get(TOKEN_FILE, "")
    if file:
        read_token(file)
    elif not _is_loopback(host):
        raise ValueError(
            f"serve.host = {host} can be reached by others, so a token is needed: openssl rand -hex 32 > token; "
            f"export {TOKEN_FILE}=$PWD/token; or serve on 127.0.0.1"
        )
    return file


def main(config: Config, resume: bool = False) -> int:
    """The endpoint as a job: up, told as an event, until the job is stopped."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Events(run_folder(config), "serve") as events:
            events.emit("serving", url=up(config, block=False))
            threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    finally:
        down()
    return 0


def _up_there(config: Config, address: str, port: int, block: bool) -> str:
    config = config.model_copy(update={"serve": config.serve.model_copy(update={"port": port})})
    jobs = Jobs(address)
    job = jobs.submit(MODULE, config)
    url = ""
    for line in jobs.follow(job):
        event = json.loads(line.removeprefix(PREFIX)) if line.startswith(PREFIX) else {}
        if event.get("event") == "failed":
            raise ClusterError(event["message"])
        if event.get("event") == "serving":
            url = event["url"]
            if not block:
                return url
    if not url:
        raise ClusterError(f"the endpoint did not come up; see: dhdiff-ray jobs logs {job} --address {jobs.address}")
    return url


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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    from dhdiff_ray.on_ray import serve as this  # what is sent to replicas must have a name that they can import

    entry(this.main)
