"""Passes: who shares one, who waits, who is told no; and models held a few at a time."""

import asyncio
import time

import pytest

from dhdiff_ray.config import SynthesizeConfig
from dhdiff_ray.records import Request
from dhdiff_ray.serving.batcher import Batcher
from dhdiff_ray.serving.orders import Order
from dhdiff_ray.serving.questions import BusyError


def order(seed, category="mesh", steps=3):
    request = Request(category, "bent", 0, seed, "", "", "")
    return Order(request, SynthesizeConfig(steps=steps))


class Drawing:
    """Draws an order as its seed; keeps what each pass held."""

    def __init__(self, step_seconds=0.0):
        self.passes, self.step_seconds = [], step_seconds

    def __call__(self, orders, on_step):
        seeds = [o.request.seed for o in orders]
        self.passes.append(seeds)
        for step in range(orders[0].settings.steps):
            time.sleep(self.step_seconds)
            on_step(step + 1, orders[0].settings.steps, seeds if step == 1 else None)
        if -1 in seeds:
            raise KeyError("spoilt")
        return seeds


def test_equal_settings_share_a_pass_and_others_wait_their_turn():
    drawing = Drawing()

    async def run():
        batcher = Batcher(drawing, 3, 0.05, 99)
        orders = [[order(1), order(2)], [order(3, "capsule")], [order(4), order(5)], [order(6, steps=1)]]
        return await asyncio.gather(*(batcher.finished(batcher.submit(some)) for some in orders))

    assert asyncio.run(run()) == [[1, 2], [3], [4, 5], [6]]
    assert drawing.passes == [[1, 2, 4], [3], [5], [6]]


def test_more_than_may_wait_is_refused_whole():
    async def run():
        batcher = Batcher(Drawing(0.05), 1, 0.0, 2)
        first = batcher.submit([order(1), order(2)])
        with pytest.raises(BusyError):
            batcher.submit([order(3)])
        assert await batcher.finished(first) == [1, 2]
        return await batcher.finished(batcher.submit([order(3)]))

    assert asyncio.run(run()) == [3]


def test_a_pass_nobody_waits_for_ends_at_its_next_step_and_a_shared_one_goes_on():
    drawing = Drawing(0.02)

    async def run():
        batcher = Batcher(drawing, 2, 0.0, 99)
        alone = asyncio.ensure_future(batcher.finished(batcher.submit([order(1, steps=500)])))
        await asyncio.sleep(0.1)
        alone.cancel()
        start = time.monotonic()
        leaving = asyncio.ensure_future(batcher.finished(batcher.submit([order(2, steps=9)])))
        staying = asyncio.ensure_future(batcher.finished(batcher.submit([order(3, steps=9)])))
        await asyncio.sleep(0.1)
        leaving.cancel()
        assert await staying == [3]
        return time.monotonic() - start

    assert asyncio.run(run()) < 8  # of 10 s that the abandoned pass would take
    assert drawing.passes == [[1], [2, 3]]


def test_one_spoilt_order_does_not_spoil_its_pass():
    async def run():
        batcher = Batcher(Drawing(), 3, 0.05, 99)
        work = [batcher.finished(batcher.submit([order(seed)])) for seed in (1, -1, 2)]
        return await asyncio.gather(*work, return_exceptions=True)

    one, spoilt, two = asyncio.run(run())
    assert (one, two) == ([1], [2])
    assert isinstance(spoilt, KeyError)


def test_steps_and_previews_are_told_to_whom_they_belong():
    told = []

    async def run():
        batcher = Batcher(Drawing(), 2, 0.05, 99)
        return await batcher.finished(batcher.submit([order(1), order(2)], lambda *what: told.append(what)))

    asyncio.run(run())
    assert told == [(at, done, 3, at + 1 if done == 2 else None) for done in (1, 2, 3) for at in (0, 1)]
