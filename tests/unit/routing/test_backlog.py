"""What an instance knows of the queues without asking, and what heals it."""

import pytest

from pools.domain.generation import PoolRules
from pools.domain.index import PoolIndex
from registry.domain.errors import StoreUnavailable
from registry.services.views import NodeViews
from registry.store.memory import MemoryServer
from routing.domain.queueing import Flow, Lease, QueueFull, member_of
from routing.domain.selection import SelectionRules
from routing.services.backlog import FULL_FOR_MS, READ_MS, Backlog
from routing.services.placement import Placement
from routing.services.tenants import Tenants
from routing.store.memory import MemoryQueueStore


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: int) -> None:
        self.now_ms += ms


class Everywhere(Placement):
    """Every node does every pair; `others` says whether there is another one that is up."""

    def __init__(self) -> None:
        index = PoolIndex(
            PoolRules(
                min_nodes_per_pool=1, max_pools=9, enable_mixed_pools=True, require_semantic=False
            )
        )
        super().__init__(
            index, NodeViews(), rules=SelectionRules(), chance=lambda: 0.0, clock=Clock()
        )
        self.others = True

    def serves(self, node_id: str, src: str, tgt: str) -> bool:
        return src == "de"

    def serves_elsewhere(self, flow: Flow, *, than: frozenset[str]) -> bool:
        return self.others


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryQueueStore(MemoryServer(clock=self.clock))
        self.placement = Everywhere()
        self.backlog = Backlog(self.store, self.placement, clock=self.clock)

    async def put(self, flow: Flow, job_id: str = "s:1") -> None:
        await self.store.put(flow, member=member_of(job_id, 1), accepted_ms=0)

    async def pull(self, flow: Flow) -> list[Flow]:
        return (await self.store.pull([flow], weights={}, count=1, lease_ms=5_000)).empty


def flow(src: str = "de", *, priority: int = 5, avoid: str = "") -> Flow:
    return Flow(f"{src}-en", src, "en", priority, avoid, "t")


@pytest.fixture
def world() -> World:
    return World()


async def test_what_waits_is_known_after_the_first_look(world: World) -> None:
    await world.put(flow())
    await world.put(flow("fr"))
    assert not world.backlog
    assert (await world.backlog.follow()).began
    assert world.backlog.fitting("n") == [flow()]


async def test_news_says_what_begins_to_wait_and_what_is_empty(world: World) -> None:
    await world.backlog.follow()
    await world.put(flow())
    assert (await world.backlog.follow()).began
    assert world.backlog.fitting("n") == [flow()]
    await world.pull(flow())
    assert not (await world.backlog.follow()).began
    assert not world.backlog


async def test_how_much_waits_is_known_as_of_the_last_reading(world: World) -> None:
    await world.put(flow())
    await world.put(flow(), "s:2")
    await world.put(flow("fr"), "s:3")
    await world.backlog.follow()
    assert world.backlog.lengths == {flow(): 2, flow("fr"): 1}
    await world.pull(flow("fr"))
    world.clock.advance(READ_MS)
    await world.backlog.follow()
    assert world.backlog.lengths == {flow(): 2}


async def test_a_vain_pull_corrects_it(world: World) -> None:
    await world.put(flow())
    await world.backlog.follow()
    since = world.backlog.turn
    world.backlog.emptied(await world.pull(flow()), since=since)
    assert not world.backlog


async def test_what_began_to_wait_after_a_pull_is_not_taken_for_empty(world: World) -> None:
    await world.put(flow())
    await world.backlog.follow()
    since = world.backlog.turn
    empty = await world.pull(flow())
    await world.put(flow(), "s:2")
    await world.backlog.follow()
    world.backlog.emptied(empty, since=since)
    assert world.backlog.fitting("n") == [flow()]


async def test_all_is_read_again_when_its_time_has_come(world: World) -> None:
    await world.backlog.follow()
    await world.put(flow())
    world.clock.advance(READ_MS)
    heard = await world.backlog.follow()
    assert (heard.read, heard.began) == (True, True)


async def test_leases_that_ran_out_are_told(world: World) -> None:
    await world.backlog.follow()
    await world.put(flow())
    await world.pull(flow())
    world.clock.advance(5_000)
    assert (await world.backlog.follow()).overdue == [Lease("s:1", 1, 0, flow())]


async def test_after_an_outage_all_is_read_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(since: str, *, within_ms: int) -> None:
        raise StoreUnavailable("away")

    await world.backlog.follow()
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "news", away)
        with pytest.raises(StoreUnavailable):
            await world.backlog.follow()
    assert (await world.backlog.follow()).read


async def test_a_node_that_failed_a_job_has_it_again_only_where_there_is_no_other(
    world: World,
) -> None:
    await world.put(flow(avoid="n1,n2"))
    await world.backlog.follow()
    assert world.backlog.fitting("n1") == []
    assert world.backlog.fitting("n3") == [flow(avoid="n1,n2")]
    world.placement.others = False
    assert world.backlog.fitting("n1") == [flow(avoid="n1,n2")]


async def test_a_new_job_overtakes_only_what_is_less_urgent(world: World) -> None:
    await world.put(flow(priority=5))
    await world.backlog.follow()
    assert world.backlog.goes_before(flow().queue, priority=5)
    assert world.backlog.goes_before(flow().queue, priority=4)
    assert not world.backlog.goes_before(flow().queue, priority=6)
    assert not world.backlog.goes_before(flow("fr").queue, priority=5)


async def test_a_refusal_is_remembered_for_a_moment(world: World) -> None:
    full = QueueFull(10, 300)
    world.backlog.refused(flow(), full)
    assert world.backlog.refusal(flow(priority=9)) == full
    assert world.backlog.refusal(flow("fr")) is None
    world.clock.advance(FULL_FOR_MS)
    assert world.backlog.refusal(flow()) is None


class Weights:
    def __init__(self) -> None:
        self.found: dict[str, int] | None = {}

    async def weights(self) -> dict[str, int]:
        if self.found is None:
            raise StoreUnavailable("away")
        return self.found


async def test_an_operators_weight_wins_and_outlives_the_database() -> None:
    store = Weights()
    tenants = Tenants(store, configured={"acme": 3, "beta": 2})
    assert tenants.weights == {"acme": 3, "beta": 2}
    store.found = {"acme": 7}
    await tenants.read()
    assert tenants.weights == {"acme": 7, "beta": 2}
    store.found = None
    await tenants.read()
    assert tenants.weights == {"acme": 7, "beta": 2}
    store.found = {}
    await tenants.read()
    assert tenants.weights == {"acme": 3, "beta": 2}
