"""The contract of `QueueStore`: priority first, then fair between tenants, then age."""

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from routing.domain.queueing import Flow, FlowNews, Lease, Pull, QueueFull, member_of
from routing.services.ports import QueueStore
from tests.contract.backends import SHORT_MS, Backend

THEN_MS = 1_790_000_000_000
LEASE_MS = 60_000
EVEN: dict[str, int] = {}


@pytest.fixture
def store(backend: Backend) -> QueueStore:
    return backend.queues()


def flow(
    pair: str = "de-en", *, priority: int = 5, tenant: str = "t", pool: str = "", avoid: str = ""
) -> Flow:
    src, _, tgt = pair.partition("-")
    return Flow(pool or pair, src, tgt, priority, avoid, tenant)


async def put(
    store: QueueStore,
    job_id: str,
    where: Flow | None = None,
    *,
    age_ms: int = 0,
    limit: int | None = None,
    weights: Mapping[str, int] = EVEN,
) -> QueueFull | None:
    return await store.put(
        where or flow(),
        member=member_of(job_id, 1),
        accepted_ms=THEN_MS - age_ms,
        limit=limit,
        weights=weights,
    )


async def pull(
    store: QueueStore,
    *flows: Flow,
    count: int = 1,
    weights: Mapping[str, int] = EVEN,
    lease_ms: int = LEASE_MS,
) -> Pull:
    return await store.pull(flows or [flow()], count=count, weights=weights, lease_ms=lease_ms)


async def drain(store: QueueStore, *flows: Flow, weights: Mapping[str, int] = EVEN) -> list[str]:
    """Every job, in the order in which single slots get them."""
    found = []
    while leases := (await pull(store, *flows, weights=weights)).leases:
        found.append(leases[0].job_id)
    return found


async def waiting(store: QueueStore) -> dict[Flow, int]:
    return (await store.standing()).waiting


class TestOrder:
    async def test_the_oldest_goes_first(self, store: QueueStore) -> None:
        for job_id, age_ms in (("s:1", 1), ("s:2", 3), ("s:3", 2)):
            await put(store, job_id, age_ms=age_ms)
        assert await drain(store) == ["s:2", "s:3", "s:1"]

    async def test_a_higher_priority_goes_before_any_age(self, store: QueueStore) -> None:
        low, high, higher = flow(priority=0), flow(priority=8), flow(priority=9)
        await put(store, "s:1", low, age_ms=86_400_000_000)
        await put(store, "s:2", higher)
        await put(store, "s:3", high, age_ms=1)
        assert await drain(store, low, high, higher) == ["s:2", "s:3", "s:1"]

    async def test_a_higher_priority_goes_before_any_claim_to_service(
        self, store: QueueStore
    ) -> None:
        urgent, other = flow(priority=6, tenant="a"), flow(tenant="b")
        for number in range(4):
            await put(store, f"a:{number}", urgent)
            await put(store, f"b:{number}", other, age_ms=1)
        assert (await drain(store, urgent, other))[:4] == ["a:0", "a:1", "a:2", "a:3"]

    async def test_of_the_same_age_the_lower_id_goes_first(self, store: QueueStore) -> None:
        for job_id in ("s:3", "s:1", "s:2"):
            await put(store, job_id)
        assert await drain(store) == ["s:1", "s:2", "s:3"]

    async def test_of_one_session_and_the_same_age_the_lower_index_goes_first(
        self, store: QueueStore
    ) -> None:
        for index in (10, 9, 100):
            await put(store, f"s:{index}")
        assert await drain(store) == ["s:9", "s:10", "s:100"]

    async def test_of_several_queues_the_oldest_job_goes_first(self, store: QueueStore) -> None:
        exact, mixed = flow("de-en"), flow("auto-en", pool="*-en")
        await put(store, "s:1", exact, age_ms=1)
        await put(store, "s:2", mixed, age_ms=2)
        await put(store, "s:3", exact, age_ms=3)
        assert await drain(store, mixed, exact) == ["s:3", "s:2", "s:1"]

    async def test_of_equal_jobs_the_first_named_flows_goes_first(self, store: QueueStore) -> None:
        one, other = flow("de-en"), flow("fr-en")
        await put(store, "s:1", one)
        await put(store, "s:2", other)
        assert await drain(store, other, one) == ["s:2", "s:1"]

    async def test_a_job_that_waits_again_keeps_its_age(self, store: QueueStore) -> None:
        await put(store, "s:1", age_ms=2)
        await pull(store)
        await put(store, "s:2", age_ms=1)
        await put(store, "s:1", age_ms=2)
        assert await drain(store) == ["s:1", "s:2"]

    async def test_several_slots_get_what_single_ones_would(self, store: QueueStore) -> None:
        a, b = flow(tenant="a"), flow(tenant="b")
        for number in range(4):
            await put(store, f"a:{number}", a, age_ms=10)
            await put(store, f"b:{number}", b)
        found = (await pull(store, a, b, count=5)).leases
        assert [lease.job_id for lease in found] == ["a:0", "b:0", "a:1", "b:1", "a:2"]
        assert await waiting(store) == {a: 1, b: 2}


