"""The endpoint's HTTP side: a FastAPI application around anything that answers; knows nothing of Ray.

Not in the paper. The page at ``/`` and the list at ``/docs`` say what there is. Decided: every error is problem+json
with what to do; with tokens everything but the page and the two health addresses asks for one; a client that goes
away, or whose time is up, stops the drawing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from dhdiff_ray import __version__
from dhdiff_ray.config import ServeConfig
from dhdiff_ray.serving.access import Access, DeniedError
from dhdiff_ray.serving.bodies import read_ask, wanted
from dhdiff_ray.serving.middleware import LOG, Counters, Gate
from dhdiff_ray.serving.questions import Ask, BusyError, RefusedError
from dhdiff_ray.serving.responses import PROBLEM, answer, problem

RETRY_SECONDS = 3
READY_SECONDS = 5.0
PAGE = Path(__file__).with_name("page")
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
T = TypeVar("T")


class Backend(Protocol):
    """What answers; each may raise RefusedError (cannot be answered) or BusyError (not now)."""

    async def models(self) -> list[dict[str, Any]]:
        """What can be asked for."""
        ...

    async def model(self, category: str) -> dict[str, Any]:
        """One category in full."""
        ...

    async def base(self, category: str, number: int) -> bytes:
        """One of the run's normal images, as PNG."""
        ...

    async def pairs(self, ask: Ask) -> list[dict[str, Any]]:
        """The pairs."""
        ...

    def stream(self, ask: Ask) -> AsyncIterator[dict[str, Any]]:
        """Events, a result in each ``pair``."""
        ...


def make_app(backend: Backend, access: Access | None = None, limits: ServeConfig | None = None) -> FastAPI:
    """The application.

    Args:
        backend: what answers.
        access: who may ask; None lets in who is on this machine.
        limits: of size and time.
    """
    limits, access, counters = limits or ServeConfig(), access or Access(), Counters()
    app = FastAPI(title="dhdiff-ray", version=__version__, description="Defect images together with their masks.")
    app.add_middleware(
        Gate, counters=counters, max_body=int(limits.max_body_mb * 2**20), body_seconds=limits.body_seconds
    )
    _tell_errors(app)

    def allowed(request: Request) -> None:
        request.state.key = access.admit(request.method, request.headers)

    guarded = [Depends(allowed)]

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the endpoint is up."""
        return {"status": "ok", "version": __version__}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Whether somebody answers behind it."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                found = await backend.models()
        except (BusyError, TimeoutError):
            return problem(503, "no sampler answers yet", {"Retry-After": str(RETRY_SECONDS)})
        return JSONResponse({"status": "ready", "models": len(found)})

    @app.get("/metrics", dependencies=guarded)
    async def metrics() -> Response:
        """Counters in Prometheus' format."""
        return Response(generate_latest(counters.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models", dependencies=guarded)
    async def models() -> dict[str, Any]:
        """Categories and defects that can be asked for."""
        return {"models": await backend.models()}

    @app.get("/v1/models/{category}", dependencies=guarded)
    async def model(category: str) -> dict[str, Any]:
        """One category: its defects, size, scores, licence, defaults and limits."""
        return await backend.model(category)

    @app.get("/v1/models/{category}/bases/{number}", dependencies=guarded, response_class=Response)
    async def base(category: str, number: str) -> Response:
        """A normal image of the run that a pair can be put on, as PNG."""
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            raise RefusedError(404, "normal images are numbered from 0")
        return Response(await backend.base(category, int(number)), media_type="image/png")

    async def asked(request: Request, category: str | None) -> Ask:
        return read_ask(request.headers.get("content-type", ""), await request.body(), category)

    async def drawn(request: Request, category: str | None) -> Response:
        ask = await asked(request, category)
        async with asyncio.timeout(_deadline(request, limits)):
            pairs = await _while_there(request, backend.pairs(ask))
        counters.pairs.labels(ask.category).inc(len(pairs))
        return answer(pairs, wanted(ask, request.headers.get("accept", "")))

    @app.post("/v1/categories/{category}/pairs", dependencies=guarded, openapi_extra=_BODY, responses=_ERRORS)
    async def pairs(request: Request, category: str) -> Response:
        """Pairs of image and mask; the same question always has the same answer."""
        return await drawn(request, category)

    @app.post("/v1/pairs", dependencies=guarded, openapi_extra=_BODY, responses=_ERRORS)
    async def pairs_of_any(request: Request) -> Response:
        """The same with the category in the body."""
        return await drawn(request, None)

    @app.post("/v1/categories/{category}/pairs:stream", dependencies=guarded, openapi_extra=_BODY, responses=_ERRORS)
    async def stream(request: Request, category: str) -> Response:
        """The same as events, one JSON object a line: queued, progress, preview, pair, done or failed."""
        ask = await asked(request, category)
        events = backend.stream(ask)
        seconds = _deadline(request, limits)
        limit = asyncio.get_running_loop().time() + seconds
        async with asyncio.timeout(seconds):
            first = await _while_there(request, anext(events))  # what is refused is refused with a status

        async def lines() -> AsyncIterator[str]:
            try:
                yield json.dumps(first) + "\n"
                async with asyncio.timeout_at(limit):
                    async for event in events:
                        counters.pairs.labels(ask.category).inc(event["event"] == "pair")
                        yield json.dumps(event) + "\n"
            except (BusyError, RefusedError, TimeoutError) as error:
                yield json.dumps({"event": "failed", "problem": _problem_of(error)}) + "\n"
            except Exception:  # noqa: BLE001  the status is sent already
                LOG.exception("%s failed", request.state.request_id)
                yield json.dumps({"event": "failed", "problem": _FAULT}) + "\n"
            finally:
                await events.aclose()  # pyright: ignore[reportAttributeAccessIssue]

        return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})

    def page(name: str) -> Callable[[], FileResponse]:
        # Takes nothing: a parameter, even one with a default, would be the query's to set.
        return lambda: FileResponse(PAGE / name, headers=PAGE_HEADERS)

    for address, name in (("/", "index.html"), ("/page/style.css", "style.css"), ("/page/app.js", "app.js")):
        app.add_api_route(address, page(name), include_in_schema=False, response_class=FileResponse)
    return app


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


