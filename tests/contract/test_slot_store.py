"""The contract of `SlotStore`: never more reservations than capacity, each for a time."""

import asyncio

import pytest

from routing.domain.outcome import Busier, Full, NodeGone, Reservation, Reserved
from routing.services.ports import SlotStore
from tests.contract.backends import LONG_MS, SHORT_MS, Backend, RedisBackend

CAPACITY = 2


@pytest.fixture
async def slots(backend: Backend) -> SlotStore:
    """A slot store, beside a node `n` of two slots on instance `one`."""
    await backend.nodes("one").claim("n", fingerprint="f", floor=0, capacity=CAPACITY)
    return backend.slots()


async def reserve(
    store: SlotStore,
    job_id: str = "s:1",
    *,
    attempt: int = 1,
    lease_ms: int = LONG_MS,
    ceiling: int | None = None,
) -> Reservation:
    return await store.reserve(
        "n", job_id=job_id, attempt=attempt, lease_ms=lease_ms, ceiling=ceiling
    )


async def test_a_reservation_names_the_instance_that_holds_the_node(slots: SlotStore) -> None:
    assert await reserve(slots, "s:1") == Reserved("one", 1, fresh=True)
    assert await reserve(slots, "s:2") == Reserved("one", 2, fresh=True)
    assert sorted(await slots.held("n")) == [("s:1", 1), ("s:2", 1)]


async def test_i2_a_node_never_holds_more_reservations_than_its_capacity(slots: SlotStore) -> None:
    await reserve(slots, "s:1")
    await reserve(slots, "s:2")
    assert await reserve(slots, "s:3") == Full(2)
    assert len(await slots.held("n")) == CAPACITY


async def test_i2_also_when_many_reserve_at_once(slots: SlotStore) -> None:
    outcomes = await asyncio.gather(*(reserve(slots, f"s:{index}") for index in range(20)))
    assert [type(outcome) for outcome in outcomes].count(Reserved) == CAPACITY


async def test_an_attempt_holds_one_slot_however_often_it_asks(slots: SlotStore) -> None:
    await reserve(slots)
    assert await reserve(slots) == Reserved("one", 1, fresh=False)
    await reserve(slots, "s:2")
    assert await reserve(slots) == Reserved("one", 2, fresh=False)


async def test_a_node_that_holds_more_than_the_ceiling_is_left_alone(slots: SlotStore) -> None:
    assert await reserve(slots, "s:1", ceiling=0) == Reserved("one", 1, fresh=True)
    assert await reserve(slots, "s:2", ceiling=0) == Busier(1)
    assert await slots.held("n") == [("s:1", 1)]
    assert await reserve(slots, "s:2", ceiling=1) == Reserved("one", 2, fresh=True)


async def test_of_many_under_one_ceiling_one_gets_the_slot(slots: SlotStore) -> None:
    outcomes = await asyncio.gather(*(reserve(slots, f"s:{i}", ceiling=0) for i in range(9)))
    assert [type(outcome) for outcome in outcomes].count(Reserved) == 1
    assert outcomes.count(Busier(1)) == 8


async def test_i2_a_ceiling_above_the_capacity_gives_no_slot_more(slots: SlotStore) -> None:
    await reserve(slots, "s:1")
    await reserve(slots, "s:2")
    assert await reserve(slots, "s:3", ceiling=9) == Full(2)
    assert await reserve(slots, "s:3", ceiling=0) == Full(2)


async def test_what_an_attempt_holds_is_under_no_ceiling(slots: SlotStore) -> None:
    await reserve(slots, "s:1")
    await reserve(slots, "s:2")
    assert await reserve(slots, "s:1", ceiling=0) == Reserved("one", 2, fresh=False)


async def test_another_attempt_of_a_job_takes_a_slot_of_its_own(slots: SlotStore) -> None:
    await reserve(slots, attempt=1)
    assert await reserve(slots, attempt=2) == Reserved("one", 2, fresh=True)


async def test_a_node_that_left_takes_no_reservation(backend: Backend, slots: SlotStore) -> None:
    await backend.nodes("one").drop("n", epoch=1)
    assert await reserve(slots) == NodeGone()
    assert await backend.slots().held("n") == []


