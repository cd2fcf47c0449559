"""Pairs of different requests in one pass: waiting, filling, drawing, giving up.

Not in the paper. Decided: our own in place of ``serve.batch``, inside which a cancelled request goes on being drawn; a
pass is one at a time, taken from the oldest that waits and all that may share its pass; a pass nobody waits for any
more ends at its next step.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dhdiff_ray.serving.questions import BusyError, Order

OnStep = Callable[[int, int, Sequence[Any] | None], None]
"""Steps done, their number, and a preview for each order now and then."""
Draw = Callable[[Sequence[Order], OnStep], Sequence[Any]]
"""Draws orders of equal settings: (orders, called after each step) -> a result for each."""


class AbandonedError(Exception):
    """Nobody waits for the pass any more."""


@dataclass(eq=False)
class _Waiting:
    order: Order
    answer: asyncio.Future[Any]
    on_step: Callable[[int, int, Any], None] | None
    gone: threading.Event = field(default_factory=threading.Event)


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

    def submit(self, orders: Sequence[Order], on_step: Callable[[int, int, int, Any], None] | None = None) -> list[Any]:
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
            tell = None if on_step is None else (lambda done, total, seen, at=place: on_step(at, done, total, seen))
            items.append(_Waiting(order, loop.create_future(), tell))
        for item in items:
            item.answer.add_done_callback(lambda answer, item=item: item.gone.set() if answer.cancelled() else None)
        self._waiting += items
        self._arrived.set()
        return [item.answer for item in items]

    async def finished(self, answers: Sequence[Any]) -> list[Any]:
        """The results in order; who is cancelled while waiting, or fails, takes its orders out of their passes."""
        try:
            return list(await asyncio.gather(*answers))
        finally:
            for answer in answers:
                answer.cancel()

    async def _work(self) -> None:
        while True:
            self._waiting = [item for item in self._waiting if not item.answer.done()]
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            chosen = self._chosen()
            if len(chosen) < self.size and self.wait_seconds:
                await self._company(chosen[0])
                chosen = self._chosen()
            if not chosen:
                continue
            self._waiting = [item for item in self._waiting if item not in chosen]
            await self._pass(chosen)

    def _chosen(self) -> list[_Waiting]:
        """The oldest that waits and all that may share its pass."""
        alive = [item for item in self._waiting if not item.answer.done()]
        return [item for item in alive if item.order.settings == alive[0].order.settings][: self.size]

    async def _company(self, first: _Waiting) -> None:
        limit = asyncio.get_running_loop().time() + self.wait_seconds
        while not first.answer.done() and len(self._chosen()) < self.size:
            self._arrived.clear()
            left = limit - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._arrived.wait(), max(left, 0))
            except TimeoutError:
                return

    async def _pass(self, items: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()

        def on_step(done: int, total: int, previews: Sequence[Any] | None = None) -> None:
            if all(item.gone.is_set() for item in items):
                raise AbandonedError
            loop.call_soon_threadsafe(_told, items, done, total, previews)

        try:
            results = await asyncio.to_thread(self.draw, [item.order for item in items], on_step)
        except AbandonedError:
            return
        except Exception as error:  # noqa: BLE001  whoever asked gets it
            if len(items) > 1:  # one of them may have spoilt it for all
                for item in items:
                    await self._pass([item])
            elif not items[0].answer.done():
                items[0].answer.set_exception(error)
            return
        self.passes += 1
        self.drawn += len(items)
        for item, result in zip(items, results, strict=True):
            if not item.answer.done():
                item.answer.set_result(result)


def _told(items: Sequence[_Waiting], done: int, total: int, previews: Sequence[Any] | None) -> None:
    for at, item in enumerate(items):
        if item.on_step is not None and not item.answer.done():
            item.on_step(done, total, previews[at] if previews else None)
