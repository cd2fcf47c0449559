"""Around the application: request ids, sizes, slow senders, counters, a log line, and no error without a word.

Not in the paper. Decided: plain ASGI, because a wrapper that reads responses would hold back a stream and hide a
client that has gone away.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dhdiff_ray.serving.responses import problem

LOG = logging.getLogger("dhdiff_ray.serve")
GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Counters:
    """What ``/metrics`` tells, of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = {"registry": self.registry, "namespace": "dhdiff"}
        self.requests = Counter("requests", "Requests answered.", ["route", "status"], **names)
        self.seconds = Histogram("request_seconds", "Time to the last byte.", ["route"], **names)
        self.in_flight = Gauge("requests_in_flight", "Requests being answered.", **names)
        self.pairs = Counter("pairs", "Pairs handed out.", ["category"], **names)


class SlowError(Exception):
    """A client that takes too long to send its request."""


class RequestMiddleware:
    """The ASGI application, guarded.

    Args:
        app: what answers.
        counters: counted here.
        max_body: largest request in bytes.
        body_seconds: longest a client may take to send it.
    """

    def __init__(self, app: ASGIApp, counters: Counters, max_body: int, body_seconds: float) -> None:
        self.app, self.counters, self.max_body, self.body_seconds = app, counters, max_body, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        name = given if GIVEN_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = name
        start, status = time.monotonic(), 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(b"x-request-id", name.encode()), (b"x-content-type-options", b"nosniff")]
                kept = [h for h in message.get("headers", []) if h[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*kept, *extra]}
            await send(message)

        self.counters.in_flight.inc()
        try:
            refusal = self._refusal(scope["method"], headers)
            if refusal is not None:
                await refusal(scope, receive, stamped)
            else:
                await self.app(scope, self._timed(receive, start), stamped)
        except SlowError:
            if status:
                raise
            late = f"the request did not arrive within {self.body_seconds:g} s"
            await problem(408, late, {"Connection": "close"})(scope, receive, stamped)
        except Exception:
            LOG.exception("%s failed", name)
            if status:
                raise
            await problem(500, f"a fault of ours; its log has it as request {name}")(scope, receive, stamped)
        finally:
            self.counters.in_flight.dec()
            self._record(scope, name, status or 499, time.monotonic() - start)

    def _refusal(self, method: str, headers: dict[str, str]) -> Response | None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()):
            return problem(400, "Content-Length must be a number of bytes", {"Connection": "close"})
        if len(length) > 15 or int(length) > self.max_body:
            return problem(413, f"a request may have {self.max_body} bytes", {"Connection": "close"})
        if method == "POST" and "content-length" not in headers:
            return problem(411, "say how long the request is: Content-Length", {"Connection": "close"})
        return None

    def _timed(self, receive: Receive, start: float) -> Receive:
        """``receive`` with a limit until the body is whole; what comes after is the client going away."""
        whole = False

        async def limited() -> Message:
            nonlocal whole
            if whole:
                return await receive()
            left = start + self.body_seconds - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except TimeoutError:
                raise SlowError from None
            whole = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        return limited

    def _record(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self.counters.requests.labels(route, status).inc()
        self.counters.seconds.labels(route).observe(seconds)
        key, method = scope["state"].get("key", ""), scope["method"]
        LOG.info("request=%s key=%s %s %s status=%s ms=%.0f", name, key, method, route, status, seconds * 1e3)
