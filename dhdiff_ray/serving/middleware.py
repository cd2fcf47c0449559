"""Around the application: request ids, sizes, slow senders, counters, a log line, and no error without a word.

Not in the paper. Decided: plain ASGI, because a wrapper that reads responses would hold back a stream and hide a
client that has gone away; where a key asks too much at once, its request that has been arriving longest makes room, so
that slow senders keep nobody out.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
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
        self.requests = Counter("requests", "Requests answered.", ["route", "status"], **names)
        self.seconds = Histogram("request_seconds", "Time to the last byte.", ["route"], **names)
        self.in_flight = Gauge("requests_in_flight", "Requests being answered.", **names)
        self.pairs = Counter("pairs", "Pairs handed out.", ["category"], **names)


class SlowError(Exception):
    """A client that takes too long to send its request."""


class Arrival:
    """A request's body on its way: whole in time, or given up.

    Args:
        receive: of the request.
        seconds: longest it may take.
        whole: whether there is none to wait for.
    """

    def __init__(self, receive: Receive, seconds: float, whole: bool) -> None:
        self.whole, self._receive = whole, receive
        self._limit = asyncio.get_running_loop().time() + seconds
        self._late = f"the request did not arrive within {seconds:g} s"
        self._waiting: asyncio.Timeout | None = None

    async def receive(self) -> Message:
        """The next part; what comes after the last is the client going away.

        Raises:
            SlowError: it is late, or was given up.
        """
        if self.whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._limit) as self._waiting:
                message = await self._receive()
        except TimeoutError:
            raise SlowError(self._late) from None
        finally:
            self._waiting = None
        self.whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def give_up(self) -> None:
        """Stop waiting for it."""
        self._limit, self._late = 0.0, "the request arrived too slowly while others of this key came in"
        if self._waiting is not None:
            self._waiting.reschedule(0.0)


class InFlight:
    """How many requests of a key are being answered.

    Args:
        most: of one key.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._of: dict[str, dict[Arrival, None]] = {}
        """Requests by key, the oldest first."""

    def enter(self, key: str, arrival: Arrival) -> Callable[[], None]:
        """One more; call what comes back when it is answered.

        Raises:
            RefusedError: 429, as many as may be are there and all have arrived.
        """
        own = self._of.setdefault(key, {})
        if len(own) >= self.most:
            slow = next((one for one in own if not one.whole), None)
            if slow is None:
                message = f"{self.most} requests of this key are being answered; wait for one of them"
                raise RefusedError(429, message, {"Retry-After": "1"})
            slow.give_up()
            del own[slow]
        own[arrival] = None

        def leave() -> None:
            own.pop(arrival, None)
            if not own and self._of.get(key) is own:
                del self._of[key]

        return leave


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
        start, status, state = time.monotonic(), 0, scope.setdefault("state", {})
        arrival = Arrival(receive, self.body_seconds, headers.get("content-length", "0") == "0")
        state |= {"request_id": name, "arrival": arrival}

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(b"x-request-id", name.encode()), (b"x-content-type-options", b"nosniff")]
                extra += [] if arrival.whole else [(b"connection", b"close")]  # nobody reads the rest of the body
                kept = [h for h in message.get("headers", []) if h[0].lower() not in (b"x-request-id", b"connection")]
                message = {**message, "headers": [*kept, *extra]}
            await send(message)

        self.counters.in_flight.inc()
        try:
            refusal = self._refusal(scope["method"], headers)
            if refusal is not None:
                await refusal(scope, receive, stamped)
            else:
                await self.app(scope, arrival.receive, stamped)
        except SlowError as error:
            if status:
                raise
            await problem(408, str(error))(scope, receive, stamped)
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
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()):
            return problem(400, "Content-Length must be a number of bytes")
        if len(length) > 15 or int(length) > self.max_body:
            return problem(413, f"a request may have {self.max_body} bytes")
        if method == "POST" and "content-length" not in headers:
            return problem(411, "say how long the request is: Content-Length")
        return None

    def _record(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self.counters.requests.labels(route, status).inc()
        self.counters.seconds.labels(route).observe(seconds)
        key, method = scope["state"].get("key", ""), scope["method"]
        LOG.info("request=%s key=%s %s %s status=%s ms=%.0f", name, key, method, route, status, seconds * 1e3)
