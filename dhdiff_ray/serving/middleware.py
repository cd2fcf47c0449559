"""Around the application: request ids, sizes, counters, a log line, and no error without a word.

Not in the paper. Decided: plain ASGI, because a wrapper that reads responses would hold back a stream and hide a
client that has gone away; only requests that have arrived count as being answered (of the others: ``arrivals.py``).
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as Metric
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dhdiff_ray.serving.questions import RefusedError
from dhdiff_ray.serving.responses import problem

LOG = logging.getLogger("dhdiff_ray.serve")
GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Counters:
    """What ``/metrics`` tells, of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = {"registry": self.registry, "namespace": "dhdiff"}
        self.requests = Metric("requests", "Requests answered.", ["route", "status"], **names)
        self.seconds = Histogram("request_seconds", "Time to the last byte.", ["route"], **names)
        self.in_flight = Gauge("requests_in_flight", "Requests being answered.", **names)
        self.pairs = Metric("pairs", "Pairs handed out.", ["category"], **names)


class InFlight:
    """How many requests of a key, or of an address where there are no keys, are being answered.

    Args:
        most: of one.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._of: Counter[tuple[str, str]] = Counter()

    def enter(self, key: str, address: str) -> Callable[[], None]:
        """One more; call what comes back when it is answered.

        Raises:
            RefusedError: 429, as many as may be are there.
        """
        who = (key, "" if key else address)
        if self._of[who] >= self.most:
            whose = "of this key" if key else "from this address"
            message = f"{self.most} requests {whose} are being answered; wait for one of them"
            raise RefusedError(429, message, {"Retry-After": "1"})
        self._of[who] += 1

        def leave() -> None:
            self._of[who] -= 1
            if not self._of[who]:
                del self._of[who]

        return leave


class RequestMiddleware:
    """The ASGI application, guarded.

    Args:
        app: what answers.
        counters: counted here.
        max_body: largest request in bytes.
    """

    def __init__(self, app: ASGIApp, counters: Counters, max_body: int) -> None:
        self.app, self.counters, self.max_body = app, counters, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        name = given if GIVEN_ID.fullmatch(given) else secrets.token_hex(8)
        start, status, state = time.monotonic(), 0, scope.setdefault("state", {})
        state["request_id"] = name

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
                await self.app(scope, receive, stamped)
        except Exception:
            LOG.exception("%s failed", name)
            if status:
                raise
            await problem(500, f"a fault of ours; its log has it as request {name}")(scope, receive, stamped)
        finally:
            self.counters.in_flight.dec()
            state.get("leave", lambda: None)()
            self._record(scope, name, status or 499, time.monotonic() - start)

    def _refusal(self, method: str, headers: dict[str, str]) -> Response | None:
        length, left = headers.get("content-length", "0"), {"Connection": "close"}  # nobody reads the body
        if not (length.isascii() and length.isdecimal()):
            return problem(400, "Content-Length must be a number of bytes", left)
        if len(length) > 15 or int(length) > self.max_body:
            return problem(413, f"a request may have {self.max_body} bytes", left)
        if method == "POST" and "content-length" not in headers:
            return problem(411, "say how long the request is: Content-Length", left)
        return None

    def _record(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self.counters.requests.labels(route, status).inc()
        self.counters.seconds.labels(route).observe(seconds)
        key, method = scope["state"].get("key", ""), scope["method"]
        LOG.info("request=%s key=%s %s %s status=%s ms=%.0f", name, key, method, route, status, seconds * 1e3)
