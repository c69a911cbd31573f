"""Instances over a Redis that speaks TLS only, as a user who may do no more than they need."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.domain.errors import StoreUnavailable
from registry.store.address import single
from registry.store.connection import Connection
from tests.redis_forms.traffic import traffic
from tests.support.cluster import Cluster
from tests.support.redis_servers import TlsRedis
from tests.support.waiting import eventually


def rules(tmp_path: Path) -> list[str]:
    """What `manage.py redis_acl` prints after the user's name."""
    printed = Cluster(tmp_path).run("redis_acl", "--user", "scheduler")
    assert printed.returncode == 0, printed.stderr
    before, _, after = printed.stdout.strip().partition(" on ")
    assert before == "ACL SETUSER scheduler"
    return after.split()


Over = Callable[[dict[str, str]], Cluster]


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[TlsRedis]:
    server = TlsRedis(tmp_path / "tls", user="scheduler", password="s3cret", rules=rules(tmp_path))
    server.start()
    try:
        server.ready()
        yield server
    finally:
        server.kill()


async def test_all_processes_work_over_tls_for_a_user_with_these_rights_only(
    tls: TlsRedis, over: Over
) -> None:
    cluster = over(tls.env)
    migrated = cluster.run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    cluster.start_leader("candidate")
    mirror = cluster.start_command("mirror", "run_pool_sync")
    async with traffic(cluster) as flow:
        assert flow.refusals().total() == 0
        await eventually(lambda: _mirrored(cluster), what="a mirrored version of the pools")
        for words in (("leader", "step-down"), ("node", "drain", "n1"), ("node", "resume", "n1")):
            done = await asyncio.to_thread(cluster.run, *words)
            assert done.returncode == 0, done.stderr
    assert mirror.alive
    # Stopping in order uses commands of its own.
    assert {process.stop() for process in cluster.processes} == {0}
    denied = [entry["object"] for entry in entries(tls.ask("ACL", "LOG"))]
    assert denied == []


def _mirrored(cluster: Cluster) -> bool:
    with contextlib.closing(sqlite3.connect(cluster.folder / "db.sqlite3")) as database:
        return bool(database.execute("SELECT count(*) FROM pools_poolversion").fetchone()[0])


async def test_without_the_authority_a_server_is_not_trusted(tls: TlsRedis) -> None:
    connection = Connection(single(tls.url.partition("?")[0]))
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
        await connection.call("GET", "lingua:x")
    await connection.close()


async def test_a_wrong_password_is_said(tls: TlsRedis) -> None:
    connection = Connection(single(tls.url.replace(tls.password, "wrong")))
    with pytest.raises(StoreUnavailable, match=r"(?i)password"):
        await connection.call("GET", "lingua:x")
    with pytest.raises(StoreUnavailable, match=r"(?i)password"):
        await connection.wait("XREAD", "BLOCK", 1, "STREAMS", "lingua:x", "0", within_ms=1)
    await connection.close()


async def test_what_the_user_may_not_is_said(tls: TlsRedis) -> None:
    connection = Connection(single(tls.url))
    with pytest.raises(StoreUnavailable, match="permission"):
        await connection.call("GET", "other:x")
    with pytest.raises(StoreUnavailable, match="permission"):
        await connection.call("FLUSHALL")
    assert await connection.call("SET", "lingua:v1:x", "1") == b"OK"
    await connection.close()


def entries(found: list[object]) -> list[dict[str, str]]:
    """The refusals that the server noted, however the client has decoded them."""
    return [
        entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
        for entry in found
        if isinstance(entry, dict | list)
    ]
