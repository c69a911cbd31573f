"""What Redis costs with nothing around it: `python -m bench.speed.redis_floor URL`, a worker.

redis-py's asyncio client on asyncio's own loop, as an instance has it. Values are microseconds.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from bench.speed.payload import utterance
from bench.workers import Worker, serve, worker

RESERVE = Path(__file__).resolve().parents[2] / "routing/store/lua/reserve_slot.lua"
STREAM, GROUP = "bench:hop", "readers"
LEASE_MS = 30_000
UNTIL_BLOCKED_S = 0.002
"""Pause before an XADD: the reader shall be blocked by then, as an inbox is that had no command."""


class RedisFloor:
    """One client, and a reader in a process of its own."""

    def __init__(self, url: str, reader: Worker) -> None:
        self._redis: Any = Redis.from_url(url, protocol=2)
        self._reader = reader
        self._body = utterance("s", 0)
        self._nodes = 0

    async def ping(self, count: int) -> list[float]:
        """One awaited command at a time."""
        return [await self._timed("PING") for _ in range(count)]

    async def reserve(self, count: int) -> list[float]:
        """The reserve script as it stands, each time on a node that was never asked before."""
        sha = await self._redis.script_load(RESERVE.read_text())
        nodes = [self._new_node() for _ in range(count)]
        for _, owner, presence in nodes:
            await self._redis.set(owner, "i|1", px=600_000)
            await self._redis.set(presence, 4, px=600_000)
        command = ("EVALSHA", sha, 3)
        spent = [await self._timed(*command, *keys, "job|1", LEASE_MS, -1) for keys in nodes]
        await self._redis.delete(*(key for keys in nodes for key in keys))
        return spent

    async def hop(self, count: int) -> list[float]:
        """From before an XADD until a reader blocked in XREADGROUP has the entry."""
        spent = []
        for _ in range(count):
            reading = asyncio.create_task(self._reader.ask("read"))
            await asyncio.sleep(UNTIL_BLOCKED_S)
            began = time.monotonic_ns()
            await self._redis.xadd(STREAM, {"b": self._body}, maxlen=1000, approximate=True)
            spent.append((await reading - began) / 1000)
        return spent

    async def _timed(self, *command: Any) -> float:
        began = time.perf_counter_ns()
        await self._redis.execute_command(*command)
        return (time.perf_counter_ns() - began) / 1000

    def _new_node(self) -> tuple[str, str, str]:
        self._nodes += 1
        tag = f"{{node:floor-{self._nodes}}}"
        return f"bench:slots:{tag}", f"bench:owner:{tag}", f"bench:presence:{tag}"


class Reader:
    """The other end of a hop."""

    def __init__(self, url: str) -> None:
        self._redis: Any = Redis.from_url(url, protocol=2, socket_timeout=None)

    async def prepare(self) -> None:
        await self._redis.delete(STREAM)
        await self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)

    async def read(self) -> int:
        """Block for one entry; the moment at which it was there (CLOCK_MONOTONIC, ns)."""
        reply = await self._redis.xreadgroup(GROUP, "r", {STREAM: ">"}, count=1, block=60_000)
        came = time.monotonic_ns()
        await self._redis.xack(STREAM, GROUP, reply[0][1][0][0])
        return came


async def main(url: str) -> None:
    async with worker("bench.speed.redis_floor", url, "reader") as reader:
        await reader.ask("prepare")
        floor = RedisFloor(url, reader)
        await serve({"ping": floor.ping, "reserve": floor.reserve, "hop": floor.hop})


async def read(url: str) -> None:
    reader = Reader(url)
    await serve({"prepare": reader.prepare, "read": reader.read})


if __name__ == "__main__":
    asyncio.run(read(sys.argv[1]) if len(sys.argv) > 2 else main(sys.argv[1]))
