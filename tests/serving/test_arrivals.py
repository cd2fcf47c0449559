"""Bodies on their way: who sends slowly, or much at once, keeps nobody else out."""

import asyncio

import httpx

from dhdiff_ray.serving import arrivals
from dhdiff_ray.serving.api import make_app
from dhdiff_ray.serving.arrivals import LARGE_BODIES, Arrivals, SlowError, WholeBodies


class Backend:
    """Has no models."""

    async def read(self, reading, *args):
        return []


class Sender:
    """A client whose body comes part by part, when it is told so."""

    def __init__(self, address, *parts):
        self.parts, self.address, self.sent = asyncio.Queue(), address, []
        for part in parts:
            self.parts.put_nowait(part)

    async def receive(self):
        part = await self.parts.get()
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": part != b"]"}

    async def send(self, message):
        self.sent.append(message)

    def ask(self, app, length=2):
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/pairs", "query_string": b"", "http_version": "1.1"}
        scope |= {"headers": [*headers, (b"content-length", str(length).encode())], "scheme": "http", "server": None}
        return asyncio.ensure_future(app(scope | {"client": (self.address, 1)}, self.receive, self.send))


def refused_with(sender):
    return sender.sent[0]["status"] if sender.sent else None


async def beside_slow_ones(app, normal, slow):
    """What a client is answered that sends its second part last, and what slow ones were told by then."""
    answer = normal.ask(app)
    await asyncio.sleep(0.02)
    waiting = [one.ask(app) for one in slow]
    await asyncio.sleep(0.05)
    normal.parts.put_nowait(b"]")
    await answer
    told = [refused_with(one) for one in slow]
    for one in slow:
        one.parts.put_nowait(None)  # gone
    await asyncio.gather(*waiting)
    return refused_with(normal), told


def test_a_slow_sender_is_told_and_left(served_config):
    async def asked():
        sender = Sender("a")
        limits = served_config.serve.model_copy(update={"body_seconds": 0.05})
        await sender.ask(make_app(Backend(), limits=limits))
        return sender.sent[0]

    start = asyncio.run(asked())
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]


def test_who_sends_in_two_parts_is_read_whoever_else_comes_in_between(served_config):
    """All from one address, many more than may be answered at once."""
    app = make_app(Backend(), limits=served_config.serve.model_copy(update={"in_flight": 4}))

    async def attacked():
        return await beside_slow_ones(app, Sender("a", b"["), [Sender("a", b"[") for _ in range(100)])

    answered, told = asyncio.run(attacked())
    assert answered == 422  # read, and found to be a list
    assert told == [None] * 100


def test_where_too_many_are_on_their_way_the_sender_with_most_makes_room_and_is_told():
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def attacked():
        app = WholeBodies(application, 30, 1000)
        app.arrivals = Arrivals(30, 1000, connections=10)
        slow = [Sender("rude", b"[") for _ in range(50)]
        return *await beside_slow_ones(app, Sender("normal", b"["), slow), app.arrivals

    answered, told, left = asyncio.run(attacked())
    assert answered == 200
    assert told[:40] == [408] * 40  # the oldest
    assert told.count(None) >= 8
    assert not left._of
    assert left._all == 0


def test_bytes_count_as_well_as_connections():
    async def arriving():
        some = Arrivals(30, 1000)
        large = [Sender("rude", b"x" * 999) for _ in range(2 * LARGE_BODIES)]
        waiting = [asyncio.ensure_future(some.whole("rude", one.receive)) for one in large]
        small = Sender("normal", b"[", b"]")
        normal = await some.whole("normal", small.receive)
        await asyncio.sleep(0.05)
        held = sum(not one.done() for one in waiting)
        given_up = [one for one in waiting if one.done()]
        for one in large:
            one.parts.put_nowait(b"]")
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        return normal, held, given_up, ends

    normal, held, given_up, ends = asyncio.run(arriving())
    assert b"".join(normal) == b"[]"
    assert held <= LARGE_BODIES
    assert all(isinstance(one.exception(), SlowError) for one in given_up)
    assert b"".join(ends[-1]) == b"x" * 999 + b"]"


