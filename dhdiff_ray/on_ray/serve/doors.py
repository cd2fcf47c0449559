"""Closes connections that send no complete request headers in time; Serve and its HTTP server have no such limit.

Not in the paper. Decided: Serve calls ``close_slow_headers`` in each of its proxies before they listen; the server's
own protocol is kept and only watched. How long a body may take is the application's affair (``serving/middleware.py``).
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Environment variable of Serve: a function that each proxy calls before it listens."""
SECONDS = "DHDIFF_SERVE_HEADER_SECONDS"
"""Environment variable with ``serve.header_seconds``."""
PATIENCE = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
"""On a busy machine a proxy needs longer to start than the 5 s that Serve gives it before it is killed."""
LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def environment(seconds: float) -> dict[str, str]:
    """What Serve's processes are started with, so that its proxies watch and have the time to start.

    ``serve up`` gives it to Serve's controller; where Serve is started by others, as by KubeRay, it must be the
    environment of Ray's head.
    """
    return PATIENCE | {CALLBACK: f"{__name__}.{close_slow_headers.__name__}", SECONDS: str(seconds)}


def close_slow_headers() -> list[Any]:
    """Have the HTTP server of this process watch its connections; there are no middlewares to add."""
    from uvicorn.protocols.http import auto

    auto.AutoHTTPProtocol = watched(auto.AutoHTTPProtocol, float(os.environ.get(SECONDS, "10")))
    return []


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
