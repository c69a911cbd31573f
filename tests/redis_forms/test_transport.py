"""What the clients under a connection promise, in each form of Redis."""

import asyncio

import pytest

from registry.domain.errors import StoreUnavailable
from registry.store.address import Address, cluster, sentinel
from registry.store.connection import Connection
from tests.support.redis_servers import RedisServer, ShardedRedis, WatchedRedis


def key_at(sharded: ShardedRedis, server: RedisServer) -> str:
    """A key that this master serves."""
    return next(key for n in range(1_000) if sharded.master_of(key := f"k{n}") is server)


async def test_a_dead_master_fails_its_own_commands_only(sharded: ShardedRedis) -> None:
    connection = Connection(cluster(sharded.urls))
    dead, *others = sharded.masters
    keys = [key_at(sharded, server) for server in (dead, *others)]
    dead.kill()
    replies = await asyncio.gather(
        *(connection.call("SET", key, "1") for key in keys), return_exceptions=True
    )
    assert isinstance(replies[0], StoreUnavailable)
    assert replies[1:] == [b"OK", b"OK"]
    await connection.close()


async def test_a_first_batch_waits_for_the_first_look_up(sharded: ShardedRedis) -> None:
    connection = Connection(cluster(sharded.urls))

    async def later(number: int) -> object:
        for _ in range(number):
            await asyncio.sleep(0)
        return await connection.call("SET", f"k{number}", "1")

    assert set(await asyncio.gather(*map(later, range(30)))) == {b"OK"}
    await connection.close()


async def test_commands_of_one_slot_run_while_it_moves(sharded: ShardedRedis) -> None:
    """A counter that is read and written all the time counts everything, once."""
    connection = Connection(cluster(sharded.urls))
    key, moving = "{tag}:counter", True
    fillers = [connection.call("SET", f"{{tag}}:{n}", "1") for n in range(100)]
    await asyncio.gather(*fillers)
    counted = 0

    async def count() -> None:
        nonlocal counted
        while moving:
            await asyncio.gather(*(connection.call("INCR", key) for _ in range(10)))
            counted += 10

    counting = [asyncio.create_task(count()) for _ in range(4)]
    for _ in range(3):
        await asyncio.to_thread(sharded.move_slot, key, pause_s=0.002)
    moving = False
    await asyncio.gather(*counting)
    assert await connection.call("GET", key) == str(counted).encode()
    assert counted > 0
    await connection.close()


async def test_a_blocking_read_follows_its_stream(sharded: ShardedRedis) -> None:
    connection = Connection(cluster(sharded.urls))
    await connection.call("XADD", "s", "1-0", "a", "1")

    async def read() -> object:
        return await connection.wait(
            "XREAD", "BLOCK", 5_000, "STREAMS", "s", "1-0", within_ms=5_000
        )

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.1)
    await asyncio.to_thread(sharded.move_slot, "s")
    await connection.call("XADD", "s", "2-0", "a", "2")
    assert await reading == [[b"s", [[b"2-0", [b"a", b"2"]]]]]
    await connection.close()


@pytest.mark.parametrize("form", ["cluster", "sentinel"])
async def test_a_cancelled_wait_leaves_nothing_half_read(
    form: str, request: pytest.FixtureRequest
) -> None:
    connection = Connection(address(form, request))
    for number in range(1, 40):
        reading = asyncio.create_task(
            connection.wait("XREAD", "BLOCK", 1_000, "STREAMS", "s", "$", within_ms=1_000)
        )
        await asyncio.sleep(number * 0.0003)
        adding = asyncio.create_task(connection.call("XADD", "s", f"{number}-0", "a", "1"))
        await asyncio.sleep(number % 4 * 0.0002)
        reading.cancel()
        await asyncio.gather(reading, adding, return_exceptions=True)
        found = await connection.wait("XREAD", "STREAMS", "s", f"{number - 1}-0", within_ms=1_000)
        assert found == [[b"s", [[f"{number}-0".encode(), [b"a", b"1"]]]]]
    await connection.close()


@pytest.mark.parametrize("form", ["cluster", "sentinel"])
async def test_a_closed_connection_says_so(form: str, request: pytest.FixtureRequest) -> None:
    connection = Connection(address(form, request))
    waiting = asyncio.gather(
        *(connection.call("SET", f"k{n}", "1") for n in range(20)), return_exceptions=True
    )
    await asyncio.sleep(0)
    await connection.close()
    assert all(reply == b"OK" or isinstance(reply, StoreUnavailable) for reply in await waiting)
    with pytest.raises(StoreUnavailable, match="closed"):
        await connection.call("GET", "k")


def address(form: str, request: pytest.FixtureRequest) -> Address:
    if form == "cluster":
        sharded: ShardedRedis = request.getfixturevalue("sharded")
        return cluster(sharded.urls)
    watched: WatchedRedis = request.getfixturevalue("watched")
    return sentinel(watched.env["SCHED_REDIS_URL"])