class TestFairness:
    async def test_a_flood_does_not_delay_a_neighbours_single_job(self, store: QueueStore) -> None:
        flood, single = flow(tenant="flood"), flow(tenant="single")
        for number in range(50):
            await put(store, f"flood:{number}", flood, age_ms=1_000)
        await pull(store, flood, single, count=20)
        await put(store, "single:1", single)
        found = (await pull(store, flood, single, count=2)).leases
        assert "single:1" in [lease.job_id for lease in found]

    async def test_tenants_get_service_by_their_weights(self, store: QueueStore) -> None:
        light, heavy = flow(tenant="light"), flow(tenant="heavy")
        for number in range(40):
            await put(store, f"light:{number}", light, age_ms=1)
            await put(store, f"heavy:{number}", heavy)
        order = await drain(store, light, heavy, weights={"heavy": 3})
        first = Counter(job_id.partition(":")[0] for job_id in order[:40])
        assert first == {"heavy": 30, "light": 10}
        assert len(order) == 80

    async def test_a_tenant_that_comes_and_goes_gets_no_more_than_its_weight(
        self, store: QueueStore
    ) -> None:
        often, steady = flow(tenant="often"), flow(tenant="steady")
        for number in range(40):
            await put(store, f"steady:{number}", steady)
        served = []
        for number in range(20):
            await put(store, f"often:{number}", often, age_ms=1_000)
            served += (await pull(store, often, steady, weights={"steady": 3})).leases
        assert Counter(lease.flow.tenant for lease in served) == {"often": 5, "steady": 15}

    async def test_what_a_tenant_got_alone_is_not_held_against_it(self, store: QueueStore) -> None:
        one, other = flow(tenant="one"), flow(tenant="other")
        for number in range(30):
            await put(store, f"one:{number}", one)
        await pull(store, one, other, count=20)
        for number in range(10):
            await put(store, f"other:{number}", other)
        found = (await pull(store, one, other, count=10)).leases
        assert Counter(lease.flow.tenant for lease in found) == {"one": 5, "other": 5}

    async def test_service_elsewhere_starves_nobody(self, store: QueueStore) -> None:
        """Two tenants shared one pool for long; then the busier one meets a third in another."""
        here, there = flow(tenant="a"), flow("fr-en", tenant="a")
        b, c = flow(tenant="b"), flow("fr-en", tenant="c")
        d = flow("fr-en", tenant="d")
        for number in range(200):
            await put(store, f"a:{number}", here)
            await put(store, f"b:{number}", b)
        await pull(store, here, b, count=100)
        for number in range(20):
            for where in (there, c, d):
                await put(store, f"{where.tenant}x:{number}", where)
        found = (await pull(store, there, c, d, count=18)).leases
        assert Counter(lease.flow.tenant for lease in found)["a"] >= 4

    async def test_nothing_is_owed_once_nothing_waits(self, store: QueueStore) -> None:
        one, other = flow(tenant="one"), flow(tenant="other")
        for number in range(6):
            await put(store, f"one:{number}", one)
        await put(store, "other:0", other)
        await drain(store, one, other)
        await put(store, "one:7", one, age_ms=1)
        await put(store, "other:1", other)
        assert await drain(store, one, other) == ["one:7", "other:1"]


