"""The endpoint's HTTP side: a FastAPI application around anything that answers; knows nothing of Ray.

Not in the paper. The page at ``/`` and the list at ``/docs`` say what there is. Decided: every error is problem+json
with what to do; with tokens everything but the page and the two health addresses asks for one; a client that goes
away, or whose time is up, stops the drawing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar, TypeVarTuple

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from dhdiff_ray import __version__
from dhdiff_ray.config import ServeConfig, SynthesizeConfig
from dhdiff_ray.serving.access import Access
from dhdiff_ray.serving.arrivals import WholeBodies, address_of
from dhdiff_ray.serving.bodies import read_query, response_kind
from dhdiff_ray.serving.catalogue import Catalogue
from dhdiff_ray.serving.drawn import DrawnPair, Event
from dhdiff_ray.serving.middleware import LOG, Counters, InFlight, RequestMiddleware
from dhdiff_ray.serving.questions import BusyError, PairQuery, RefusedError
from dhdiff_ray.serving.responses import PROBLEM, answer, line, problem, problem_json

RETRY_SECONDS = 3
READY_SECONDS = 5.0
READY_FRESH_SECONDS = 1.0
"""How old the answer to "ready?" may be."""
PAGE = Path(__file__).with_name("page")
PAGE_PARTS = ("style.css", "app.js", "board.js", "results.js")
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
Charged = Callable[[Request, PairQuery], AbstractContextManager[None]]
"""Charges a request's key for what is asked, unless the block ends with a refusal."""
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Backend(Protocol):
    """What answers; each may raise RefusedError (cannot be answered) or BusyError (not now)."""

    async def read(self, reading: Callable[[Catalogue, *Ts], T], *args: *Ts) -> T:
        """What a method of ``Catalogue`` says."""
        ...

    async def pairs(self, query: PairQuery) -> list[DrawnPair]:
        """The pairs."""
        ...

    def stream(self, query: PairQuery) -> AsyncGenerator[Event, None]:
        """The same as events."""
        ...


class Ready:
    """Whether the backend answers: asked once in a while, however many want to know."""

    def __init__(self, backend: Backend) -> None:
        self._backend, self._asked_at = backend, float("-inf")
        self._asking: asyncio.Future[int | None] | None = None

    async def models(self) -> int | None:
        """How many models it has; None while it does not answer."""
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and now - self._asked_at > READY_FRESH_SECONDS):
            self._asking, self._asked_at = asyncio.ensure_future(self._ask()), now
        return await asyncio.shield(self._asking)

    async def _ask(self) -> int | None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                return len(await self._backend.read(Catalogue.models))
        except (BusyError, TimeoutError):
            return None


def make_app(
    backend: Backend,
    access: Access | None = None,
    limits: ServeConfig | None = None,
    steps: int = SynthesizeConfig().steps,
) -> FastAPI:
    """The application.

    Args:
        backend: what answers.
        access: who may ask; None lets in who is on this machine.
        limits: of size and time.
        steps: denoising steps of a request that says nothing, for what it costs.
    """
    limits, access, counters = limits or ServeConfig(), access or Access(), Counters()
    app = FastAPI(title="dhdiff-ray", version=__version__, description="Defect images together with their masks.")
    largest = int(limits.max_body_mb * 2**20)
    app.add_middleware(WholeBodies, seconds=limits.body_seconds, largest=largest)
    app.add_middleware(RequestMiddleware, counters=counters, max_body=largest)  # the last is the outermost
    for kind in (RefusedError, HTTPException, BusyError, TimeoutError):
        app.add_exception_handler(kind, _problem)

    in_flight = InFlight(limits.in_flight)

    async def admitted(request: Request) -> None:
        request.state.key = access.admit(request.method, request.headers)
        request.state.leave = in_flight.enter(request.state.key, address_of(request.scope))

    app.include_router(_health(backend, access))

    def charged(request: Request, query: PairQuery) -> AbstractContextManager[None]:
        n, each = min(query.n, limits.max_n), min(query.steps or steps, limits.max_steps)  # what is more is refused
        return access.charged(request.state.key, n * each)

    for guarded in (_catalogue(backend, counters), _drawing(backend, counters, limits, charged)):
        app.include_router(guarded, dependencies=[Depends(admitted)])
    for address, name in (("/", "index.html"), *((f"/page/{name}", name) for name in PAGE_PARTS)):
        app.add_api_route(address, _page(name), include_in_schema=False, response_class=FileResponse)
    return app


def _health(backend: Backend, access: Access) -> APIRouter:
    """Addresses that need no key."""
    router, ready = APIRouter(), Ready(backend)

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the endpoint is up."""
        return {"status": "ok", "version": __version__}

    @router.get("/readyz")
    async def readyz(request: Request) -> JSONResponse:
        """Whether somebody answers behind it."""
        access.check_host(request.headers)
        models = await ready.models()
        if models is None:
            return problem(503, "no sampler answers yet", {"Retry-After": str(RETRY_SECONDS)})
        return JSONResponse({"status": "ready", "models": models})

    return router


def _catalogue(backend: Backend, counters: Counters) -> APIRouter:
    """What there is."""
    router = APIRouter()

    @router.get("/metrics")
    async def metrics() -> Response:
        """Counters in Prometheus' format."""
        return Response(generate_latest(counters.registry), media_type=CONTENT_TYPE_LATEST)

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """Categories and defects that can be asked for."""
        return {"models": await backend.read(Catalogue.models)}

    @router.get("/v1/models/{category}")
    async def model(category: str) -> dict[str, Any]:
        """One category: its defects, size, scores, licence, defaults and limits."""
        return await backend.read(Catalogue.model, category)

    @router.get("/v1/models/{category}/bases/{number}", response_class=Response)
    async def base(category: str, number: str) -> Response:
        """A normal image of the run that a pair can be put on, as PNG."""
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            raise RefusedError(404, "normal images are numbered from 0")
        return Response(await backend.read(Catalogue.base, category, int(number)), media_type="image/png")

    return router


