"""The contract of `LeaseStore`: one holder, and epochs that never come twice."""

from registry.domain.lease import Granted, Held
from registry.services.ports import LeaseStore
from tests.contract.backends import LONG_MS, SHORT_MS, Backend


async def free(store: LeaseStore) -> bool:
    return await store.holder() is None


async def test_the_first_candidate_is_granted_epoch_one(backend: Backend) -> None:
    store = backend.leases()
    assert await free(store)
    assert await store.acquire("one", floor=0) == Granted(1)


async def test_the_second_candidate_hears_who_holds_it_and_for_how_long(backend: Backend) -> None:
    store = backend.leases()
    await store.acquire("one", floor=0)
    held = await store.acquire("two", floor=0)
    assert isinstance(held, Held)
    assert (held.instance_id, held.epoch) == ("one", 1)
    assert 0 < held.remaining_ms <= LONG_MS
    holder = await store.holder()
    assert holder is not None
    assert (holder.instance_id, holder.epoch) == ("one", 1)
    assert 0 < holder.remaining_ms <= LONG_MS


async def test_a_holder_that_asks_again_gets_a_new_epoch(backend: Backend) -> None:
    store = backend.leases()
    await store.acquire("one", floor=0)
    assert await store.acquire("one", floor=0) == Granted(2)
    assert not await store.renew("one", epoch=1)
    assert await store.renew("one", epoch=2)


async def test_a_lease_ends_unless_renewed(backend: Backend) -> None:
    store = backend.leases(ttl_ms=SHORT_MS)
    await store.acquire("one", floor=0)
    await backend.outlast(SHORT_MS, lambda: free(store))
    assert not await store.renew("one", epoch=1)
    assert not await store.release("one", epoch=1)
    assert await store.acquire("two", floor=0) == Granted(2)


async def test_renewal_starts_its_time_anew(backend: Backend) -> None:
    await backend.leases(ttl_ms=SHORT_MS).acquire("one", floor=0)
    store = backend.leases()
    assert await store.renew("one", epoch=1)
    held = await store.holder()
    assert held is not None
    assert held.remaining_ms > SHORT_MS


async def test_nobody_renews_or_releases_anothers_lease(backend: Backend) -> None:
    store = backend.leases()
    await store.acquire("one", floor=0)
    assert not await store.renew("two", epoch=1)
    assert not await store.release("two", epoch=1)
    assert await store.renew("one", epoch=1)


async def test_a_loser_cannot_renew_or_release_after_another_took_over(backend: Backend) -> None:
    store = backend.leases(ttl_ms=SHORT_MS)
    await store.acquire("one", floor=0)
    await backend.outlast(SHORT_MS, lambda: free(store))
    await backend.leases().acquire("two", floor=0)
    assert not await store.renew("one", epoch=1)
    assert not await store.release("one", epoch=1)
    assert not await free(store)


async def test_a_released_lease_is_free_and_its_epoch_spent(backend: Backend) -> None:
    store = backend.leases()
    await store.acquire("one", floor=0)
    assert await store.release("one", epoch=1)
    assert not await store.release("one", epoch=1)
    assert await free(store)
    assert await store.acquire("two", floor=0) == Granted(2)


async def test_the_floor_lifts_the_epoch_after_the_data_is_gone(backend: Backend) -> None:
    store = backend.leases()
    await store.acquire("one", floor=0)
    await backend.lose_everything()
    assert not await store.renew("one", epoch=1)
    assert await store.acquire("two", floor=6) == Granted(7)


async def test_an_epoch_that_was_seen_is_not_granted_after_the_data_is_gone(
    backend: Backend,
) -> None:
    store = backend.leases()
    await store.raise_epoch(4)
    await store.raise_epoch(3)
    assert await store.acquire("one", floor=0) == Granted(5)


async def test_a_holder_below_an_epoch_that_was_seen_has_lost(backend: Backend) -> None:
    store = backend.leases()
    await store.acquire("one", floor=0)
    await store.raise_epoch(1)
    assert await store.renew("one", epoch=1)
    await store.raise_epoch(2)
    assert not await store.renew("one", epoch=1)