class TestLimit:
    async def test_a_tenant_alone_may_fill_the_pools_queue(self, store: QueueStore) -> None:
        for number in range(4):
            assert await put(store, f"s:{number}", limit=4) is None
        full = await put(store, "s:4", limit=4)
        assert full is not None
        assert full.waiting == 4
        assert await waiting(store) == {flow(): 4}

    async def test_the_limit_is_for_all_pairs_of_a_pool_and_for_no_other(
        self, store: QueueStore
    ) -> None:
        assert await put(store, "s:1", flow("de-en", pool="*-en"), limit=2) is None
        assert await put(store, "s:2", flow("fr-en", pool="*-en", priority=9), limit=2) is None
        assert await put(store, "s:3", flow("es-en", pool="*-en"), limit=2) is not None
        assert await put(store, "s:3", flow("es-en"), limit=2) is None

    async def test_a_neighbour_gets_its_share_of_a_full_queue(self, store: QueueStore) -> None:
        for number in range(8):
            await put(store, f"flood:{number}", flow(tenant="flood"), limit=8)
        other = flow(tenant="other")
        taken = [await put(store, f"o:{n}", other, limit=8) is None for n in range(6)]
        assert taken == [True] * 4 + [False] * 2
        assert await put(store, "flood:8", flow(tenant="flood"), limit=8) is not None

    async def test_the_share_goes_by_weight(self, store: QueueStore) -> None:
        for number in range(8):
            await put(store, f"flood:{number}", flow(tenant="flood"), limit=8)
        other, weights = flow(tenant="other"), {"other": 3}
        taken = [await put(store, f"o:{n}", other, limit=8, weights=weights) for n in range(7)]
        assert [full is None for full in taken] == [True] * 6 + [False]

    async def test_nobody_gets_beyond_twice_the_limit(self, store: QueueStore) -> None:
        for tenant in "abcdefghijklmnop":
            for number in range(4):
                await put(store, f"{tenant}:{number}", flow(tenant=tenant), limit=4)
        assert sum((await waiting(store)).values()) == 8

    async def test_what_is_put_back_has_no_limit(self, store: QueueStore) -> None:
        await put(store, "s:1", limit=1)
        assert await put(store, "s:2", limit=None) is None

    async def test_a_full_queue_says_how_long_its_oldest_job_has_waited(
        self, backend: Backend
    ) -> None:
        store = backend.queues()
        await put(store, "s:1", limit=1, age_ms=5_000)
        full = await put(store, "s:2", limit=1)
        assert full is not None
        assert full.oldest_ms >= 5_000

    async def test_who_waits_already_is_not_refused(self, store: QueueStore) -> None:
        await put(store, "s:1", limit=1)
        assert await put(store, "s:1", limit=1) is None
        assert await waiting(store) == {flow(): 1}


class TestLeases:
    async def test_a_job_is_pulled_once_by_however_many(self, store: QueueStore) -> None:
        await put(store, "s:1")
        found = await asyncio.gather(*(pull(store) for _ in range(5)))
        assert sorted(len(each.leases) for each in found) == [0, 0, 0, 0, 1]

    async def test_a_pulled_job_that_is_not_settled_can_be_put_back(self, backend: Backend) -> None:
        store = backend.queues()
        await put(store, "s:1", age_ms=2)
        (lease,) = (await pull(store, lease_ms=SHORT_MS)).leases
        await put(store, "s:2", age_ms=1)

        async def overdue() -> bool:
            return (await store.standing()).overdue == [lease]

        await backend.outlast(SHORT_MS, overdue)
        assert await store.give_back(lease)
        assert (await store.standing()).overdue == []
        assert await drain(store) == ["s:1", "s:2"]

    async def test_of_two_that_put_it_back_the_second_changes_nothing(
        self, store: QueueStore
    ) -> None:
        await put(store, "s:1")
        (lease,) = (await pull(store)).leases
        assert await store.give_back(lease)
        await pull(store)
        await store.settle(lease)
        assert not await store.give_back(lease)
        assert await waiting(store) == {}

    async def test_a_settled_job_does_not_come_back(self, backend: Backend) -> None:
        store = backend.queues()
        await put(store, "s:1")
        (lease,) = (await pull(store, lease_ms=1)).leases
        await store.settle(lease)
        await backend.elapse(SHORT_MS)
        assert (await store.standing()).overdue == []
        assert not await store.give_back(lease)

    async def test_a_job_that_waits_again_already_is_not_doubled(self, store: QueueStore) -> None:
        await put(store, "s:1")
        (lease,) = (await pull(store)).leases
        await put(store, "s:1")
        assert await store.give_back(lease)
        assert await waiting(store) == {flow(): 1}
        assert await drain(store) == ["s:1"]

    async def test_a_lease_says_all_that_is_needed_to_put_it_back(self, store: QueueStore) -> None:
        where = flow("auto-en", pool="*-en", tenant="a|b, \N{SNOWMAN}\n%", avoid="n1,n2")
        await store.put(where, member=member_of("s:x@1:7", 3), accepted_ms=THEN_MS)
        assert (await pull(store, where)).leases == [Lease("s:x@1:7", 3, THEN_MS, where)]


class TestLeaving:
    async def test_a_job_leaves_once(self, store: QueueStore) -> None:
        await put(store, "s:1")
        await put(store, "s:2")
        assert await store.leave(flow(), member=member_of("s:1", 1))
        assert not await store.leave(flow(), member=member_of("s:1", 1))
        assert await waiting(store) == {flow(): 1}
        assert await drain(store) == ["s:2"]

    async def test_leaving_another_flow_changes_nothing(self, store: QueueStore) -> None:
        await put(store, "s:1")
        assert not await store.leave(flow("fr-en"), member=member_of("s:1", 1))
        assert not await store.leave(flow(), member=member_of("s:1", 2))
        assert await waiting(store) == {flow(): 1}

    async def test_who_left_makes_room(self, store: QueueStore) -> None:
        await put(store, "s:1", limit=1)
        await store.leave(flow(), member=member_of("s:1", 1))
        assert await put(store, "s:2", limit=1) is None

    async def test_who_was_pulled_makes_room(self, store: QueueStore) -> None:
        await put(store, "s:1", limit=1)
        await pull(store)
        assert await put(store, "s:2", limit=1) is None


