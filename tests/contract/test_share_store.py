"""The contract of `ShareStore`: never more of a tenant's jobs than its limit, each for a time."""

import asyncio

import pytest

from routing.domain.outcome import Share
from routing.services.ports import ShareStore
from tests.contract.backends import LONG_MS, SHORT_MS, Backend


@pytest.fixture
def shares(backend: Backend) -> ShareStore:
    return backend.shares()


async def hold(
    store: ShareStore, job_id: str, *, tenant: str = "acme", life_ms: int = LONG_MS, limit: int = 2
) -> Share:
    return await store.hold(tenant, job_id=job_id, life_ms=life_ms, limit=limit)


async def test_a_tenant_has_so_many_and_no_more(shares: ShareStore) -> None:
    said = [await hold(shares, f"s:{index}") for index in range(3)]
    assert said == [Share.HELD, Share.HELD, Share.FULL]
    assert await hold(shares, "s:0") is Share.ALREADY


async def test_also_when_many_come_at_once(shares: ShareStore) -> None:
    said = await asyncio.gather(*(hold(shares, f"s:{index}") for index in range(20)))
    assert said.count(Share.HELD) == 2


async def test_what_is_released_makes_room_once(shares: ShareStore) -> None:
    await hold(shares, "s:0")
    await hold(shares, "s:1")
    for _ in range(2):
        await shares.release("acme", job_id="s:0")
    assert [await hold(shares, "s:2"), await hold(shares, "s:3")] == [Share.HELD, Share.FULL]


async def test_tenants_do_not_count_for_each_other(shares: ShareStore) -> None:
    for tenant in ("acme", "umbrella", "{x}", "a b\n", "\N{SNOWMAN}"):
        assert await hold(shares, "s:0", tenant=tenant, limit=1) is Share.HELD
        assert await hold(shares, "s:1", tenant=tenant, limit=1) is Share.FULL


async def test_what_nobody_releases_runs_out(backend: Backend, shares: ShareStore) -> None:
    await hold(shares, "s:0", life_ms=SHORT_MS, limit=1)

    async def has_room() -> bool:
        return await hold(shares, "s:1", limit=1) is not Share.FULL

    await backend.outlast(SHORT_MS, has_room)
    await shares.release("acme", job_id="s:0")
    assert await hold(shares, "s:2", limit=1) is Share.FULL
