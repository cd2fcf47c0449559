"""The endpoint's two deployments: an ingress that forwards, and samplers that hold a few categories' models each.

Not in the paper. Decided: Serve routes by category, places and restarts; passes, queue and models are our own
(``service.py``), since Serve's batches go on when nobody waits and its eviction takes models from under requests.
Serve sees a category only once a replica has said that there is such a model, and then as a digest: what it is told
ends up in labels of metrics, which one odd name broke for everybody.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar, TypeVarTuple

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.exceptions import RayActorError
from ray.serve import Application
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from dhdiff_ray.config import Config, ServeConfig
from dhdiff_ray.config.load import load_config
from dhdiff_ray.run.folder import RunFolder
from dhdiff_ray.serving.access import Access, is_loopback, read_keys
from dhdiff_ray.serving.api import make_app
from dhdiff_ray.serving.catalogue import Catalogue
from dhdiff_ray.serving.drawn import DrawnPair, Event
from dhdiff_ray.serving.questions import BusyError, PairQuery, RefusedError
from dhdiff_ray.serving.service import Service

APP = "dhdiff"
TOKEN_FILE = "DHDIFF_SERVE_TOKEN_FILE"
"""Environment variable that names a file with the endpoint's tokens, see ``access.py``."""
MODELS_TOLD = 3
"""Categories a replica tells Serve of, a hint for routing; what it holds is ``serve.models_held``."""
FORWARDED = 1000
"""Requests the ingress holds at once: it only waits, and what is too much is refused by the samplers."""
ASKED_AGAIN = 1
"""Retries of a request whose replica died."""
HEALTH_SECONDS = 2.0
"""Seconds between two of Serve's health checks of a replica."""
DRAINED_SECONDS = 0.5
"""Seconds between two looks of a stopping replica at its open requests."""
STUCK_SECONDS = 120.0
"""Seconds that a replica may take to answer a health check."""
LOST = (BackPressureError, DeploymentUnavailableError, RayActorError)
"""Serve's errors for a full queue and for a lost replica."""
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@serve.deployment(name="Sampler")
class Sampler:
    """One replica: a service whose models Serve knows of, so that questions go where their model is."""

    def __init__(self, values: dict[str, Any]) -> None:
        config = Config.model_validate(values)
        self.service = Service(config)
        if config.serve.warm:
            self.service.core.warm_up()

    async def answer(self, name: str, label: str, *args: Any) -> Any:
        """What the service's method of that name returns, or a refusal: Ray would wrap one that is raised."""
        if label:
            await self._holds(label)  # pyright: ignore[reportCallIssue]  the decorator makes a function of it
        try:
            return await getattr(self.service, name)(*args)
        except (RefusedError, BusyError) as error:
            return error

    async def stream(self, label: str, query: PairQuery) -> AsyncIterator[Event | RefusedError | BusyError]:
        """The pairs as events; a refusal is the last."""
        await self._holds(label)  # pyright: ignore[reportCallIssue]
        try:
            async for event in self.service.stream(query):
                yield event
        except (RefusedError, BusyError) as error:
            yield error

    @serve.multiplexed(max_num_models_per_replica=MODELS_TOLD)
    async def _holds(self, label: str) -> str:
        """Tells Serve which categories are asked for here; the models themselves are the service's."""
        return label


