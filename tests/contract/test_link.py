"""The shared connection under every store: replies in order, nothing sent twice."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import exceptions as errors
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from registry.store.link import Link
from tests.support.redis_servers import RedisServer

REPLY_S = 1.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    found = RedisServer(tmp_path)
    found.start()
    found.ready()
    yield found
    found.kill()


def link_to(server: RedisServer, *, password: str | None = None) -> Link:
    host, port = server.name.split(":")
    pool = ConnectionPool(
        host=host,
        port=int(port),
        password=password,
        protocol=2,
        driver_info=None,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=1,
    )
    return Link(pool, reply_timeout_s=REPLY_S)


@pytest.fixture
async def link(server: RedisServer) -> AsyncIterator[Link]:
    found = link_to(server)
    yield found
    await found.close()


async def test_every_reply_finds_its_command_however_many_batches_are_on_their_way(
    link: Link,
) -> None:
    batches = [[("ECHO", f"{b}-{n}") for n in range(b % 7 + 1)] for b in range(200)]
    found = await asyncio.gather(*map(link.ask, batches))
    assert found == [[word.encode() for _, word in batch] for batch in batches]


async def test_a_refused_command_leaves_the_others_of_its_batch_alone(link: Link) -> None:
    first, refused, last = await link.ask([("SET", "a", 1), ("INCR",), ("INCR", "a")])
    assert (first, last) == (b"OK", 2)
    assert isinstance(refused, errors.ResponseError)


async def test_large_replies_come_whole_and_empty_ones_as_none(link: Link) -> None:
    large = b"x" * 3_000_000
    assert await link.ask([("SET", "l", large), ("GET", "l"), ("GET", "none")]) == [
        b"OK",
        large,
        None,
    ]


async def test_a_caller_that_gives_up_does_not_shift_the_replies_of_the_next(link: Link) -> None:
    await link.ask([("PING",)])
    given_up = link.ask([("ECHO", "mine")])
    await asyncio.sleep(0)
    given_up.cancel()
    assert await link.ask([("ECHO", "yours")]) == [b"yours"]


async def test_a_caller_that_gives_up_while_connecting_does_not_take_the_connection_along(
    link: Link,
) -> None:
    first = link.ask([("ECHO", "mine")])
    second = link.ask([("ECHO", "yours")])
    await asyncio.sleep(0)
    first.cancel()
    assert await second == [b"yours"]


async def test_batches_on_their_way_to_a_server_that_dies_fail_and_none_is_sent_again(
    server: RedisServer, link: Link
) -> None:
    await link.ask([("PING",)])
    server.signal(signal.SIGSTOP)
    under_way = [(link.ask([("INCR", "n")])) for _ in range(3)]
    await asyncio.sleep(0)
    server.signal(signal.SIGKILL)  # While it is stopped, so that it never read them.
    server.kill()
    found = await asyncio.gather(*under_way, return_exceptions=True)
    assert all(isinstance(error, errors.ConnectionError) for error in found)
    with pytest.raises(errors.ConnectionError):
        await link.ask([("PING",)])
    server.start()
    server.ready()
    assert await link.ask([("GET", "n")]) == [None]


async def test_a_server_that_does_not_answer_in_time_is_given_up_and_asked_anew(
    server: RedisServer, link: Link
) -> None:
    await link.ask([("PING",)])
    server.signal(signal.SIGSTOP)
    began = asyncio.get_running_loop().time()
    with pytest.raises(errors.TimeoutError):
        await link.ask([("PING",)])
    took_s = asyncio.get_running_loop().time() - began
    server.signal(signal.SIGCONT)
    assert took_s >= REPLY_S * 0.95
    assert await link.ask([("ECHO", "again")]) == [b"again"]


async def test_a_wrong_password_is_said_by_its_own_error(server: RedisServer) -> None:
    link = link_to(server, password="wrong")
    with pytest.raises((errors.AuthenticationError, errors.ResponseError)):
        await link.ask([("PING",)])
    await link.close()


async def test_a_dropped_link_fails_what_is_under_way_and_connects_again(
    server: RedisServer, link: Link
) -> None:
    await link.ask([("PING",)])
    server.signal(signal.SIGSTOP)
    under_way = link.ask([("PING",)])
    await asyncio.sleep(0)
    link.drop()
    server.signal(signal.SIGCONT)
    with pytest.raises(errors.ConnectionError):
        await under_way
    assert await link.ask([("ECHO", "again")]) == [b"again"]
