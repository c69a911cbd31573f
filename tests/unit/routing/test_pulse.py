"""The pulse: figures told and heard, rates, history, and alerts of the leader or without one."""

import pytest

from registry.domain.errors import StoreUnavailable
from registry.domain.node import NodeSnapshot, NodeStatus
from registry.services.views import NodeViews
from registry.store.memory import MemoryServer
from routing.domain.alerts import AlertRules
from routing.domain.figures import Figures
from routing.domain.spread import BOUNDS_US, bucket_of
from routing.services.boards import pool_of
from routing.services.history import KEPT, History, Sample, sample
from routing.services.pulse import PERCENTILE_BEATS, Counts, Outstanding, Pulse
from routing.services.watch import NodeWatch
from routing.store.memory.figures import MemoryFigureStore


class Cluster:
    """Processes over one memory server, and a time that the test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_790_000_000_000
        self.server = MemoryServer(clock=lambda: self.now_ms)

    def process(self, name: str) -> "Process":
        return Process(name, self)


class Process:
    def __init__(self, name: str, cluster: Cluster) -> None:
        self.figures = Figures(name)
        self.counts = Counts(0, 0, 0, (0,) * (len(BOUNDS_US) + 1))
        self.outstanding = Outstanding({})
        self.pools = {"zh-en": 2}
        self.away = False
        self.store = MemoryFigureStore(cluster.server, life_ms=30_000)
        self.views = NodeViews()

        def clock() -> int:
            return cluster.now_ms

        self.watch = NodeWatch(self.views, wall_clock=clock, caught_up=lambda: True)
        self.pulse = Pulse(
            self,
            measure=lambda: self.figures,
            count=lambda: self.counts,
            outstanding=self._outstanding,
            pool_members=lambda: self.pools,
            queue_pool=pool_of,
            watch=self.watch,
            rules=AlertRules(no_leader_for_ms=10_000),
            clock=clock,
            wall_clock=clock,
        )

    def lead(self, epoch: int) -> None:
        self.figures = Figures(self.figures.instance_id, leading_epoch=epoch)

    async def _outstanding(self) -> Outstanding:
        return self.outstanding

    async def post(self, figures: Figures) -> list[Figures]:
        if self.away:
            raise StoreUnavailable("away")
        return await self.store.post(figures)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def rules_of(process: Process) -> list[str]:
    return [alert.rule for alert in process.pulse.alerts]


async def test_rates_are_of_the_time_since_the_beat_before(cluster: Cluster) -> None:
    one, two = cluster.process("one"), cluster.process("two")
    one.counts, two.counts = Counts(50, 40, 5), Counts(0, 10, 0)
    cluster.now_ms += 5_000
    await one.pulse.turn()
    await two.pulse.turn()
    last = two.pulse.history.samples[-1]
    assert (last.accepted_per_s, last.finished_per_s, last.retried_per_s) == (10.0, 10.0, 1.0)


async def test_percentiles_are_of_what_was_dispatched_within_a_minute(cluster: Cluster) -> None:
    one = cluster.process("one")
    counts = [0] * (len(BOUNDS_US) + 1)

    async def beat() -> tuple[float | None, float | None]:
        one.counts = Counts(0, 0, 0, tuple(counts))
        await one.pulse.turn()
        return one.pulse.latest[0].p50_ms, one.pulse.latest[0].p99_ms

    assert await beat() == (None, None)
    assert await beat() == (None, None)
    counts[bucket_of(900_000)] += 99
    counts[bucket_of(4_000)] += 1
    p50, p99 = await beat()
    assert p50 is not None
    assert 750 < p50 < 1_000
    counts[bucket_of(4_000)] += 9_900
    p50, p99 = await beat()
    assert p50 is not None
    assert 3 < p50 < 5
    assert p99 == 5.0
    for _ in range(PERCENTILE_BEATS - 1):
        assert (await beat())[1] is not None
    assert await beat() == (None, None)


async def test_the_leaders_alerts_are_seen_by_all(cluster: Cluster) -> None:
    leader, other = cluster.process("one"), cluster.process("two")
    leader.lead(3)
    leader.outstanding = Outstanding({"zh>en": 7}, dead_letters=2)
    await leader.pulse.turn()
    await other.pulse.turn()
    assert rules_of(other) == rules_of(leader) == ["dead letters"]
    assert other.pulse.queues == {"zh>en": 7}
    assert other.pulse.history.samples[-1].queued == 7
    assert list(other.pulse.history.pools["zh-en"].queued) == [7]


async def test_that_nobody_leads_is_told_without_a_leader(cluster: Cluster) -> None:
    one = cluster.process("one")
    await one.pulse.turn()
    assert rules_of(one) == []
    cluster.now_ms += 10_000
    await one.pulse.turn()
    assert rules_of(one) == ["no leader"]
    one.lead(4)
    await one.pulse.turn()
    assert rules_of(one) == []


async def test_a_queue_that_is_never_empty_is_told_of(cluster: Cluster) -> None:
    one = cluster.process("one")
    one.lead(1)
    one.outstanding = Outstanding({"zh>en": 1})
    await one.pulse.turn()
    cluster.now_ms += 30_001
    one.outstanding = Outstanding({})
    await one.pulse.turn()
    one.outstanding = Outstanding({"zh>en": 1})
    await one.pulse.turn()
    assert rules_of(one) == []
    cluster.now_ms += 30_001
    await one.pulse.turn()
    assert rules_of(one) == ["queue age"]


async def test_without_the_store_ones_own_figures_are_kept(cluster: Cluster) -> None:
    one, two = cluster.process("one"), cluster.process("two")
    await two.pulse.turn()
    await one.pulse.turn()
    one.away = True
    with pytest.raises(StoreUnavailable):
        await one.pulse.turn()
    assert [figures.instance_id for figures in one.pulse.latest] == ["one"]
    assert len(one.pulse.history.samples) == 2


def a_sample(epoch: int, at_ms: int = 0) -> Sample:
    leader = Figures("one", leading_epoch=epoch)
    return sample([leader], at_ms=at_ms, nodes=0, ready=0)


def test_the_history_is_bounded_and_forgets_pools_that_are_gone() -> None:
    history = History()
    for number in range(KEPT + 50):
        history.add(a_sample(1, number))
        history.add_pools({"zh-en": 1, "de-en": 1}, {})
    assert len(history.samples) == len(history.pools["zh-en"].members) == KEPT
    history.add_pools({"zh-en": 1}, {})
    assert list(history.pools) == ["zh-en"]


def test_a_leader_change_is_another_epoch_whatever_was_between() -> None:
    history = History()
    for at_ms, epoch in enumerate((1, 1, 0, 2, 2, 3)):
        history.add(a_sample(epoch, at_ms))
    assert history.leader_changes(since_ms=0) == 2
    assert history.leader_changes(since_ms=3) == 1


def a_node(
    name: str, *, epoch: int = 1, revision: int = 0, status: NodeStatus = NodeStatus.READY
) -> NodeSnapshot:
    return NodeSnapshot(
        node_id=name,
        instance_id="one",
        connection_epoch=epoch,
        revision=revision,
        status=status,
        max_concurrent_jobs=4,
        accept_public_jobs=True,
        capability_by_type=(),
        language_capabilities=None,
        registered_at_ms=0,
    )


def test_the_watch_counts_states_and_tells_changes_in_words(cluster: Cluster) -> None:
    one = cluster.process("one")
    one.views.put(a_node("gpu-1"))
    one.views.put(a_node("gpu-1", revision=1, status=NodeStatus.DRAINING))
    one.views.put(a_node("gpu-1", epoch=2))
    assert +one.watch.by_status == {"ready": 1}
    assert [news.what for news in one.watch.of("gpu-1")] == [
        "connected again at one, ready",
        "ready \N{RIGHTWARDS ARROW} draining",
        "joined at one, ready",
    ]
    assert one.watch.connections(within_ms=1_000) == {"gpu-1": 2}
    cluster.now_ms += 2_000
    assert one.watch.connections(within_ms=1_000) == {}
    one.views.remove("gpu-1", epoch=2)
    assert one.watch.latest(1)[0].what == "left"
    assert one.watch.by_status.total() == 0


def test_nodes_that_were_there_before_are_no_news() -> None:
    views, caught_up = NodeViews(), False
    watch = NodeWatch(views, wall_clock=lambda: 0, caught_up=lambda: caught_up)
    views.put(a_node("gpu-1"))
    caught_up = True
    views.put(a_node("gpu-2"))
    assert [news.node_id for news in watch.latest(5)] == ["gpu-2"]
    assert watch.by_status["ready"] == 2
