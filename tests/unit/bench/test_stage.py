"""Costs of processes, and times that are kept."""

import asyncio
import os
import time

import pytest

from bench.speed.pacing import Alarm, schedule
from bench.stage import TICKS_S, cpu_s, parse_cpu_s, parse_resident_bytes, resident_bytes

STAT = "77 ({name}) S 1 77 77 0 -1 4194560 900 0 3 0 {user} {system} 8 9 20 0 5 0 100 1000 200 0"


@pytest.mark.parametrize("name", ["python3", "a b", "odd) S 1 (name"])
def test_cpu_is_read_behind_any_command_name(name: str) -> None:
    stat = STAT.format(name=name, user=TICKS_S, system=TICKS_S * 2)
    assert parse_cpu_s(stat) == 3


def test_resident_memory_is_the_line_rss_and_no_other() -> None:
    rollup = "5555-7777 ---p 0 00:00 0 [rollup]\nRss:   1540 kB\nPss:  730 kB\nPss_Anon: 9 kB\n"
    assert parse_resident_bytes(rollup) == 1540 * 1024


def test_a_process_that_works_uses_cpu() -> None:
    before, until = cpu_s(os.getpid()), time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert cpu_s(os.getpid()) > before


def test_memory_that_is_written_is_resident() -> None:
    before = resident_bytes(os.getpid())
    held = b"x" * 50_000_000
    assert resident_bytes(os.getpid()) - before > 40_000_000
    assert len(held) == 50_000_000


def test_moments_are_evenly_spaced_over_the_whole_time() -> None:
    assert schedule(4, 1.5, begin_ns=0) == [0, 250_000_000, 500_000_000, 750_000_000,
                                            1_000_000_000, 1_250_000_000]  # fmt: skip


async def test_an_alarm_does_not_ring_before_its_time() -> None:
    loop, alarm = asyncio.get_running_loop(), Alarm()
    rang = loop.create_future()

    def ring() -> None:
        alarm.clear()
        loop.remove_reader(alarm.fd)
        rang.set_result(time.monotonic_ns())

    loop.add_reader(alarm.fd, ring)
    due = time.monotonic_ns() + 3_000_000
    alarm.set(due)
    assert await asyncio.wait_for(rang, 5) >= due
    alarm.close()


async def test_an_alarm_whose_time_is_over_rings_at_once() -> None:
    alarm, rang = Alarm(), asyncio.Event()
    asyncio.get_running_loop().add_reader(alarm.fd, rang.set)
    alarm.set(time.monotonic_ns() - 1_000_000_000)
    await asyncio.wait_for(rang.wait(), 5)
    asyncio.get_running_loop().remove_reader(alarm.fd)
    alarm.close()
