"""Fixtures of tests over real processes."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.agents import close_peers
from tests.support.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A server without instances; what a test starts is ended, and no log may hold a stack."""
    cluster = Cluster(tmp_path)
    cluster.start_server()
    try:
        yield cluster
    finally:
        cluster.end()
    cluster.check_logs()


@pytest.fixture(autouse=True)
async def peers_end_with_their_test() -> AsyncIterator[None]:
    """A socket left open is closed, so that it cannot warn in the middle of another test."""
    yield
    await close_peers()