def _drawing(backend: Backend, counters: Counters, limits: ServeConfig, charged: Charged) -> APIRouter:
    """Pairs."""
    router = APIRouter()
    described: dict[str, Any] = {"openapi_extra": _BODY, "responses": _ERRORS}

    async def drawn(request: Request, category: str | None) -> Response:
        query = await _query(request, category)
        with charged(request, query):
            async with asyncio.timeout(_deadline(request, limits)):
                pairs = await _while_there(request, backend.pairs(query))
        counters.pairs.labels(query.category).inc(len(pairs))
        return answer(pairs, response_kind(query, request.headers.get("accept", "")))

    @router.post("/v1/categories/{category}/pairs", **described)
    async def pairs(request: Request, category: str) -> Response:
        """Pairs of image and mask; the same question always has the same answer."""
        return await drawn(request, category)

    @router.post("/v1/pairs", **described)
    async def pairs_of_any(request: Request) -> Response:
        """The same with the category in the body."""
        return await drawn(request, None)

    @router.post("/v1/categories/{category}/pairs:stream", **described)
    async def stream(request: Request, category: str) -> Response:
        """The same as events, one JSON object a line: queued, progress, preview, pair, done or failed."""
        query = await _query(request, category)
        events = backend.stream(query)
        seconds = _deadline(request, limits)
        limit = asyncio.get_running_loop().time() + seconds
        with charged(request, query):
            async with asyncio.timeout(seconds):
                first = await _while_there(request, anext(events))  # what is refused is refused with a status
        pairs = counters.pairs.labels(query.category)

        async def lines() -> AsyncIterator[str]:
            try:
                yield line(first)
                async with asyncio.timeout_at(limit):
                    async for event in events:
                        pairs.inc(event.name == "pair")
                        yield line(event)
            except Exception as error:  # noqa: BLE001  the status is sent already
                yield line(_failed(request, error))
            finally:
                await events.aclose()

        return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})

    return router


def _page(name: str) -> Callable[[], FileResponse]:
    # Takes nothing: a parameter, even one with a default, would be the query's to set.
    return lambda: FileResponse(PAGE / name, headers=PAGE_HEADERS)


async def _query(request: Request, category: str | None) -> PairQuery:
    return read_query(request.headers.get("content-type", ""), await request.body(), category)


def _deadline(request: Request, limits: ServeConfig) -> float:
    text = request.headers.get("x-deadline-seconds")
    if text is None:
        return limits.deadline_seconds
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise RefusedError(422, "X-Deadline-Seconds must be a number of seconds above 0")
    return min(seconds, limits.deadline_seconds)


async def _while_there(request: Request, work: Awaitable[T]) -> T:
    """The work's result; it is cancelled as soon as the client has gone away."""
    doing = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({doing, watch}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise HTTPException(499, "the client went away")
    finally:
        for task in (doing, watch):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _failed(request: Request, error: Exception) -> Event:
    """The last event of a stream that does not end well."""
    status, detail = 500, "a fault of ours; the log has it"
    if isinstance(error, RefusedError):
        status, detail = error.status, error.message
    elif isinstance(error, BusyError):
        status, detail = 503, "busy, ask again later"
    elif isinstance(error, TimeoutError):
        status, detail = 504, "not done in time"
    else:
        LOG.error("%s failed", request.state.request_id, exc_info=error)
    return Event("failed", {"problem": problem_json(status, detail)})


async def _problem(_: Request, error: Exception) -> JSONResponse:
    """The answer that an error becomes."""
    if isinstance(error, RefusedError):
        return problem(error.status, error.message, error.headers)
    if isinstance(error, HTTPException):
        details = {404: "there is no such address; see /docs", 405: "not with this method; see /docs"}
        return problem(error.status_code, details.get(error.status_code, str(error.detail)), error.headers)
    if isinstance(error, BusyError):
        return problem(503, f"busy, ask again in {RETRY_SECONDS} s", {"Retry-After": str(RETRY_SECONDS)})
    return problem(504, "not done in time; ask for fewer pairs or steps, or allow more: X-Deadline-Seconds")


_OPTIONAL = PairQuery.model_json_schema() | {"required": []}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _OPTIONAL}, "multipart/form-data": {"schema": _OPTIONAL}},
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": {PROBLEM: {"schema": {"type": "object"}}}}
    for status, words in {
        400: "cannot be read",
        401: "no or a wrong token",
        403: "another site's page",
        404: "no such category or defect",
        409: "the category's model was made under another split",
        408: "sent too slowly",
        411: "no length",
        413: "too large",
        415: "another type of body",
        421: "another name than this machine's own",
        422: "does not fit",
        429: "too often, or too much",
        503: "busy",
        504: "not done in time",
    }.items()
}
