"""Instances over a Redis that speaks TLS only, as a user who may do no more than they need."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.domain.errors import StoreUnavailable
from registry.store.address import single
from registry.store.connection import Connection
from tests.redis_forms.traffic import traffic
from tests.support.cluster import ROOT, Cluster
from tests.support.redis_servers import TlsRedis

KEYS = ("~lingua:*", "~{lingua:*")
SCRIPTS = ("eval", "evalsha")
IN_SCRIPTS = (
    *("time", "exists", "del", "get", "set", "incr", "pexpire", "pttl"),
    *("hdel", "hexists", "hget", "hgetall", "hincrby", "hkeys", "hlen", "hmget", "hset", "xadd"),
    *("xlen", "xrange", "xrevrange", "zadd", "zcard", "zcount", "zrange", "zrangebyscore"),
    *("zrem", "zremrangebyscore", "zscore"),
)
DIRECT = (
    *("del", "exists", "get", "mget", "pexpire", "pttl", "set", "hdel", "hmget"),
    *("hvals", "sadd", "smembers", "srem", "zrange", "xack", "xadd", "xdel", "xgroup"),
    *("xlen", "xrange", "xread", "xreadgroup", "xrevrange", "xtrim", "zrem"),
)
RULES = (*KEYS, *(f"+{name}" for name in sorted({*SCRIPTS, *IN_SCRIPTS, *DIRECT})))
"""All that the user of the scheduler needs. In a cluster it needs `+cluster|slots +asking` too."""

Over = Callable[[dict[str, str]], Cluster]


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[TlsRedis]:
    server = TlsRedis(tmp_path / "tls", user="scheduler", password="s3cret", rules=RULES)
    server.start()
    try:
        server.ready()
        yield server
    finally:
        server.kill()


async def test_tasks_flow_over_tls_for_a_user_with_few_rights(tls: TlsRedis, over: Over) -> None:
    cluster = over(tls.env)
    async with traffic(cluster) as flow:
        assert flow.refusals().total() == 0
    # Stopping in order uses commands of its own.
    assert [process.stop() for process in cluster.processes] == [0, 0]
    denied = [entry["object"] for entry in entries(tls.ask("ACL", "LOG"))]
    assert denied == []


def test_the_rights_are_those_that_the_code_needs() -> None:
    scripts = {name for path in ROOT.glob("*/store/lua/*.lua") for name in in_script(path)}
    sources = "\n".join(path.read_text() for path in ROOT.glob("*/store/*.py"))
    direct = {
        name.lower()
        for name in re.findall(r'\(\s*"([A-Z]{3,})",', sources)
        if name not in ("STREAMS", "EVAL", "EVALSHA", "ASKING", "CLUSTER")
    }
    assert scripts | direct == {*IN_SCRIPTS, *DIRECT}


def in_script(path: Path) -> set[str]:
    return {name.lower() for name in re.findall(r"redis\.p?call\('([A-Z]+)'", path.read_text())}


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
    assert await connection.call("SET", "lingua:x", "1") == b"OK"
    await connection.close()


def entries(found: list[object]) -> list[dict[str, str]]:
    """The refusals that the server noted, however the client has decoded them."""
    return [
        entry if isinstance(entry, dict) else dict(zip(entry[::2], entry[1::2], strict=True))
        for entry in found
        if isinstance(entry, dict | list)
    ]
