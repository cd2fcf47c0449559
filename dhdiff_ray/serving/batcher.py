"""Draws pairs of different requests in one pass of the sampler; cancelled ones are dropped.

Not in the paper. Decided: not ``serve.batch``, which goes on drawing cancelled requests. One pass runs at a time: the
oldest waiting order and all that may share its pass. A pass that nobody waits for any more ends at its next step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from dhdiff_ray.serving.drawn import DrawnPair, Preview
from dhdiff_ray.serving.orders import Order
from dhdiff_ray.serving.questions import BusyError

OnStep = Callable[[int, int, Sequence[Preview | None] | None], None]
"""Steps done, their number, and a preview for each order now and then."""
Draw = Callable[[Sequence[Order], OnStep], Sequence[DrawnPair]]
"""Draws orders of equal settings: (orders, called after each step) -> a pair for each."""


class AbandonedError(Exception):
    """Nobody waits for the pass any more."""


@dataclass(eq=False)
class _Waiting:
    order: Order
    drawing: asyncio.Future[DrawnPair]
    on_step: Callable[[int, int, Preview | None], None] | None


class Batcher:
    """Collects orders into passes; belongs to one event loop.

    Args:
        draw: called in a thread, one pass at a time.
        size: most orders of one pass.
        wait_seconds: how long a pass that is not full waits for company.
        queue: orders that may wait.
    """

    def __init__(self, draw: Draw, size: int, wait_seconds: float, queue: int) -> None:
        self.draw, self.size, self.wait_seconds, self.queue = draw, size, wait_seconds, queue
        self.passes = 0
        """Passes drawn so far."""
        self.drawn = 0
        """Orders drawn so far, without those that fill a pass up."""
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Orders that wait for their pass."""
        return len(self._waiting)

    def submit(
        self, orders: Sequence[Order], on_step: Callable[[int, int, int, Preview | None], None] | None = None
    ) -> list[asyncio.Future[DrawnPair]]:
        """Put orders into the queue; all or none.

        Args:
            orders: one per pair.
            on_step: called in the loop after each step with the order's place, the steps done, their number, and the
                order's preview or None.

        Returns:
            One future per order; await them with ``finished``.

        Raises:
            BusyError: the queue is full.
        """
        if self._waiting and len(self._waiting) + len(orders) > self.queue:
            raise BusyError
        loop = asyncio.get_running_loop()
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        items = []
        for place, order in enumerate(orders):
            items.append(_Waiting(order, loop.create_future(), None if on_step is None else partial(on_step, place)))
        self._waiting += items
        self._arrived.set()
        return [item.drawing for item in items]

    async def finished(self, drawings: Sequence[asyncio.Future[DrawnPair]]) -> list[DrawnPair]:
        """The pairs in order; a request that is cancelled or fails takes its orders out of their passes."""
        try:
            return list(await asyncio.gather(*drawings))
        finally:
            for drawing in drawings:
                drawing.cancel()

    async def _work(self) -> None:
        while True:
            self._waiting = [item for item in self._waiting if not item.drawing.done()]
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            chosen = self._chosen()
            if len(chosen) < self.size and self.wait_seconds:
                await self._wait_for_more(chosen[0])
                chosen = self._chosen()
            if not chosen:
                continue
            self._waiting = [item for item in self._waiting if item not in chosen]
            await self._pass(chosen)

    def _chosen(self) -> list[_Waiting]:
        """The oldest waiting order and all that may share its pass."""
        alive = [item for item in self._waiting if not item.drawing.done()]
        return [item for item in alive if item.order.shared == alive[0].order.shared][: self.size]

    async def _wait_for_more(self, first: _Waiting) -> None:
        limit = asyncio.get_running_loop().time() + self.wait_seconds
        while not first.drawing.done() and len(self._chosen()) < self.size:
            self._arrived.clear()
            left = limit - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._arrived.wait(), max(left, 0))
            except TimeoutError:
                return

    async def _pass(self, items: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()

        def on_step(done: int, total: int, previews: Sequence[Preview | None] | None = None) -> None:
            if all(item.drawing.cancelled() for item in items):
                raise AbandonedError
            loop.call_soon_threadsafe(_notify, items, done, total, previews)

        try:
            pairs = await asyncio.to_thread(self.draw, [item.order for item in items], on_step)
        except AbandonedError:
            return
        except Exception as error:  # noqa: BLE001  whoever asked gets it
            if len(items) > 1:  # one of them may have spoilt it for all
                for item in items:
                    await self._pass([item])
            elif not items[0].drawing.done():
                items[0].drawing.set_exception(error)
            return
        self.passes += 1
        self.drawn += len(items)
        for item, pair in zip(items, pairs, strict=True):
            if not item.drawing.done():
                item.drawing.set_result(pair)


def _notify(items: Sequence[_Waiting], done: int, total: int, previews: Sequence[Preview | None] | None) -> None:
    for place, item in enumerate(items):
        if item.on_step is not None and not item.drawing.done():
            item.on_step(done, total, previews[place] if previews else None)
