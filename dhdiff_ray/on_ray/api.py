"""The endpoint's HTTP side: a FastAPI application around anything that answers; knows nothing of Ray.

Not in the paper. ``POST /v1/pairs``, ``GET /v1/models``, ``GET /healthz``. Decided: JSON with base64 PNGs both ways;
every error is ``{"detail": "what is wrong and what to do"}``; with a token everything but ``/healthz`` asks for it.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any, Protocol

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from dhdiff_ray import __version__
from dhdiff_ray.on_ray.sampler import Ask, RefusedError

MAX_BODY = 64 * 2**20
"""Largest request in bytes."""
RETRY_SECONDS = 3


class BusyError(Exception):
    """All samplers are at work and the queue is full, or they are being restarted."""


class Backend(Protocol):
    """What answers."""

    async def models(self) -> list[dict[str, Any]]:
        """What can be asked for."""
        ...

    async def pairs(self, ask: Ask) -> list[dict[str, Any]]:
        """The pairs.

        Raises:
            RefusedError: the question cannot be answered.
            BusyError: not now.
        """
        ...


def make_app(backend: Backend, token: str | None = None) -> FastAPI:
    """The application.

    Args:
        backend: what answers.
        token: what ``Authorization: Bearer ...`` must say; None lets everybody in.
    """
    app = FastAPI(title="dhdiff-ray", version=__version__, description="Defect images together with their masks.")

    def allowed(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise HTTPException(
                401, "send the endpoint's token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
            )

    guarded = [Depends(allowed)]

    @app.middleware("http")
    async def limited(request: Request, proceed: Any) -> Any:
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return JSONResponse({"detail": f"a request may have {MAX_BODY} bytes"}, 413)
        if request.method == "POST" and "content-length" not in request.headers:
            return JSONResponse({"detail": "say how long the request is: Content-Length"}, 411)
        return await proceed(request)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        told = [f"{'.'.join(str(part) for part in e['loc'][1:]) or 'body'}: {e['msg']}" for e in error.errors()]
        return JSONResponse({"detail": "; ".join(told)}, 422)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return JSONResponse({"detail": error.message}, error.status)

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        return JSONResponse(
            {"detail": f"busy, ask again in {RETRY_SECONDS} s"}, 503, {"Retry-After": str(RETRY_SECONDS)}
        )

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the endpoint is up."""
        return {"status": "ok", "version": __version__}

    @app.get("/v1/models", dependencies=guarded)
    async def models() -> dict[str, Any]:
        """Categories and defects that can be asked for."""
        return {"models": await backend.models()}

    @app.post("/v1/pairs", dependencies=guarded)
    async def pairs(ask: Ask) -> dict[str, Any]:
        """Pairs of image and mask; the same question always has the same answer."""
        return {"pairs": await backend.pairs(ask)}

    return app


def read_token(file: str) -> str:
    """The token in a file.

    Raises:
        ValueError: no such file, or a token that is easily guessed.
    """
    try:
        token = Path(file).read_text().strip()
    except OSError as error:
        raise ValueError(f"the endpoint's token file cannot be read: {error}") from None
    if len(token) < 16:
        raise ValueError(f"the token in {file} has {len(token)} characters; make one: openssl rand -hex 32 > {file}")
    return token
