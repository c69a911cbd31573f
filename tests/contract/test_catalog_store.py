"""The contract of `CatalogStore`: who may publish what, and how readers hear of it."""

import asyncio

import pytest

from pools.domain.news import Publication, Published, Released, Wanted
from pools.domain.pool import Pool, PoolKind
from pools.domain.snapshot import PoolConfig
from pools.services.ports import CatalogStore
from tests.contract.backends import SHORT_MS, Backend, RedisBackend

SOON_MS = 5_000
NOW_MS = 1
PUBLISHED = Publication(published=True)
STALE = Publication(published=False, stale=True)


def config(*, epoch: int = 1, version: int = 1) -> PoolConfig:
    return PoolConfig(
        version=version,
        epoch=epoch,
        generated_at_ms=1_000,
        generated_by="one",
        reason="a test",
        next_pool_id=2,
        pools=(Pool(1, "de-en", PoolKind.EXACT, "de", "en"),),
    )


@pytest.fixture
async def leader(backend: Backend) -> str:
    """A candidate that holds the lease under epoch 1."""
    await backend.leases().acquire("one", floor=0)
    return "one"


async def absent(catalog: CatalogStore) -> bool:
    return await catalog.current() is None


class TestPublishing:
    async def test_the_leader_publishes(self, backend: Backend, leader: str) -> None:
        catalog = backend.catalog()
        assert await absent(catalog)
        assert await catalog.publish(config(), candidate=leader) == PUBLISHED
        assert await catalog.current() == config()

    async def test_who_does_not_lead_is_refused(self, backend: Backend, leader: str) -> None:
        catalog = backend.catalog()
        assert await catalog.publish(config(), candidate="two") == STALE
        assert await absent(catalog)

    async def test_a_stale_epoch_is_refused(self, backend: Backend, leader: str) -> None:
        await backend.leases().acquire(leader, floor=0)
        catalog = backend.catalog()
        assert await catalog.publish(config(epoch=1), candidate=leader) == STALE
        assert await catalog.publish(config(epoch=2), candidate=leader) == PUBLISHED

    async def test_a_leader_whose_lease_was_released_is_refused(
        self, backend: Backend, leader: str
    ) -> None:
        await backend.leases().release(leader, epoch=1)
        assert await backend.catalog().publish(config(), candidate=leader) == STALE

    async def test_a_leader_that_was_overtaken_is_refused(
        self, backend: Backend, leader: str
    ) -> None:
        leases, catalog = backend.leases(), backend.catalog()
        await leases.release(leader, epoch=1)
        await leases.acquire("two", floor=0)
        assert await catalog.publish(config(epoch=2), candidate="two") == PUBLISHED
        assert await catalog.publish(config(epoch=1, version=9), candidate=leader) == STALE
        assert await catalog.current() == config(epoch=2)

    async def test_a_version_is_published_once(self, backend: Backend, leader: str) -> None:
        catalog = backend.catalog()
        await catalog.publish(config(version=3), candidate=leader)
        behind = Publication(published=False, behind=3)
        assert await catalog.publish(config(version=3), candidate=leader) == behind
        assert await catalog.publish(config(version=2), candidate=leader) == behind
        assert await catalog.publish(config(version=4), candidate=leader) == PUBLISHED

    async def test_a_new_leader_may_publish_the_version_that_stands(
        self, backend: Backend, leader: str
    ) -> None:
        leases, catalog = backend.leases(), backend.catalog()
        await catalog.publish(config(version=3), candidate=leader)
        await leases.acquire(leader, floor=0)
        behind = Publication(published=False, behind=3)
        assert await catalog.publish(config(epoch=2, version=2), candidate=leader) == behind
        assert await catalog.publish(config(epoch=2, version=3), candidate=leader) == PUBLISHED

    async def test_a_configuration_expires_and_its_version_does_not(
        self, backend: Backend, leader: str
    ) -> None:
        catalog = backend.catalog(ttl_ms=SHORT_MS)
        await catalog.publish(config(version=3), candidate=leader)
        await backend.outlast(SHORT_MS, lambda: absent(catalog))
        behind = Publication(published=False, behind=3)
        assert await catalog.publish(config(version=2), candidate=leader) == behind
        assert await catalog.publish(config(version=3), candidate=leader) == PUBLISHED

    async def test_after_the_data_is_gone_a_leader_needs_a_new_lease(
        self, backend: Backend, leader: str
    ) -> None:
        catalog = backend.catalog()
        await catalog.publish(config(), candidate=leader)
        await backend.lose_everything()
        assert await catalog.publish(config(version=2), candidate=leader) == STALE
        await backend.leases().acquire(leader, floor=1)
        assert await catalog.publish(config(epoch=2, version=2), candidate=leader) == PUBLISHED

    async def test_the_published_json_calls_its_time_generated_at(
        self, redis_backend: RedisBackend
    ) -> None:
        await redis_backend.leases().acquire("one", floor=0)
        await redis_backend.catalog().publish(config(), candidate="one")
        stored = await redis_backend.connection.call("GET", redis_backend.keys.pool_config)
        assert b'"generated_at":1000' in stored


