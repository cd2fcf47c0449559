"""One sampler at work: questions in, pairs or events out, many at a time; knows nothing of Ray or HTTP.

Not in the paper. Decided: who stops waiting stops the drawing; a stream tells each pair as soon as it is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from dhdiff_ray.config import Config
from dhdiff_ray.serving.batcher import Batcher
from dhdiff_ray.serving.questions import Ask
from dhdiff_ray.serving.sampler import SamplerCore


class Service:
    """The backend of the application in one process; one replica's work on a cluster.

    Args:
        config: the run's configuration.
    """

    def __init__(self, config: Config) -> None:
        s = config.serve
        self.core = SamplerCore(config)
        self.batcher = Batcher(self.core.draw, s.max_batch_size, s.batch_wait_ms / 1000, s.queue)

    async def models(self) -> list[dict[str, Any]]:
        """What can be asked for."""
        return await asyncio.to_thread(self.core.models)

    async def model(self, category: str) -> dict[str, Any]:
        """One category in full."""
        return await asyncio.to_thread(self.core.model, category)

    async def base(self, category: str, number: int) -> bytes:
        """One of the run's normal images, as PNG."""
        return await asyncio.to_thread(self.core.base, category, number)

    async def pairs(self, ask: Ask) -> list[dict[str, Any]]:
        """The pairs.

        Raises:
            RefusedError: the question cannot be answered.
            BusyError: the queue is full.
        """
        orders = await asyncio.to_thread(self.core.orders, ask)
        return await self.batcher.finished(self.batcher.submit(orders))

    async def stream(self, ask: Ask) -> AsyncIterator[dict[str, Any]]:
        """Events: ``queued``, then ``progress``, ``preview`` if asked for, and ``pair`` for each pair, then ``done``.

        Raises:
            RefusedError: the question cannot be answered; before the first event.
            BusyError: the queue is full; before the first event.
        """
        orders = await asyncio.to_thread(self.core.orders, ask)
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        ahead = self.batcher.waiting

        def tell(at: int, done: int, total: int, seen: dict[str, str] | None) -> None:
            step = {"pair": at, "done": done, "total": total}
            events.put_nowait({"event": "progress", **step})
            if seen is not None:
                events.put_nowait({"event": "preview", **step, **seen})

        answers = self.batcher.submit(orders, tell)
        for at, answer in enumerate(answers):
            answer.add_done_callback(lambda answer, at=at: events.put_nowait(_told(at, answer)))
        try:
            yield {"event": "queued", "ahead": ahead, "n": len(orders)}
            missing = len(orders)
            while missing:
                event = await events.get()
                if error := event.get("error"):
                    raise error
                missing -= event["event"] == "pair"
                yield event
            yield {"event": "done", "n": len(orders)}
        finally:
            for answer in answers:
                answer.cancel()


def _told(at: int, answer: asyncio.Future[Any]) -> dict[str, Any]:
    if answer.cancelled():
        return {"event": "failed", "error": asyncio.CancelledError()}
    error = answer.exception()
    return {"event": "failed", "error": error} if error else {"event": "pair", "index": at, "pair": answer.result()}