def _tell_errors(app: FastAPI) -> None:
    busy = f"busy, ask again in {RETRY_SECONDS} s"

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return problem(error.status, error.message)

    @app.exception_handler(DeniedError)
    async def denied(_: Request, error: DeniedError) -> JSONResponse:
        return problem(error.status, error.message, error.headers)

    @app.exception_handler(BusyError)
    async def full(_: Request, error: BusyError) -> JSONResponse:
        return problem(503, busy, {"Retry-After": str(RETRY_SECONDS)})

    @app.exception_handler(TimeoutError)
    async def late(_: Request, error: TimeoutError) -> JSONResponse:
        return problem(504, "not done in time; ask for fewer pairs or steps, or allow more: X-Deadline-Seconds")

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        told = {404: "there is no such address; see /docs", 405: "not with this method; see /docs"}
        return problem(error.status_code, told.get(error.status_code, str(error.detail)), error.headers)


def _problem_of(error: Exception) -> dict[str, Any]:
    status, told = (503, "busy, ask again later") if isinstance(error, BusyError) else (504, "not done in time")
    if isinstance(error, RefusedError):
        status, told = error.status, error.message
    return json.loads(bytes(problem(status, told).body))


_FAULT = json.loads(bytes(problem(500, "a fault of ours; the log has it").body))
_SCHEMA = Ask.model_json_schema()
_OPTIONAL = _SCHEMA | {"required": []}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _OPTIONAL}, "multipart/form-data": {"schema": _OPTIONAL}},
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": told, "content": {PROBLEM: {"schema": {"type": "object"}}}}
    for status, told in {
        400: "cannot be read",
        401: "no or a wrong token",
        404: "no such category or defect",
        409: "the category's model was made under another split",
        408: "sent too slowly",
        413: "too large",
        415: "another type of body",
        422: "does not fit",
        429: "too often",
        503: "busy",
        504: "not done in time",
    }.items()
}
