"""One sampler: requests in, pairs or events out, many at a time; knows nothing of Ray or HTTP.

Not in the paper. Decided: a client that leaves ends its drawing; a stream sends each pair as soon as it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar, TypeVarTuple

from dhdiff_ray.config import Config
from dhdiff_ray.serving.batcher import Batcher
from dhdiff_ray.serving.catalogue import Catalogue
from dhdiff_ray.serving.drawn import DrawnPair, Event, Preview
from dhdiff_ray.serving.questions import PairQuery
from dhdiff_ray.serving.sampler import SamplerCore

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Service:
    """The backend of the application in one process; one replica's work on a cluster.

    Each method may raise RefusedError (cannot be answered) or BusyError (the queue is full), a stream only before its
    first event.

    Args:
        config: the run's configuration.
    """

    def __init__(self, config: Config) -> None:
        s = config.serve
        self.core = SamplerCore(config)
        self.batcher = Batcher(self.core.draw, s.max_batch_size, s.batch_wait_ms / 1000, s.queue)

    async def read(self, reading: Callable[[Catalogue, *Ts], T], *args: *Ts) -> T:
        """Call a method of ``Catalogue``."""
        return await asyncio.to_thread(reading, self.core.catalogue, *args)

    async def pairs(self, query: PairQuery) -> list[DrawnPair]:
        """The pairs."""
        orders = await asyncio.to_thread(self.core.orders, query)
        return await self.batcher.finished(self.batcher.submit(orders))

    async def stream(self, query: PairQuery) -> AsyncGenerator[Event, None]:
        """Events: ``queued``; ``progress``, ``preview`` if asked for, and ``pair`` for each pair; then ``done``."""
        orders = await asyncio.to_thread(self.core.orders, query)
        events: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        ahead = self.batcher.waiting

        def on_step(place: int, done: int, total: int, preview: Preview | None) -> None:
            step = {"pair": place, "done": done, "total": total}
            events.put_nowait(Event("progress", step))
            if preview is not None:
                events.put_nowait(Event("preview", {**step, "image": preview.image, "mask": preview.mask}))

        drawings = self.batcher.submit(orders, on_step)
        for place, drawing in enumerate(drawings):
            drawing.add_done_callback(lambda drawing, place=place: events.put_nowait(_outcome(place, drawing)))
        try:
            yield Event("queued", {"ahead": ahead, "n": len(orders)})
            missing = len(orders)
            while missing:
                event = await events.get()
                if isinstance(event, BaseException):
                    raise event
                missing -= event.name == "pair"
                yield event
            yield Event("done", {"n": len(orders)})
        finally:
            for drawing in drawings:
                drawing.cancel()


def _outcome(place: int, drawing: asyncio.Future[DrawnPair]) -> Event | BaseException:
    if drawing.cancelled():
        return asyncio.CancelledError()
    return drawing.exception() or Event("pair", {"index": place, "pair": drawing.result()})
