"""What `bench sync` measures: `python -m bench.following WAY URL NODES SECONDS HEARTBEAT_MS`.

Prints one JSON object. Bytes are those that the server counts on this process's connections.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random

import msgspec
from redis.asyncio import Redis

from bench.beats import TTL_MS, membership, register, some_load
from bench.follower import RULES
from pools.domain.index import PoolIndex
from registry.domain.node import NodeSnapshot
from registry.logs import configure_logs
from registry.services.loops import Loops
from registry.services.membership import Membership
from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.wiring import monotonic_ms

NAME = "measured"
_snapshot = msgspec.json.Decoder(NodeSnapshot)


class Following:
    """One measurement."""

    def __init__(self, url: str, *, nodes: int, seconds: float, heartbeat_ms: int) -> None:
        self._connection = Connection(f"{url}?client_name={NAME}")
        self._watch = Redis.from_url(url, protocol=2)
        self._nodes = nodes
        self._seconds = seconds
        self._heartbeat_ms = heartbeat_ms
        self._index = PoolIndex(RULES)
        self._ahead_ms = 0
        self._loops = Loops(Random())  # noqa: S311

    async def ours(self) -> dict[str, float]:
        """An instance without nodes of its own."""
        member = self._member()
        await member.sync()
        return await self._of(member)

    async def owner(self) -> dict[str, float]:
        """An instance that has a third of the nodes itself; it tells their loads."""
        member = self._member()
        own = await register(member, list(range(self._nodes, self._nodes + self._nodes // 3)))
        await member.sync()
        random, share, turns = Random(3), self._heartbeat_ms // 1000, count()  # noqa: S311

        async def beat() -> None:
            for node in own[next(turns) % share :: share]:
                node.load = some_load(random)

        self._loops.every("beats", 1_000, beat)
        return await self._of(member)

    async def seed(self) -> dict[str, float]:
        """Everything, every second."""
        registry: dict[str, NodeSnapshot] = {}
        key = Keys("lingua").nodes

        async def read_all() -> None:
            raw = await self._connection.call("HGETALL", key)
            for node_id, value in zip(raw[::2], raw[1::2], strict=True):
                snapshot = registry[node_id.decode()] = _snapshot.decode(value)
                self._index.put(snapshot.node_id, snapshot.capabilities)

        await read_all()
        self._loops.every("read all", 1_000, read_all)
        return await self._figures() | {"nodes": len(registry)}

    async def stalls(self) -> dict[str, float]:
        """How long the loop is held up by what happens all at once."""
        member = self._member()
        full_ms, full_cpu_ms = await _longest_stall(member.sync)
        # A leader sweeps only when it has been in touch for a presence TTL.
        self._ahead_ms = TTL_MS
        sweep_ms, sweep_cpu_ms = await _longest_stall(member.sweep)
        return {
            "full_ms": full_ms,
            "full_cpu_ms": full_cpu_ms,
            "sweep_ms": sweep_ms,
            "sweep_cpu_ms": sweep_cpu_ms,
        }

    def _member(self) -> Membership:
        member = membership(
            self._connection, "watcher", clock=lambda: monotonic_ms() + self._ahead_ms
        )

        def follow(before: NodeSnapshot | None, after: NodeSnapshot | None) -> None:
            if after is not None:
                self._index.put(after.node_id, after.capabilities)

        member.views.subscribe(follow)
        return member

    async def close(self) -> None:
        await self._loops.stop()
        await self._connection.close()
        await self._watch.aclose()

    async def _of(self, member: Membership) -> dict[str, float]:
        self._loops.again("node news", member.follow)
        self._loops.every("node sync", 1_000, member.sync)
        figures = await self._figures()
        if len(member.views) < self._nodes:
            raise RuntimeError(f"only {len(member.views)} of {self._nodes} nodes were followed")
        loads = sum(view.load.cpu_percent > 0 for view in member.views)
        return figures | {"nodes": len(member.views), "loads": loads, "full": member.full_syncs}

    async def _figures(self) -> dict[str, float]:
        await asyncio.sleep(1.5)
        bytes_before, cpu_before = await self._bytes(), time.process_time()
        await asyncio.sleep(self._seconds)
        cpu_s = time.process_time() - cpu_before
        return {"bytes": await self._bytes() - bytes_before, "cpu_s": cpu_s}

    async def _bytes(self) -> int:
        clients = await self._watch.client_list()
        return sum(
            int(client["tot-net-in"]) + int(client["tot-net-out"])
            for client in clients
            if client["name"] == NAME
        )


async def _longest_stall(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Longest time, in ms, that nothing else ran while `work` did; and its CPU time in ms."""
    longest_s = 0.0

    async def tick() -> None:
        nonlocal longest_s
        while True:
            began = time.monotonic()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.monotonic() - began)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.1)
    longest_s, cpu_before, began = 0.0, time.process_time(), time.monotonic()
    await work()
    cpu_s = min(time.process_time() - cpu_before, time.monotonic() - began)
    await asyncio.sleep(0)
    ticking.cancel()
    return longest_s * 1000, cpu_s * 1000


async def main(way: str, url: str, nodes: int, seconds: float, heartbeat_ms: int) -> None:
    following = Following(url, nodes=nodes, seconds=seconds, heartbeat_ms=heartbeat_ms)
    try:
        figures = await getattr(following, way)()
    finally:
        await following.close()
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    configure_logs("WARNING")
    _way, _url, _nodes, _seconds, _heartbeat_ms = sys.argv[1:]
    asyncio.run(main(_way, _url, int(_nodes), float(_seconds), int(_heartbeat_ms)))