class Replicas:
    """The application's backend: asks the replicas; what a replica that died was asked is asked once more."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        """What Serve is told of each category that there is."""

    async def read(self, reading: Callable[[Catalogue, *Ts], T], *args: *Ts) -> T:
        """What a method of ``Catalogue`` says, from any replica."""
        return await self._answer("read", "", reading, *args)

    async def pairs(self, query: PairQuery) -> list[DrawnPair]:
        """The pairs, from a replica that holds the model if there is one."""
        return await self._answer("pairs", await self._label(query.category), query)

    async def stream(self, query: PairQuery) -> AsyncGenerator[Event, None]:
        """Events; once the first was passed on, a dead replica ends them with "busy"."""
        label = await self._label(query.category)
        for left in range(ASKED_AGAIN, -1, -1):
            begun, events = False, self._handle(label).options(stream=True).stream.remote(label, query)
            try:
                async for event in events:
                    if isinstance(event, RefusedError | BusyError):
                        raise event
                    begun = True
                    yield event
                return
            except LOST as error:
                if begun or not left or isinstance(error, BackPressureError):
                    raise BusyError from None
            finally:
                events.cancel()

    async def _label(self, category: str) -> str:
        """What Serve is told of a category; refuses one that there is not before Serve hears of it."""
        if category not in self._labels:
            await self.read(Catalogue.facts_of, category)
            self._labels[category] = label_of(category)
        return self._labels[category]

    def _handle(self, label: str) -> Any:
        handle = serve.get_deployment_handle("Sampler", APP)
        return handle.options(multiplexed_model_id=label) if label else handle

    async def _answer(self, name: str, label: str, *args: Any) -> Any:
        for left in range(ASKED_AGAIN, -1, -1):
            response = self._handle(label).answer.remote(name, label, *args)
            try:
                answer = await response
            except LOST as error:
                if not left or isinstance(error, BackPressureError):
                    raise BusyError from None
                continue  # the same question has the same answer elsewhere
            except asyncio.CancelledError:
                response.cancel()
                raise
            if isinstance(answer, RefusedError | BusyError):
                raise answer
            return answer


def label_of(category: str) -> str:
    """An ASCII label for a category, whose name may have any letters."""
    return hashlib.sha256(category.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def build(config: Config, token_file: str = "") -> Application:
    """The Serve application: ingress and samplers."""
    s = config.serve
    # On the head node, where the token's file is; it forwards and takes no core.
    place = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
    ongoing = s.queue + 2 * s.max_batch_size
    queues = {"max_ongoing_requests": FORWARDED, "max_queued_requests": FORWARDED, "ray_actor_options": place}
    queues["graceful_shutdown_wait_loop_s"] = DRAINED_SECONDS
    queues["max_surge_percent"] = 100  # it takes no core, so there is always room for a new one beside the old

    def application() -> FastAPI:
        """Called in the ingress replica, so that the token itself is never sent anywhere."""
        access = Access(token_file, s.requests_per_minute, s.steps_per_minute)
        return make_app(Replicas(), access, s, config.synthesize.steps)

    ingress = serve.deployment(name="Ingress", **queues)(serve.ingress(application)())
    needs = {"num_cpus": config.synthesize.cpus_per_worker, "num_gpus": s.gpus_per_replica}
    samplers = Sampler.options(
        **_number(s),
        max_ongoing_requests=ongoing,
        max_queued_requests=s.queue,
        ray_actor_options=needs,
        graceful_shutdown_timeout_s=s.deadline_seconds,
        graceful_shutdown_wait_loop_s=DRAINED_SECONDS,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=STUCK_SECONDS,
    )
    return ingress.bind(samplers.bind(config.model_dump(mode="json")))


class ServeArgs(BaseModel):
    """The ``args`` of the application in ``jobs/serve.yaml``."""

    model_config = ConfigDict(extra="forbid")

    storage: str
    run: str
    public: bool = True
    """Whether others reach the port, as behind Kubernetes' service; then a token file is needed."""
    sets: list[str] = []
    """Knobs as on the command line: ``serve.gpus_per_replica=1``."""


def app(args: dict[str, Any]) -> Application:
    """The application of ``jobs/serve.yaml``: a run of the storage, with its own configuration.

    Args:
        args: the file's ``args``, as ``ServeArgs``.

    Raises:
        ValueError: no such run, or no token where others can ask.
    """
    chosen = ServeArgs.model_validate(args)
    folder = RunFolder.of(chosen.storage, chosen.run)
    if not folder.exists("config.json"):
        raise ValueError(f"there is no run {folder.uri}; a run begins with: dhdiff-ray submit train")
    base = folder.read_json("config.json")
    moved = {"run.storage": ("args.storage", chosen.storage)}
    config = load_config(base=base, flags=moved, sets=tuple(chosen.sets)).config
    return build(config, checked_token("0.0.0.0" if chosen.public else "127.0.0.1"))


def _number(s: ServeConfig) -> dict[str, Any]:
    if s.max_replicas <= s.replicas:
        return {"num_replicas": s.replicas, "max_surge_percent": s.surge_percent}
    scaling = {
        "min_replicas": s.replicas,
        "initial_replicas": max(1, s.replicas),
        "max_replicas": s.max_replicas,
        "target_ongoing_requests": 2 * s.max_batch_size,
    }
    return {"autoscaling_config": scaling, "max_surge_percent": s.surge_percent}


def checked_token(host: str) -> str:
    """The file with the endpoint's token, or nothing where none is set and none is needed.

    Raises:
        ValueError: others can reach the host and there is no token, or the file is unusable.
    """
    file = os.environ.get(TOKEN_FILE, "")
    if file:
        read_keys(file)
    elif not is_loopback(host):
        raise ValueError(
            f"serve.host = {host} can be reached by others, so a token is needed: openssl rand -hex 32 > token; "
            f"chmod 600 token; export {TOKEN_FILE}=$PWD/token; or serve on 127.0.0.1"
        )
    return file