async def test_a_node_that_was_never_there_takes_none(backend: Backend) -> None:
    assert await reserve(backend.slots()) == NodeGone()


async def test_a_node_that_expired_takes_none(backend: Backend) -> None:
    nodes = backend.nodes(ttl_ms=SHORT_MS)
    await nodes.claim("n", fingerprint="f", floor=0, capacity=CAPACITY)
    await backend.elapse(SHORT_MS)
    assert await reserve(backend.slots()) == NodeGone()


async def test_reservations_move_with_the_node(backend: Backend, slots: SlotStore) -> None:
    await reserve(slots)
    await backend.nodes("two").claim("n", fingerprint="f", floor=0, capacity=1)
    assert await reserve(slots) == Reserved("two", 1, fresh=False)
    assert await reserve(slots, "s:2") == Full(1)


async def test_a_released_slot_is_free(slots: SlotStore) -> None:
    await reserve(slots, "s:1")
    await reserve(slots, "s:2")
    assert await slots.release("n", job_id="s:1", attempt=1) == 1
    assert await reserve(slots, "s:3") == Reserved("one", 2, fresh=True)


async def test_another_attempts_slot_is_not_released(slots: SlotStore) -> None:
    await reserve(slots, attempt=2)
    assert await slots.release("n", job_id="s:1", attempt=1) == 1
    assert await slots.held("n") == [("s:1", 2)]


async def test_a_slot_released_twice_frees_no_other(slots: SlotStore) -> None:
    await reserve(slots, "s:1")
    await reserve(slots, "s:2")
    assert await slots.release("n", job_id="s:1", attempt=1) == 1
    assert await slots.release("n", job_id="s:1", attempt=1) == 1


async def test_a_slot_outlives_its_nodes_connection(backend: Backend, slots: SlotStore) -> None:
    await reserve(slots)
    await backend.nodes("one").drop("n", epoch=1)
    assert await slots.held("n") == [("s:1", 1)]
    assert await slots.release("n", job_id="s:1", attempt=1) == 0


async def test_an_expired_reservation_is_not_held(backend: Backend, slots: SlotStore) -> None:
    await reserve(slots, lease_ms=SHORT_MS)

    async def free() -> bool:
        return await slots.held("n") == []

    await backend.outlast(SHORT_MS, free)


async def test_an_expired_reservation_makes_room(backend: Backend, slots: SlotStore) -> None:
    await reserve(slots, "s:1", lease_ms=SHORT_MS)
    await reserve(slots, "s:2")
    await backend.elapse(SHORT_MS)
    assert await reserve(slots, "s:3") == Reserved("one", 2, fresh=True)
    assert sorted(await slots.held("n")) == [("s:2", 1), ("s:3", 1)]


async def test_an_expired_reservation_of_an_attempt_can_be_had_again(
    backend: Backend, slots: SlotStore
) -> None:
    await reserve(slots, lease_ms=SHORT_MS)
    await backend.elapse(SHORT_MS)
    assert await reserve(slots) == Reserved("one", 1, fresh=True)


async def test_a_release_counts_no_expired_reservation(backend: Backend, slots: SlotStore) -> None:
    await reserve(slots, "s:1", lease_ms=SHORT_MS)
    await reserve(slots, "s:2")
    await backend.elapse(SHORT_MS)
    assert await slots.release("n", job_id="s:2", attempt=1) == 0


async def test_a_short_reservation_does_not_shorten_a_long_one(redis_backend: RedisBackend) -> None:
    # The set's own life was that of the last reservation, not of the longest.
    await redis_backend.nodes().claim("n", fingerprint="f", floor=0, capacity=CAPACITY)
    slots = redis_backend.slots()
    await reserve(slots, "s:1", lease_ms=3_600_000)
    await reserve(slots, "s:2", lease_ms=1)
    key = redis_backend.keys.node_slots("n")
    assert await redis_backend.connection.call("PTTL", key) > 3_000_000


async def test_nothing_is_held_after_the_data_is_gone(backend: Backend, slots: SlotStore) -> None:
    await reserve(slots)
    await backend.lose_everything()
    assert await slots.held("n") == []
    assert await slots.release("n", job_id="s:1", attempt=1) == 0
