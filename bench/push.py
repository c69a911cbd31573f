"""How long a published configuration takes to be in force at every follower, in stream hops.

One hop is a plain XADD of as many bytes until a process that blocks in XREAD has them. Followers
are `PoolSync`s in processes of their own; publications, hops to one reader and hops to as many
readers as there are followers take turns. Then the news are withheld from a follower, which has
only its poll left.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from bench.follower import HOP, HOPS, follower
from bench.report import at_most, finish, plain, say, spread
from pools.domain.pool import Pool, PoolKind, pool_name
from pools.domain.snapshot import PoolConfig, encode
from pools.store.catalog import RedisCatalogStore
from registry.domain.lease import Granted
from registry.logs import configure_logs
from registry.services.loops import Loops
from registry.store.connection import Connection
from registry.store.embedded import EmbeddedServer
from registry.store.keys import Keys
from registry.store.leases import RedisLeaseStore

ME = "bench"
LONG_MS = 3_600_000
ROOT = Path(__file__).resolve().parent.parent


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--publish", type=int, default=500, help="configurations published (500)")
    parser.add_argument("--followers", type=int, default=8, help="instances that follow (8)")
    parser.add_argument(
        "--processes", type=int, help="that they share (one each, as instances have)"
    )
    parser.add_argument("--pools", type=int, default=20, help="pools in a configuration (20)")
    parser.add_argument("--poll-ms", type=int, default=1000, help="poll, for lost news (1000)")
    parser.add_argument("--lost", type=int, default=20, help="publications with lost news (20)")


def run(options: argparse.Namespace) -> int:
    configure_logs("WARNING")
    with tempfile.TemporaryDirectory(prefix="bench-push-") as folder:
        return asyncio.run(_run(options, Path(folder)))


async def _run(options: argparse.Namespace, folder: Path) -> int:
    server = EmbeddedServer(folder)
    server.ensure()
    connection, keys = Connection(server.url), Keys("lingua")
    try:
        publisher = await Publisher.elected(connection, keys, pools=options.pools)
        async with _followers(server.url, _shares(options), folder) as arrivals:
            pushed, hops, fans = await _take_turns(options, publisher, server.url, arrivals)
        lost = await _lose_news(options, publisher, server.url, keys)
    finally:
        await connection.close()
        server.stop(kill=True)
    push, hop, fan = spread(pushed), spread(hops), spread(fans)
    ms = {"publish to applied": push, "one hop": hop, f"hop to {options.followers} readers": fan}
    rows = [
        plain(f"{what}: {name}", round(value, 3), unit=" ms")
        for what, found in ms.items()
        for name, value in found.items()
    ]
    rows += [
        at_most("applied p50 / hop p50", push["p50"] / hop["p50"], 3, unit=" hops"),
        at_most("applied p99 / hop p50", push["p99"] / hop["p50"], 10, unit=" hops"),
        plain("applied p99 / hop p99", push["p99"] / hop["p99"], unit=" hops"),
        plain("applied p50 / hop to all p50", push["p50"] / fan["p50"], unit=" hops"),
        plain("applied p99 / hop to all p99", push["p99"] / fan["p99"], unit=" hops"),
    ]
    if lost:
        late = spread(lost)
        rows.append(plain("news lost: p50", late["p50"] / options.poll_ms, unit=" polls"))
        rows.append(at_most("news lost: max", late["max"] / options.poll_ms, 1.1, unit=" polls"))
    raw = {"applied_ms": pushed, "hop_ms": hops, "fan_ms": fans, "lost_ms": lost}
    return finish("push: publication to application", rows, json_path=options.json, raw=raw)


class Publisher:
    """A leader that publishes whenever it is asked."""

    def __init__(
        self, catalog: RedisCatalogStore, connection: Connection, keys: Keys, *, epoch: int,
        pools: int,
    ) -> None:  # fmt: skip
        self._catalog = catalog
        self._connection = connection
        self._keys = keys
        self._epoch = epoch
        self._version = 0
        self._pools = pools

    @classmethod
    async def elected(cls, connection: Connection, keys: Keys, *, pools: int) -> "Publisher":
        granted = await RedisLeaseStore(connection, keys, ttl_ms=LONG_MS).acquire(ME, floor=0)
        if not isinstance(granted, Granted):
            raise RuntimeError(  # noqa: TRY004
                f"the lease of a fresh server is held: {granted}"
            )
        catalog = RedisCatalogStore(connection, keys, config_ttl_ms=LONG_MS)
        return cls(catalog, connection, keys, epoch=granted.epoch, pools=pools)

    async def publish(self) -> tuple[int, float]:
        """Publish the next version; its number and the moment before."""
        config = self._next()
        began = time.monotonic()
        outcome = await self._catalog.publish(config, candidate=ME)
        if not outcome.published:
            raise RuntimeError(f"version {config.version} was refused: {outcome}")
        return config.version, began

    async def hop(self, key: str, number: int) -> float:
        """Send as many bytes down a plain stream; the moment before."""
        fields = ("n", number, "content", encode(self._next(grow=0)))
        began = time.monotonic()
        await self._connection.call("XADD", key, "MAXLEN", "~", 1000, "*", *fields)
        return began

    def _next(self, *, grow: int = 1) -> PoolConfig:
        self._version += grow
        # One pool differs from one version to the next, as when a node brings a pair.
        names = [*(f"l{n}" for n in range(self._pools - 1)), f"x{self._version % 7}"]
        return PoolConfig(
            version=self._version,
            epoch=self._epoch,
            generated_at_ms=0,
            generated_by=ME,
            reason="bench",
            next_pool_id=self._pools + 10,
            pools=tuple(
                Pool(n, pool_name(name, "en"), PoolKind.EXACT, name, "en")
                for n, name in enumerate(names, 1)
            ),
        )


class Arrivals:
    """What the followers' processes say: which of them had what, and when."""

    def __init__(self, readers: int) -> None:
        self._readers = readers
        self._came: dict[tuple[str, int], list[float]] = {}
        self._news = asyncio.Condition()

    async def take(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            kind, number, at = json.loads(line)
            async with self._news:
                self._came.setdefault((kind, number), []).append(at)
                self._news.notify_all()

    async def of(self, kind: str, number: int, *, readers: int | None = None) -> list[float]:
        """The moments at which all readers had it."""
        wanted = readers or self._readers
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: len(self._came.get((kind, number), ())) == wanted)
        return self._came.pop((kind, number))


