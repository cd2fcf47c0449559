"""Bodies on their way: a request is handed on once it is whole, so that slow senders compete with each other alone.

Not in the paper. Decided: waiting costs a little memory and nothing else, so slow senders are let wait until their time
is up; where more is on its way than may be, the sender with most of it makes room, and who sends much is read slowly,
so that nobody else is kept out or waiting. Serve's proxies wait with it (``on_ray/serve/doors.py``), since each part of
a body costs a call of Ray; the application itself waits for what has not come through one of these doors.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dhdiff_ray.serving.responses import problem

LARGE_BODIES = 16
"""Bodies of the largest size that may be on their way at once, in memory."""
CONNECTIONS = 128 * LARGE_BODIES
"""Connections that may have a body on its way."""
BURST, RATE = 16 * 2**20, 8 * 2**20
"""Bytes that a sender may send as fast as he can, and bytes a second from then on; reading takes the others' time."""
PIECE = 2**20
"""Bytes that are handed on at once, so that others come in between."""
PAUSE = 0.002
"""Seconds between two pieces."""
WHOLE = "dhdiff.whole"
"""Key of a request's scope that says it was waited for; no client can set it."""


class SlowError(Exception):
    """A client that takes too long to send its request."""


class Arrival:
    """One body on its way, given up when its time is up or when others need the room."""

    def __init__(self, seconds: float) -> None:
        self.size, self.timeout = 0, asyncio.timeout(seconds)
        self.pieces: deque[bytearray] = deque()
        self.late = f"the request did not arrive within {seconds:g} s"

    def add(self, part: bytes) -> None:
        """The next bytes."""
        self.size += len(part)
        if not self.pieces or len(self.pieces[-1]) >= PIECE:
            self.pieces.append(bytearray())
        self.pieces[-1] += part

    async def wait(self, seconds: float) -> None:
        """Let others come first; that is no fault of the sender's."""
        self.timeout.reschedule((self.timeout.when() or 0.0) + seconds)
        await asyncio.sleep(seconds)

    def give_up(self) -> None:
        """Stop waiting for it."""
        self.late = "the request arrived too slowly while others came in"
        self.timeout.reschedule(0.0)


class Arrivals:
    """All bodies on their way.

    Args:
        seconds: longest that one may take.
        largest: bytes of the largest.
        connections: most that may be on their way at once.
    """

    def __init__(self, seconds: float, largest: int, connections: int = CONNECTIONS) -> None:
        self.seconds, self.room = seconds, LARGE_BODIES * largest
        self._each = self.room // connections
        """A connection counts like so many bytes."""
        self._of: dict[str, dict[Arrival, None]] = {}
        """By sender, the oldest first."""
        self._used: dict[str, int] = {}
        self._all = 0
        self._paid: dict[str, float] = {}
        """Until when a sender's bytes last at ``RATE``, by the loop's clock."""

    async def whole(self, sender: str, receive: Receive) -> deque[bytearray] | None:
        """The body in pieces, once it is there; None if the client goes away before.

        Args:
            sender: who makes room first, if he has most on its way.
            receive: of the request.

        Raises:
            SlowError: it is late, or was given up.
        """
        arrival = Arrival(self.seconds)
        try:
            async with arrival.timeout:
                self._of.setdefault(sender, {})[arrival] = None
                self._count(sender, self._each)
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    if arrival not in self._of.get(sender, ()):
                        raise SlowError(arrival.late)  # given up at the moment that this part came
                    part = message.get("body", b"")
                    arrival.add(part)
                    self._count(sender, len(part))
                    ahead = self._ahead(sender, len(part))
                    if arrival.size > PIECE:  # small ones pass, even of who sends large ones too
                        await arrival.wait(ahead)
                    if not message.get("more_body", False):
                        return arrival.pieces
        except TimeoutError:
            raise SlowError(arrival.late) from None
        finally:
            self._leave(sender, arrival)

    def _ahead(self, sender: str, size: int) -> float:
        """Seconds that a sender is to wait after so many bytes more."""
        now = asyncio.get_running_loop().time()
        if len(self._paid) > CONNECTIONS:
            self._paid = {name: until for name, until in self._paid.items() if until > now}
        until = max(now, self._paid.get(sender, now)) + size / RATE
        self._paid[sender] = until
        return max(0.0, until - now - BURST / RATE)

    def _count(self, sender: str, size: int) -> None:
        self._used[sender] = self._used.get(sender, 0) + size
        self._all += size
        if size > 0 and self._all > self.room:
            most = max(self._used, key=self._used.__getitem__)
            oldest = next(iter(self._of[most]))
            oldest.give_up()
            self._leave(most, oldest)

    def _leave(self, sender: str, arrival: Arrival) -> None:
        own = self._of.get(sender, {})
        if arrival not in own:
            return  # given up, and counted then
        del own[arrival]
        self._count(sender, -self._each - arrival.size)
        if not own:
            del self._of[sender], self._used[sender]


class WholeBodies:
    """The ASGI application, called once a request's body is there.

    Args:
        app: what answers.
        seconds: longest a body may take.
        largest: bytes; what is larger, or does not say, is handed on as it is, for the application to refuse.
    """

    def __init__(self, app: ASGIApp, seconds: float, largest: int) -> None:
        self.app, self.largest, self.arrivals = app, largest, Arrivals(seconds, largest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or WHOLE in scope or not 0 < length_of(scope) <= self.largest:
            await self.app(scope, receive, send)
            return
        try:
            pieces = await self.arrivals.whole(address_of(scope), receive)
        except SlowError as error:
            # Nobody reads the rest of the body.
            await problem(408, str(error), {"Connection": "close"})(scope, receive, send)
            return
        if pieces is None:
            return
        handed_on = 0

        async def replayed() -> Message:
            nonlocal handed_on
            if not pieces:
                return await receive()
            if handed_on:
                await asyncio.sleep(PAUSE)
            handed_on += 1
            return {"type": "http.request", "body": bytes(pieces.popleft()), "more_body": bool(pieces)}

        scope[WHOLE] = True
        await self.app(scope, replayed, send)


def length_of(scope: Scope) -> int:
    """How long a request says its body is; 0 without a body, -1 for what is no length."""
    text = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(text) if text.isdigit() and len(text) < 16 else -1


def address_of(scope: Scope) -> str:
    """Where a request comes from; behind a proxy that is the proxy."""
    return (scope.get("client") or ("",))[0]
