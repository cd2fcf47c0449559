"""The peak is of the sum over processes, and a process that has ended counts nothing."""

import os
import time

from dhdiff_ray.cli.commands.demo import MemoryWatch, memory_of


def test_a_process_has_memory_and_a_dead_one_has_none():
    assert memory_of(os.getpid()) > 5e6
    assert memory_of(2**22 - 3) == 0


def test_the_watch_keeps_the_peak():
    with MemoryWatch(list, every=0.02) as watch:
        block = bytearray(os.urandom(1)) * 60_000_000
        time.sleep(0.3)
        high = watch.peak_bytes
        del block
        time.sleep(0.2)
    assert watch.peak_bytes >= high > 60e6
