"""Real instances for all socket tests; each test takes languages and ids of its own."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from tests.support.agents import close_peers
from tests.support.cluster import Cluster, Instance

SESSION_KEYS = "k2:" + "second-" * 8 + ",k1:" + "first-" * 8
LARGEST_FRAME = 1_000_000
DEFAULT_LARGEST = 4_000_000
ACK_TIMEOUT_MS = 700
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Instances:
    """Instances, each a cluster of its own but for the two that want credentials."""

    shared: Instance
    locked: Instance
    locked_too: Instance
    spare: Instance
    cluster: Cluster


@pytest.fixture(scope="session")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instances]:
    """What the socket tests share; at the end no log may hold a stack."""
    limit = {
        "SCHED_MAX_FRAME_BYTES": str(LARGEST_FRAME),
        "SCHED_ACK_TIMEOUT_MS": str(ACK_TIMEOUT_MS),
    }
    cluster = Cluster(tmp_path_factory.mktemp("sockets"), **limit)
    cluster.start_server()
    locks = {
        "SCHED_REDIS_KEY_PREFIX": "locked",
        "SCHED_NODE_AUTH": "required",
        "SCHED_SESSION_AUTH": "required",
        "SCHED_SESSION_KEYS": SESSION_KEYS,
        "DEBUG": "false",
    }
    migrated = cluster.run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    try:
        started = Instances(
            cluster.start_instance("shared", SCHED_REDIS_KEY_PREFIX="shared"),
            cluster.start_instance("locked", **locks),
            cluster.start_instance("locked-too", **locks),
            cluster.start_instance(
                "spare", SCHED_REDIS_KEY_PREFIX="spare", SCHED_MAX_FRAME_BYTES=str(DEFAULT_LARGEST)
            ),
            cluster,
        )
        asyncio.run(all_ready(started))
        yield started
    finally:
        cluster.end()
    cluster.processes.remove(started.spare)
    cluster.check_logs()


async def all_ready(instances: Instances) -> None:
    for instance in (instances.shared, instances.locked, instances.locked_too, instances.spare):
        await instance.ready()


@pytest.fixture
def instance(instances: Instances) -> Instance:
    """An open instance."""
    return instances.shared


@pytest.fixture
def locked(instances: Instances) -> Instance:
    """An instance that wants credentials from everyone."""
    return instances.locked


@pytest.fixture
def spare(instances: Instances) -> Instance:
    """An open instance that takes frames as large as by default; tests look at its log."""
    return instances.spare


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


@pytest.fixture(autouse=True)
async def peers_end_with_their_test() -> AsyncIterator[None]:
    """A socket left open is closed, so that it cannot warn in the middle of another test."""
    yield
    await close_peers()