def test_without_keys_one_address_is_answered_often_enough_at_once_and_another_still_is(served_config):
    class Slow(Backend):
        async def read(self, reading, *args):
            await asyncio.sleep(0.2)
            return []

    app = make_app(Slow(), limits=served_config.serve.model_copy(update={"in_flight": 2}))

    async def asked():
        clients = [
            httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://localhost")
            for address in ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2")
        ]
        return await asyncio.gather(*(client.get("/v1/models") for client in clients))

    answers = asyncio.run(asked())
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200]
    assert "from this address" in answers[2].json()["detail"]


def test_a_whole_body_is_handed_on_as_it_came_and_then_whether_the_client_has_gone():
    async def asked():
        seen = []

        async def application(scope, receive, send):
            seen.extend([await receive(), await receive()])

        sender = Sender("a", b"[" * 70, b"[" * 30, b"]", None)
        await sender.ask(WholeBodies(application, 30, 1000), 101)
        return seen

    body, gone = asyncio.run(asked())
    assert body == {"type": "http.request", "body": b"[" * 100 + b"]", "more_body": False}
    assert gone == {"type": "http.disconnect"}


def test_who_sends_much_is_read_slowly_without_being_late_and_others_are_not(monkeypatch):
    monkeypatch.setattr(arrivals, "BURST", 1000)
    monkeypatch.setattr(arrivals, "RATE", 10_000)
    monkeypatch.setattr(arrivals, "PIECE", 500)

    async def arriving():
        waited = Arrivals(0.15, 100_000)
        clock = asyncio.get_running_loop().time

        async def ask(address, size):
            sender = Sender(address, *[b"x" * 500] * (size // 500), b"]")
            begun = clock()
            pieces = await waited.whole(address, sender.receive)
            return sum(map(len, pieces)), clock() - begun

        return await asyncio.gather(ask("much", 4000), ask("little", 1000), ask("much", 0))

    (much, long), (little, short), (small, at_once) = asyncio.run(arriving())
    assert (much, little, small) == (4001, 1001, 1)
    assert long >= 0.29  # 3000 bytes at 10,000 a second, though 0.15 s is the longest that a sender may take
    assert max(short, at_once) < 0.1


def test_what_came_through_one_door_is_not_held_up_at_the_next(monkeypatch):
    monkeypatch.setattr(arrivals, "BURST", 1000)
    monkeypatch.setattr(arrivals, "RATE", 10_000)
    monkeypatch.setattr(arrivals, "PIECE", 500)

    async def asked():
        seen = []

        async def application(scope, receive, send):
            more = True
            while more:
                message = await receive()
                seen.append(message["body"])
                more = message["more_body"]

        begun = asyncio.get_running_loop().time()
        sender = Sender("a", *[b"x" * 500] * 8, b"]")
        await sender.ask(WholeBodies(WholeBodies(application, 30, 100_000), 30, 100_000), 4001)
        return seen, asyncio.get_running_loop().time() - begun

    seen, took = asyncio.run(asked())
    assert b"".join(seen) == b"x" * 4000 + b"]"
    assert 0.29 < took < 0.5  # 0.6 twice


def test_a_large_body_is_handed_on_in_pieces():
    async def asked():
        seen = []

        async def application(scope, receive, send):
            while not seen or seen[-1]["more_body"]:
                seen.append(await receive())

        sender = Sender("a", *[b"[" * 2**18] * 10, b"]")
        await sender.ask(WholeBodies(application, 30, 2**23), 10 * 2**18 + 1)
        return seen

    seen = asyncio.run(asked())
    assert [len(message["body"]) for message in seen] == [2**20, 2**20, 2**19 + 1]
    assert b"".join(message["body"] for message in seen) == b"[" * 10 * 2**18 + b"]"
