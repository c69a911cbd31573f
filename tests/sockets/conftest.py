"""One real instance for all socket tests; each test takes languages and ids of its own."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Instance

LARGEST_FRAME = 1_000_000
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def sockets_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """What the socket tests share; at the end no log may hold a stack."""
    cluster = Cluster(tmp_path_factory.mktemp("sockets"), SCHED_MAX_FRAME_BYTES=str(LARGEST_FRAME))
    cluster.start_server()
    try:
        yield cluster
    finally:
        cluster.end()
    cluster.check_logs()


@pytest.fixture(scope="session")
def instance(sockets_cluster: Cluster) -> Instance:
    """An open instance, ready."""
    (instance,) = asyncio.run(sockets_cluster.start_instances("shared"))
    return instance


@pytest.fixture
def number() -> int:
    """A number of the test's own, for names that no other test uses."""
    return next(_numbers)


@pytest.fixture
def node_id(number: int) -> str:
    return f"n{number}"


@pytest.fixture
def pair(number: int) -> str:
    """A language pair of the test's own."""
    return f"s{number}-t{number}"


@pytest.fixture(scope="session")
def locked(sockets_cluster: Cluster) -> Instance:
    """An instance that wants credentials from everyone."""
    required = {"SCHED_NODE_AUTH": "required", "SCHED_SESSION_AUTH": "required"}
    # Of a cluster of its own, so that the shared instance stays the only one in its cluster.
    (locked,) = asyncio.run(
        sockets_cluster.start_instances("locked", SCHED_REDIS_KEY_PREFIX="locked", **required)
    )
    return locked


@pytest.fixture
def cluster_of_its_own(tmp_path: Path) -> Iterator[Cluster]:
    """For a test that says itself what the logs may hold."""
    cluster = Cluster(tmp_path)
    cluster.start_server()
    try:
        yield cluster
    finally:
        cluster.end()