def _shares(options: argparse.Namespace) -> list[int]:
    """How many followers each process has: as even as can be."""
    processes = min(options.processes or options.followers, options.followers)
    return [len(range(part, options.followers, processes)) for part in range(processes)]


@asynccontextmanager
async def _followers(url: str, shares: list[int], folder: Path) -> AsyncIterator[Arrivals]:
    arrivals = Arrivals(sum(shares))
    log = (folder / "followers.log").open("wb")
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.follower", url, str(share), str(int(part == 0))),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
        for part, share in enumerate(shares)
    ]
    readers = [
        asyncio.create_task(arrivals.take(process.stdout))
        for process in processes
        if process.stdout is not None
    ]
    try:
        await arrivals.of("ready", 0, readers=len(shares))
        yield arrivals
    finally:
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()  # They end with it.
        await asyncio.gather(*(process.wait() for process in processes), *readers)
        log.close()


async def _take_turns(
    options: argparse.Namespace, publisher: Publisher, url: str, arrivals: Arrivals
) -> tuple[list[float], list[float], list[float]]:
    pushed: list[float] = []
    hops: list[float] = []
    fans: list[float] = []
    for turn in range(1, options.publish + 1):
        began = await publisher.hop(HOP, turn)
        hops += [(at - began) * 1000 for at in await arrivals.of(HOP, turn, readers=1)]
        version, began = await publisher.publish()
        pushed += [(at - began) * 1000 for at in await arrivals.of("applied", version)]
        began = await publisher.hop(HOPS, turn)
        fans += [(at - began) * 1000 for at in await arrivals.of(HOPS, turn)]
        if turn % 100 == 0:
            say(f"{turn} of {options.publish} published")
    return pushed, hops, fans


async def _lose_news(
    options: argparse.Namespace, publisher: Publisher, url: str, keys: Keys
) -> list[float]:
    """Publish at any moment of the poll to a follower that hears no news."""
    random, late = Random(2), []  # noqa: S311
    connection = Connection(url)
    sync, catalog = follower(connection, keys)

    async def nothing(since: str, *, within_ms: int) -> tuple[str, list[object]]:
        await asyncio.sleep(within_ms / 1000)
        return since, []

    catalog.news = nothing  # type: ignore[assignment, method-assign]
    loops = Loops(random)
    loops.again("pool news", sync.follow)
    loops.every("pool poll", options.poll_ms, sync.poll)
    say(f"{options.lost} published without news")
    try:
        for _ in range(options.lost):
            await asyncio.sleep(random.random() * options.poll_ms / 1000)
            version, began = await publisher.publish()
            async with asyncio.timeout(5 * options.poll_ms / 1000):
                while sync.config.version < version:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            late.append((time.monotonic() - began) * 1000)
    finally:
        await loops.stop()
        await connection.close()
    return late
