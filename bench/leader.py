"""How long the cluster is without a leader after one is killed, and after one stops in order.

Measured from the signal to the first configuration that the next leader publishes, as a reader
that blocks on the news gets it, with warm standbys. A killed leader's lease has to run out first,
so its share is counted in leases.
"""

import argparse
import asyncio
import itertools
import tempfile
import time
from pathlib import Path
from random import Random

from bench.report import Row, at_most, finish, plain, say, spread
from pools.domain.news import Published
from pools.domain.snapshot import PoolConfig
from pools.store.catalog import RedisCatalogStore
from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.leases import RedisLeaseStore
from tests.support.agents import Node
from tests.support.cluster import Cluster, Process

WARM = 3
"""Candidates that are up when a leader is ended, itself included; one more is starting."""
NEXT_LEADER_S = 60.0
WARM_S = 120.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=50, help="leaders killed (50)")
    parser.add_argument("--stops", type=int, default=20, help="leaders stopped in order (20)")
    parser.add_argument("--ttl-ms", type=int, default=3000, help="the lease (3000)")
    parser.add_argument("--renew-ms", type=int, default=500, help="its renewal (500)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills (1)")


def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-leader-") as folder:
        return asyncio.run(_run(options, Path(folder)))


async def _run(options: argparse.Namespace, folder: Path) -> int:
    cluster = Cluster(
        folder,
        SCHED_LEADER_TTL_MS=str(options.ttl_ms),
        SCHED_LEADER_RENEW_MS=str(options.renew_ms),
        SCHED_POOL_SYNC_MS="10000",
        SCHED_SNAPSHOT_SYNC_MS="1000",
        PYTHONWARNINGS="ignore",
    )
    cluster.start_server()
    try:
        (instance,) = await cluster.start_instances("serving", SCHED_LEADER_CANDIDATE="false")
        async with (
            Node(instance.node_url, "n1", "zh-en", "en-zh"),
            Node(instance.node_url, "n2", "zh-en", "ja-en"),
        ):
            trial = Succession(cluster, Random(options.seed), renew_ms=options.renew_ms)  # noqa: S311
            await trial.begin()
            killed = [await trial.end_leader(kill=True) for _ in _counted("kill", options.kills)]
            stopped = [await trial.end_leader(kill=False) for _ in _counted("stop", options.stops)]
            await trial.close()
    finally:
        cluster.end()
    rows = [plain("lease", options.ttl_ms, unit=" ms")]
    if killed:
        rows += _rows("killed", killed, options.ttl_ms, limit=1.2)
    if stopped:
        rows += _rows("stopped in order", stopped, options.ttl_ms, limit=0.1)
    raw = {"killed_ms": killed, "stopped_ms": stopped}
    return finish("leader: time to the next published configuration", rows, json_path=options.json,
                  raw=raw)  # fmt: skip


class Succession:
    """A line of candidates, one of which leads; its end is measured again and again."""

    def __init__(self, cluster: Cluster, random: Random, *, renew_ms: int) -> None:
        self._cluster = cluster
        self._random = random
        self._renew_ms = renew_ms
        self._names = (f"candidate-{n}" for n in itertools.count(1))
        self._candidates: dict[str, Process] = {}
        self._keys = Keys("lingua")
        self._connection = connection = Connection(cluster.server.url)
        self._lease = RedisLeaseStore(connection, self._keys, ttl_ms=1)
        self._catalog = RedisCatalogStore(connection, self._keys, config_ttl_ms=1)
        self._position = "0-0"

    async def begin(self) -> None:
        """Start the candidates and wait until one leads."""
        self._refill()
        await self._next_config(after_epoch=0)
        say("a leader is there")

    async def close(self) -> None:
        await self._connection.close()

    async def end_leader(self, *, kill: bool) -> float:
        """End the leader when the standbys are warm; ms until its successor's configuration."""
        holder, epoch = await self._warm()
        leader = self._candidates.pop(holder)
        # Anywhere between two renewals, so that the rest of the lease varies as in life.
        await asyncio.sleep(self._random.random() * self._renew_ms / 1000)
        watching = asyncio.create_task(self._next_config(after_epoch=epoch))
        await asyncio.sleep(0.01)
        began = time.monotonic()
        leader.signal(9 if kill else 15)
        config, came = await watching
        if config.generated_by == holder or config.epoch <= epoch:
            raise RuntimeError(f"{config.generated_by} published under {config.epoch} again")
        await asyncio.to_thread(leader.ended)
        self._refill()
        return (came - began) * 1000

    def _refill(self) -> None:
        while len(self._candidates) < WARM + 1:
            name = next(self._names)
            self._candidates[name] = self._cluster.start_leader(name)

    async def _warm(self) -> tuple[str, int]:
        """Wait until one candidate leads and enough others stand by; its name and epoch."""
        give_up_at = time.monotonic() + WARM_S
        while time.monotonic() < give_up_at:
            held = await self._lease.holder()
            names = await self._connection.call("HKEYS", self._keys.instances)
            warm = {name.decode() for name in names} & set(self._candidates)
            if held is not None and held.instance_id in warm and len(warm) >= WARM:
                return held.instance_id, held.epoch
            await asyncio.sleep(0.05)
        raise RuntimeError("the standbys did not start")

    async def _next_config(self, *, after_epoch: int) -> tuple[PoolConfig, float]:
        """The first configuration of a later epoch, and when it came."""
        async with asyncio.timeout(NEXT_LEADER_S):
            while True:
                self._position, news = await self._catalog.news(self._position, within_ms=1000)
                came = time.monotonic()
                for item in news:
                    if isinstance(item, Published) and item.config.epoch > after_epoch:
                        return item.config, came


def _counted(what: str, number: int) -> list[int]:
    say(f"{number} x {what}")
    return list(range(number))


def _rows(what: str, values_ms: list[float], ttl_ms: int, *, limit: float) -> list[Row]:
    found = spread(values_ms)
    return [
        plain(f"{what}: times", len(values_ms)),
        *(plain(f"{what}: {name}", round(value, 1), unit=" ms") for name, value in found.items()),
        plain(f"{what}: p50", round(found["p50"] / ttl_ms, 3), unit=" leases"),
        at_most(f"{what}: p99", round(found["p99"] / ttl_ms, 3), limit, unit=" leases"),
        plain(f"{what}: max", round(found["max"] / ttl_ms, 3), unit=" leases"),
    ]
