"""Each contract test runs twice: over memory, and over a real server with keys of its own."""

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from registry.store.connection import Connection
from registry.store.embedded import EmbeddedServer
from registry.store.keys import Keys
from tests.contract.backends import Backend, MemoryBackend, RedisBackend

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


@pytest.fixture(params=["memory", "redis"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """One server to share between the stores of a test."""
    if request.param == "memory":
        return MemoryBackend()
    redis: RedisBackend = request.getfixturevalue("redis_backend")
    return redis
