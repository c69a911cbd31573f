"""Fixtures of tests over Redis in its other forms: real instances over real servers."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agents import close_peers
from tests.support.cluster import Cluster
from tests.support.redis_servers import ShardedRedis, WatchedRedis

PATIENT = {
    "SCHED_JOB_TIMEOUT_MS": "3000",
    "SCHED_PRESENCE_TTL_MS": "10000",
    "SCHED_OWNER_TTL_MS": "10000",
}
"""What got lost with a master is tried again soon; a failover is shorter than a presence."""


@pytest.fixture
def sharded(tmp_path: Path) -> Iterator[ShardedRedis]:
    """Three masters with a replica each."""
    servers = ShardedRedis(tmp_path / "cluster")
    try:
        servers.start()
        yield servers
    finally:
        servers.end()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchedRedis]:
    """A master, two replicas, three Sentinels."""
    servers = WatchedRedis(tmp_path / "sentinel")
    try:
        servers.start()
        yield servers
    finally:
        servers.end()


@pytest.fixture
def over(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Cluster]]:
    """Makes a cluster of instances over servers with these settings; no log may hold a stack."""
    made: list[Cluster] = []

    def make(env: dict[str, str]) -> Cluster:
        cluster = Cluster(tmp_path, **PATIENT | env)
        made.append(cluster)
        return cluster

    try:
        yield make
    finally:
        for cluster in made:
            cluster.end()
    for cluster in made:
        cluster.check_logs()


@pytest.fixture(autouse=True)
async def peers_end_with_their_test() -> AsyncIterator[None]:
    """A socket left open is closed, so that it cannot warn in the middle of another test."""
    yield
    await close_peers()