class TestRefreshing:
    async def test_a_living_leader_prolongs_the_configurations_life(
        self, backend: Backend, leader: str
    ) -> None:
        await backend.catalog(ttl_ms=SHORT_MS).publish(config(), candidate=leader)
        catalog = backend.catalog()
        assert await catalog.refresh(candidate=leader, epoch=1)
        await backend.elapse(SHORT_MS)
        assert not await absent(catalog)

    async def test_a_leader_hears_that_its_configuration_is_gone(
        self, backend: Backend, leader: str
    ) -> None:
        assert not await backend.catalog().refresh(candidate=leader, epoch=1)

    async def test_who_does_not_lead_prolongs_nothing(self, backend: Backend, leader: str) -> None:
        short = backend.catalog(ttl_ms=SHORT_MS)
        await short.publish(config(), candidate=leader)
        assert await backend.catalog().refresh(candidate="two", epoch=1)
        assert await backend.catalog().refresh(candidate=leader, epoch=0)
        await backend.outlast(SHORT_MS, lambda: absent(short))


class TestNews:
    async def test_news_comes_in_order_and_once(self, backend: Backend, leader: str) -> None:
        catalog = backend.catalog()
        start = await catalog.position()
        await catalog.publish(config(), candidate=leader)
        await catalog.ask("regenerate", by="operator")
        await backend.leases().release(leader, epoch=1)
        position, news = await catalog.news(start, within_ms=SOON_MS)
        assert list(news) == [
            Published(config()),
            Wanted("regenerate", "operator"),
            Released(1),
        ]
        assert await catalog.news(position, within_ms=NOW_MS) == (position, [])

    async def test_what_was_refused_is_no_news(self, backend: Backend, leader: str) -> None:
        catalog = backend.catalog()
        start = await catalog.position()
        await catalog.publish(config(), candidate="two")
        await backend.leases().release("two", epoch=1)
        assert await catalog.news(start, within_ms=NOW_MS) == (start, [])

    async def test_a_waiting_reader_is_woken(self, backend: Backend) -> None:
        catalog = backend.catalog()
        start = await catalog.position()
        reader = asyncio.create_task(catalog.news(start, within_ms=SOON_MS))
        await backend.catalog().ask("step-down", by="operator")
        _, news = await reader
        assert list(news) == [Wanted("step-down", "operator")]

    async def test_every_reader_gets_all_news(self, backend: Backend) -> None:
        catalog = backend.catalog()
        start = await catalog.position()
        readers = [asyncio.create_task(catalog.news(start, within_ms=SOON_MS)) for _ in range(3)]
        await catalog.ask("regenerate", by="operator")
        answers = await asyncio.gather(*readers)
        assert [list(news) for _, news in answers] == [[Wanted("regenerate", "operator")]] * 3

    async def test_a_position_taken_late_skips_what_came_before(self, backend: Backend) -> None:
        catalog = backend.catalog()
        await catalog.ask("regenerate", by="operator")
        late = await catalog.position()
        assert await catalog.news(late, within_ms=NOW_MS) == (late, [])

    async def test_news_after_the_data_is_gone_still_comes(self, backend: Backend) -> None:
        catalog = backend.catalog()
        await catalog.ask("regenerate", by="operator")
        position = await catalog.position()
        await backend.lose_everything()
        await asyncio.sleep(0.002)  # Entries are numbered by the millisecond, also the first anew.
        reader = asyncio.create_task(catalog.news(position, within_ms=SOON_MS))
        await catalog.ask("step-down", by="operator")
        _, news = await reader
        assert list(news) == [Wanted("step-down", "operator")]
