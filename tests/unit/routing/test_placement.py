"""Where a job may go and why: labels, failures, affinity, decisions, and what slots are counted."""

import asyncio
from random import Random

import msgspec
import pytest

from pools.domain.generation import PoolRules
from pools.domain.index import PoolIndex
from pools.domain.pool import Pool, PoolKind
from registry.domain.errors import StoreUnavailable
from registry.domain.node import NodeSnapshot, NodeStatus
from registry.services.views import FAILURE_MEMORY_MS, NodeViews
from routing.domain import decision
from routing.domain.outcome import Brief, Busier, NodeGone, Reservation, Reserved
from routing.domain.queueing import flow_named, flow_of, queue_of
from routing.domain.selection import LOOKS, SelectionRules
from routing.domain.shortlist import Shortlist
from routing.services.placement import Placement
from routing.services.reasons import shown
from routing.services.rehearsal import Rehearsal
from routing.services.slots import Slots
from tests.unit.routing.test_actions import capabilities

EU = {"region": "eu"}


class World:
    """One instance's views of nodes that all do zh to en."""

    def __init__(self, *names: str, slots: int = 4, seed: int = 1) -> None:
        self.now_ms = 1_000_000
        self.index, self.views = PoolIndex(PoolRules()), NodeViews()
        self.index.configure([Pool(1, "zh-en", PoolKind.EXACT, "zh", "en")])
        self.slots = slots
        for name in names:
            self.put(name)
        self.local: list[str] = []
        self.placement = self._placement(Random(seed))
        self.rehearsal = Rehearsal(self.index, self.views, self._placement(Random(seed)))

    def put(
        self,
        name: str,
        *,
        labels: dict[str, str] | None = None,
        status: NodeStatus = NodeStatus.READY,
        revision: int = 0,
    ) -> None:
        able = capabilities("zh", "en")
        snapshot = NodeSnapshot(
            name, "i", 1, revision, status, self.slots, True, able.capability_by_type,
            able.language_capabilities, 0, labels=labels or {},
        )  # fmt: skip
        self.index.put(name, able)
        self.views.put(snapshot)

    def plan(self, labels: dict[str, str] | None = None, **more: object) -> list[str] | None:
        plan = self.placement.plan_for(brief(labels), **more)
        return None if plan is None else list(plan.nodes)

    def _placement(self, random: Random) -> Placement:
        return Placement(
            self.index,
            self.views,
            rules=SelectionRules(),
            chance=random.random,
            clock=lambda: self.now_ms,
            some_local=lambda lot: self.local[int(lot * len(self.local))] if self.local else "",
        )


def brief(labels: dict[str, str] | None = None) -> Brief:
    wanted = labels or {}
    queue = queue_of("zh-en", "zh", "en", wanted)
    return Brief("zh", "en", 5, "t", "trace", queue, labels=wanted)


