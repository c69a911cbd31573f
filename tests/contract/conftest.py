"""Each contract test runs over memory, a real server and a real cluster, with keys of its own."""

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from registry.store.address import cluster
from registry.store.connection import Connection
from registry.store.embedded import EmbeddedServer
from registry.store.keys import Keys
from tests.contract.backends import Backend, ClusterBackend, MemoryBackend, RedisBackend
from tests.support.redis_servers import ShardedRedis

_prefixes = (f"test{number}" for number in count())


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedServer(tmp_path_factory.mktemp("redis"))
    server.ensure()
    yield server.url
    server.stop()


@pytest.fixture
async def redis_backend(redis_url: str) -> AsyncIterator[RedisBackend]:
    connection = Connection(redis_url)
    yield RedisBackend(connection, Keys(next(_prefixes)))
    await connection.close()


@pytest.fixture(scope="session")
def sharded_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardedRedis]:
    """Three masters; what becomes of them is for the tests of Redis in its forms."""
    servers = ShardedRedis(tmp_path_factory.mktemp("cluster"), replicas=0)
    try:
        servers.start()
        yield servers
    finally:
        servers.end()


@pytest.fixture
async def cluster_backend(sharded_redis: ShardedRedis) -> AsyncIterator[ClusterBackend]:
    connection = Connection(cluster(sharded_redis.urls))
    yield ClusterBackend(connection, Keys(next(_prefixes)), sharded_redis)
    await connection.close()


@pytest.fixture(params=["memory", "redis", "cluster"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """One server to share between the stores of a test."""
    if request.param == "memory":
        return MemoryBackend()
    found: RedisBackend = request.getfixturevalue(f"{request.param}_backend")
    return found