class TestStanding:
    async def test_only_the_flows_that_are_asked_for_are_pulled(self, store: QueueStore) -> None:
        await put(store, "s:1")
        assert (await pull(store, flow("fr-en"))).leases == []
        assert (await store.pull([], count=1, weights={}, lease_ms=1)).leases == []
        assert (await pull(store, count=0)).leases == []
        assert await waiting(store) == {flow(): 1}

    async def test_a_pull_says_which_flows_are_empty(self, store: QueueStore) -> None:
        one, two, three = flow("de-en"), flow("fr-en"), flow("es-en")
        await put(store, "s:1", one)
        for number in range(3):
            await put(store, f"t:{number}", two, age_ms=number + 1)
        found = await pull(store, one, two, three, count=3)
        assert found.empty == [two, three]
        assert (await pull(store, one, two, three)).empty == [one, two, three]

    async def test_an_empty_flow_does_not_stand(self, store: QueueStore) -> None:
        assert await waiting(store) == {}
        await put(store, "s:1", flow("de-en"))
        await put(store, "s:2", flow("fr-en"))
        assert await waiting(store) == {flow("de-en"): 1, flow("fr-en"): 1}
        await pull(store)
        await store.leave(flow("fr-en"), member=member_of("s:2", 1))
        assert await waiting(store) == {}

    async def test_nothing_waits_after_the_data_is_gone(self, backend: Backend) -> None:
        store = backend.queues()
        await put(store, "s:1")
        await backend.lose_everything()
        assert (await pull(store)).leases == []
        standing = await store.standing()
        assert (standing.waiting, standing.overdue) == ({}, [])


class TestAge:
    async def test_a_flows_age_is_that_of_its_first_job(self, store: QueueStore) -> None:
        assert await store.oldest([]) == []
        for job_id, age_ms in (("s:1", 4_000), ("s:2", 9_000), ("s:3", 6_000)):
            await put(store, job_id, age_ms=age_ms)
        await put(store, "s:4", flow("fr-en"))
        first, none, later = await store.oldest([flow(), flow("ja-en"), flow("fr-en")])
        assert first is not None
        assert later is not None
        assert none is None
        assert abs(first - later - 9_000) <= 1
        await pull(store)
        second, _ = await store.oldest([flow(), flow("fr-en")])
        assert second is not None
        assert 5_900 <= second - later <= 8_000

    async def test_an_age_is_never_below_zero(self, store: QueueStore) -> None:
        await put(store, "s:1", age_ms=-86_400_000_000)
        assert await store.oldest([flow()]) == [0]


class TestNews:
    async def test_the_first_and_the_last_job_of_a_flow_are_news(self, store: QueueStore) -> None:
        start = (await store.standing()).position
        await put(store, "s:1")
        await put(store, "s:2")
        await pull(store)
        await pull(store)
        await put(store, "s:3", flow("fr-en"))
        await store.leave(flow("fr-en"), member=member_of("s:3", 1))
        position, news = await store.news(start, within_ms=1_000)
        assert news == [
            FlowNews(flow(), waits=True),
            FlowNews(flow(), waits=False),
            FlowNews(flow("fr-en"), waits=True),
            FlowNews(flow("fr-en"), waits=False),
        ]
        assert await store.news(position, within_ms=1) == (position, [])

    async def test_news_is_awaited(self, store: QueueStore) -> None:
        standing = await store.standing()
        coming = asyncio.create_task(store.news(standing.position, within_ms=10_000))
        await put(store, "s:1")
        assert (await coming)[1] == [FlowNews(flow(), waits=True)]

    async def test_a_job_that_is_put_back_is_news(self, store: QueueStore) -> None:
        await put(store, "s:1")
        (lease,) = (await pull(store)).leases
        position = (await store.standing()).position
        await store.give_back(lease)
        assert (await store.news(position, within_ms=1_000))[1] == [FlowNews(flow(), waits=True)]

    async def test_what_stands_holds_for_the_position_it_is_told_with(
        self, store: QueueStore
    ) -> None:
        await put(store, "s:1")
        standing = await store.standing()
        assert standing.waiting == {flow(): 1}
        assert (await store.news(standing.position, within_ms=1))[1] == []
