"""Closes connections that send no complete request in time; Serve and its HTTP server have no such limits.

Not in the paper. Decided: Serve calls ``guard`` in each of its proxies before they listen. Of headers the server's own
protocol is watched; bodies are waited for here (``serving/arrivals.py``), so that slow ones cost no call of Ray.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from starlette.middleware import Middleware

from dhdiff_ray.config import ServeConfig
from dhdiff_ray.serving.arrivals import WholeBodies

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Environment variable of Serve: a function that each proxy calls before it listens."""
SECONDS = "DHDIFF_SERVE_HEADER_SECONDS"
"""Environment variable with ``serve.header_seconds``."""
BODY_SECONDS = "DHDIFF_SERVE_BODY_SECONDS"
"""Environment variable with ``serve.body_seconds``."""
BODY_MB = "DHDIFF_SERVE_MAX_BODY_MB"
"""Environment variable with ``serve.max_body_mb``."""
PATIENCE = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
"""On a busy machine a proxy needs longer to start than the 5 s that Serve gives it before it is killed."""
LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def environment(limits: ServeConfig) -> dict[str, str]:
    """What Serve's processes are started with, so that its proxies watch and have the time to start.

    ``serve up`` gives it to Serve's controller; where Serve is started by others, as by KubeRay, it must be the
    environment of Ray's head.
    """
    told = {SECONDS: limits.header_seconds, BODY_SECONDS: limits.body_seconds, BODY_MB: limits.max_body_mb}
    callback = {CALLBACK: f"{__name__}.{guard.__name__}"}
    return PATIENCE | callback | {name: str(value) for name, value in told.items()}


def guard() -> list[Middleware]:
    """Have the HTTP server of this process watch its connections; what comes back waits for bodies."""
    from uvicorn.protocols.http import auto

    usual = ServeConfig()
    seconds = float(os.environ.get(SECONDS, usual.header_seconds))
    auto.AutoHTTPProtocol = watched(auto.AutoHTTPProtocol, seconds)
    largest = int(float(os.environ.get(BODY_MB, usual.max_body_mb)) * 2**20)
    return [Middleware(WholeBodies, seconds=float(os.environ.get(BODY_SECONDS, usual.body_seconds)), largest=largest)]


def watched(protocol: Any, seconds: float) -> Any:
    """The server's protocol with a limit on how long a request's headers may take.

    Args:
        protocol: a class of uvicorn's.
        seconds: from the connection's begin, or from a further request's first byte, to the end of the headers.
    """

    class Watched(protocol):
        """The protocol with the limit."""

        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_for_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._wait_for_headers()
            else:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait_for_headers(self) -> None:
            if self._late is None:
                self._late = self.loop.call_later(seconds, self._close)

        def _stop_waiting(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _close(self) -> None:
            if not self.transport.is_closing():
                self.transport.write(LATE)
                self.transport.close()

    return Watched
