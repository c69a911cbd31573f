"""What the sections measure against: started when a section first asks, ended with the run.

One Valkey server for all. Each cluster has a key prefix of its own on it, so that one, two and
three instances stand side by side and rounds can go from one to the other.
"""

import contextlib
from pathlib import Path

from bench.report import say
from bench.speed.payload import Pair
from bench.stage import (
    EmptyServer,
    MeasuredInstance,
    log_stacks,
    production_cluster,
    start_measured,
)
from bench.workers import Worker, worker
from registry.store.embedded import EmbeddedServer
from tests.support.cluster import Cluster
from tests.support.waiting import eventually

NODES_AN_INSTANCE, SLOTS = 8, 16
SESSIONS_AN_INSTANCE = 32
Addresses = list[str]


class Hall:
    """Servers, clusters and clients of one run."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._clusters: dict[str, list[MeasuredInstance]] = {}
        self._workers: dict[str, Worker] = {}
        self._empty: EmptyServer | None = None
        self._all: list[Cluster] = []
        self.server = EmbeddedServer(folder / "valkey")
        self.server.ensure()
        stack.callback(self._end)

    @property
    def server_pid(self) -> int:
        if self.server.pid is None:
            raise RuntimeError("the server was not started by this process")
        return self.server.pid

    async def cluster(self, name: str, size: int) -> list[MeasuredInstance]:
        """The instances of the cluster of this name."""
        if name not in self._clusters:
            say(f"starting {size} instance{'s' * (size > 1)} ({name})")
            cluster = self._new_cluster(name)
            names = (f"{name}-{number}" for number in range(1, size + 1))
            self._clusters[name] = await start_measured(cluster, *names)
        return self._clusters[name]

    def empty(self) -> EmptyServer:
        """daphne with the empty applications."""
        if self._empty is None:
            self._empty = self.start_empty("empty")
        return self._empty

    def start_empty(self, name: str) -> EmptyServer:
        """Another one, in a process that served nobody yet."""
        cluster = self._new_cluster(name)
        server = EmptyServer(name, cluster.env, cluster.folder)
        cluster.processes.append(server)
        return server

    async def worker(self, name: str, module: str, *arguments: str) -> Worker:
        """The worker of this name."""
        if name not in self._workers:
            held = worker(f"bench.speed.{module}", *arguments)
            self._workers[name] = await self._stack.enter_async_context(held)
        return self._workers[name]

    async def sockets(self) -> Worker:
        return await self.worker("sockets", "sockets")

    async def fleet(
        self,
        name: str,
        pair: Pair,
        *,
        nodes: list[MeasuredInstance],
        sessions: list[MeasuredInstance],
    ) -> Worker:
        """Nodes and sessions over these instances, so many for each; sessions are new ones."""
        known = name in self._workers
        fleet = await self.worker(name, "fleet", *pair)
        if not known:
            addresses = [instance.node_url for instance in nodes] * NODES_AN_INSTANCE
            await fleet.ask("join", nodes=addresses, slots=SLOTS, name=name)
            for instance in sessions:
                await _has_pool(instance, pair, len(addresses))
        addresses = [instance.session_url for instance in sessions] * SESSIONS_AN_INSTANCE
        await fleet.ask("leave")
        await fleet.ask("open", sessions=addresses)
        return fleet

    def _new_cluster(self, name: str) -> Cluster:
        folder = self._folder / name
        folder.mkdir()
        settings = {"SCHED_REDIS_URL": self.server.url, "SCHED_REDIS_KEY_PREFIX": f"bench-{name}"}
        cluster = production_cluster(folder, **settings)
        self._all.append(cluster)
        return cluster

    def _end(self) -> None:
        for cluster in self._all:
            log_stacks(cluster)
            cluster.end()
        self.server.stop(kill=True)


async def _has_pool(instance: MeasuredInstance, pair: Pair, nodes: int) -> None:
    """Wait until an instance has a pool of the pair with all its nodes."""
    name = "-".join(pair)

    def there() -> bool:
        pools = instance.state().get("pools", [])
        return any(pool["name"] == name and pool["nodes"] == nodes for pool in pools)

    await eventually(there, within_ms=60_000, what=f"the pool {name} at {instance.name}")