class Store:
    """A slot store that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int | None]] = []
        self._waiting: asyncio.Queue[asyncio.Future[Reservation]] = asyncio.Queue()

    async def reserve(self, node_id: str, *, ceiling: int | None = None, **_: object):
        answer = asyncio.get_running_loop().create_future()
        self.asked.append((node_id, ceiling))
        self._waiting.put_nowait(answer)
        return await answer

    async def answer(self, word: Reservation | Exception) -> None:
        """Answer the next question, as soon as there is one."""
        question = await self._waiting.get()
        if isinstance(word, Exception):
            question.set_exception(word)
        else:
            question.set_result(word)


def slots_of(world: World) -> tuple[Slots, Store]:
    store = Store()
    return Slots(store, world.views, lease_ms=1, clock=lambda: world.now_ms), store


def test_only_nodes_with_all_labels_are_candidates() -> None:
    world = World("plain")
    world.put("eu", labels=EU | {"gpu": "a"})
    world.put("us", labels={"region": "us"})
    assert world.plan(EU) == ["eu"]
    assert world.plan(EU | {"gpu": "b"}) is None
    assert world.placement.accepts("eu", brief(EU))
    assert not world.placement.accepts("us", brief(EU))
    assert "region=eu" in world.placement.refusal(brief(EU))


def test_a_node_that_gets_the_labels_is_found_at_once() -> None:
    world = World("a", "b")
    assert world.plan(EU) is None
    world.put("b", labels=EU, revision=1)
    assert world.plan(EU) == ["b"]


def test_a_queue_tells_the_labels_of_its_jobs() -> None:
    labels = {"a|b": "x>y?", "region": "eu", "empty": ""}
    waiting = flow_of(brief(labels))
    assert flow_named(waiting.name) == waiting
    assert waiting.wanted_labels == labels
    assert queue_of("zh-en", "zh", "en") == "zh-en|zh>en"
    world = World()
    world.put("eu", labels=EU)
    world.put("plain")
    assert world.placement.takes_flow("eu", flow_of(brief(EU)))
    assert not world.placement.takes_flow("plain", flow_of(brief(EU)))
    assert world.placement.takes_flow("plain", flow_of(brief({})))


@pytest.mark.parametrize("seed", range(10))
def test_the_one_fit_node_of_a_large_pool_is_found_and_looked_for_once(seed: int) -> None:
    world = World(seed=seed)
    for number in range(LOOKS * 4):
        world.put(f"n{number}", status=NodeStatus.DRAINING)
    world.put("fit")
    assert world.plan() == ["fit"]
    looked: list[str] = []
    real = world.placement._is_fit
    world.placement._is_fit = lambda node_id: looked.append(node_id) or real(node_id)
    assert all(world.plan() == ["fit"] for _ in range(20))
    assert len(looked) <= LOOKS * 4 + 1
    world.put("fit", status=NodeStatus.DRAINING, revision=1)
    assert world.plan() == []


def test_a_node_that_failed_lately_is_chosen_last_for_a_while() -> None:
    world = World("a", "b")
    world.placement.note_failure("a")
    assert all(world.plan() == ["b", "a"] for _ in range(10))
    world.now_ms += FAILURE_MEMORY_MS
    assert {world.plan()[0] for _ in range(30)} == {"a", "b"}


def test_the_sessions_last_node_comes_first_unless_it_is_not_in_the_pool() -> None:
    world = World(*(f"n{number}" for number in range(50)))
    assert all(world.plan(near="n7")[0] == "n7" for _ in range(20))
    world.views.get("n7").reserved = 1
    assert all(world.plan(near="n7")[0] != "n7" for _ in range(20))
    assert "gone" not in world.plan(near="gone")
    assert "n8" not in (world.plan(EU, near="n8") or [])


@pytest.mark.parametrize("seed", range(10))
def test_of_equal_nodes_one_that_is_connected_here_comes_first(seed: int) -> None:
    world = World(*(f"n{number}" for number in range(50)), seed=seed)
    world.local = ["n7"]
    assert world.plan()[0] == "n7"
    assert world.plan(near="n9")[0] == "n9"
    world.views.holds_at_least("n7", 1)
    assert world.plan()[0] != "n7"
    world.local = ["unknown"]
    assert world.plan()


def test_the_dry_run_decides_as_the_placement_does_with_the_same_lot() -> None:
    world = World(*(f"n{number}" for number in range(30)))
    for number in range(30):
        world.views.get(f"n{number}").reserved = number % 4
    world.placement.note_failure("n0")
    for _ in range(20):
        plan = world.placement.plan_for(brief())
        assert plan is not None
        real = decision.encode(plan.nodes.decision(plan.nodes.first, attempt=1))
        (rehearsed,) = world.rehearsal.simulate("zh", "en").placements
        (stored,) = decision.latest([msgspec.json.decode(real)])
        assert shown(stored) == rehearsed


async def test_choices_in_one_turn_count_each_other_before_any_answer() -> None:
    world = World(*(f"n{number}" for number in range(8)))
    slots, store = slots_of(world)
    asked = []
    for number in range(16):
        plan = world.placement.plan_for(brief())
        assert plan is not None
        asked.append(slots.ask(plan.nodes, job_id=f"s:{number}", attempt=1))
    assert [view.pending for view in world.views] == [2] * 8
    for _ in range(16):
        await store.answer(NodeGone())
    assert await asyncio.gather(*asked) == [None] * 16
    assert [view.pending for view in world.views] == [0] * 8


async def test_a_question_that_is_cancelled_or_fails_is_no_longer_counted() -> None:
    world = World("a")
    slots, store = slots_of(world)
    slots.reserve("a", job_id="s:1", attempt=1).cancel()
    asked = slots.reserve("a", job_id="s:2", attempt=1)
    assert world.views.get("a").pending == 2
    await store.answer(StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await asked
    assert world.views.get("a").pending == 0


async def test_an_old_view_gives_no_ceiling_and_a_fresh_one_does() -> None:
    world = World("a", "b")
    slots, store = slots_of(world)

    async def ask_and_answer(answer: Reservation) -> int | None:
        plan = world.placement.plan_for(brief())
        assert plan is not None
        asked = slots.ask(plan.nodes, job_id="s:1", attempt=1)
        await store.answer(answer)
        await asked
        return store.asked[-1][1]

    assert await ask_and_answer(Reserved("i", 1, fresh=True)) is None
    assert await ask_and_answer(Reserved("i", 1, fresh=True)) is None
    assert await ask_and_answer(Reserved("i", 2, fresh=True)) == 1
    world.now_ms += 10_000
    assert await ask_and_answer(Reserved("i", 2, fresh=True)) is None


async def test_the_decision_names_who_got_the_job_and_who_was_busier() -> None:
    world = World("a", "b")
    slots, store = slots_of(world)
    plan = world.placement.plan_for(brief())
    assert plan is not None
    first, second = plan.nodes
    taking = asyncio.ensure_future(slots.reserve_one(plan.nodes, job_id="s:1", attempt=1))
    for answer in (Busier(3), Reserved("i", 1, fresh=True)):
        await store.answer(answer)
    taken = await taking
    assert taken is not None
    assert (taken.node_id, [each[0] for each in store.asked]) == (second, [first, second])
    state = shown(plan.nodes.decision(taken.node_id, attempt=1))
    assert (state.node, state.pool, state.waited) == (second, "zh-en", False)
    assert [(each.id, each.answers) for each in state.candidates] == [
        (first, ["busier"]),
        (second, []),
    ]


def test_of_each_attempt_the_last_decision_counts_and_says_whether_it_waited() -> None:
    world = World("a")
    nodes = world.placement.only("a")
    stored = [
        msgspec.json.decode(decision.encode(each))
        for each in (
            Shortlist([]).decision(attempt=1),
            nodes.decision("a", attempt=1),
            nodes.decision("a", attempt=2),
        )
    ]
    first, second = decision.latest(stored)
    assert (first.node, first.waited, second.waited) == ("a", True, False)
    pulled = msgspec.json.decode(world.placement.pulled("a", attempt=3, pool="zh-en"))
    assert (pulled["node"], pulled["waited"], pulled["pool"]) == ("a", True, "zh-en")
