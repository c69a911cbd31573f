"""One process of followers for `bench push`: `python -m bench.follower URL FOLLOWERS HOP`.

Writes a line of JSON, [kind, number, monotonic seconds], for each configuration applied and each
hop that came; the lines wait a little, so that writing them delays nothing that is measured.
"""

import asyncio
import json
import sys
import time
from random import Random

import uvloop
from redis.asyncio import Redis

from pools.domain.generation import PoolRules
from pools.domain.index import PoolIndex
from pools.domain.news import News, Published
from pools.services.sync import PoolSync
from pools.store.catalog import RedisCatalogStore
from registry.logs import configure_logs
from registry.services.loops import Loops, Step
from registry.services.ports import Clock
from registry.services.views import NodeViews
from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.wiring import monotonic_ms

HOP, HOPS = "bench:hop", "bench:hops"
WRITE_AFTER_S = 0.005
RULES = PoolRules(
    min_nodes_per_pool=1, max_pools=50, enable_mixed_pools=True, require_semantic=True
)


def follower(
    connection: Connection, keys: Keys, *, clock: Clock = monotonic_ms
) -> tuple[PoolSync, RedisCatalogStore]:
    """A follower as an instance has it. It reads the clock when a configuration is in force."""
    catalog = RedisCatalogStore(connection, keys, config_ttl_ms=3_600_000)
    return PoolSync(catalog, PoolIndex(RULES), NodeViews(), clock=clock), catalog


class Lines:
    """Lines for the parent, written a little later."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, int, float]] = []

    def add(self, kind: str, number: int, at: float) -> None:
        self._waiting.append((kind, number, at))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(WRITE_AFTER_S, self._write)

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        sys.stdout.write("".join(json.dumps(line) + "\n" for line in waiting))
        sys.stdout.flush()


async def main(url: str, followers: int, *, hop: bool) -> None:
    lines, loops, keys = Lines(), Loops(Random()), Keys("lingua")  # noqa: S311
    connections = [Connection(url) for _ in range(followers)]
    syncs = [_follow(connection, keys, lines, loops) for connection in connections]
    if hop:
        loops.again("hop", _reader(url, HOP, lines))
    for _ in range(followers):
        loops.again("hops", _reader(url, HOPS, lines))
    while not all(sync.followed for sync in syncs):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    lines.add("ready", 0, time.monotonic())
    await asyncio.to_thread(sys.stdin.read)
    await loops.stop()
    for connection in connections:
        await connection.close()


def _follow(connection: Connection, keys: Keys, lines: Lines, loops: Loops) -> PoolSync:
    """Start a follower that notes when each configuration was in force."""
    in_force = 0.0

    def clock() -> int:
        nonlocal in_force
        in_force = time.monotonic()
        return int(in_force * 1000)

    def note(news: News) -> None:
        if isinstance(news, Published):
            lines.add("applied", news.config.version, in_force)

    sync, _ = follower(connection, keys, clock=clock)
    sync.subscribe(note)
    loops.again("pool news", sync.follow)
    loops.every("pool poll", 10_000, sync.poll)
    return sync


def _reader(url: str, key: str, lines: Lines) -> Step:
    """A step that blocks for the next entry of a plain stream."""
    redis = Redis.from_url(url, socket_timeout=None, protocol=2)
    position = "0-0"

    async def read() -> None:
        nonlocal position
        reply = await redis.execute_command(  # type: ignore[no-untyped-call]
            "XREAD", "COUNT", 1000, "BLOCK", 5000, "STREAMS", key, position
        )
        came = time.monotonic()
        for entry_id, fields in reply[0][1] if reply else []:
            position = entry_id.decode()
            lines.add(key, int(dict(fields)[b"n"]), came)

    return read


if __name__ == "__main__":
    configure_logs("INFO")
    # On the loop that instances run on.
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), hop=sys.argv[3] == "1"))
