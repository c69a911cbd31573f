"""The operators' side of one process: its pulse, and what its pages ask.

`build_ops` adds it to a process that is wired already; `start` is called once that one runs.
"""

from collections import Counter
from dataclasses import dataclass

from registry.wiring import RedisGround, wall_ms
from routing.domain.alerts import AlertRules
from routing.domain.figures import Figures
from routing.instance import Routing
from routing.services.boards import Boards, pool_of
from routing.services.history import SAMPLE_MS
from routing.services.node_list import NodeList
from routing.services.pulse import Counts, Outstanding, Pulse
from routing.services.queue_boards import QueueBoards
from routing.services.watch import NodeWatch
from routing.store.figures import RedisFigureStore
from routing.store.memory.figures import MemoryFigureStore
from routing.wiring import selection_rules

FIGURES_LIFE_MS = 6 * SAMPLE_MS


@dataclass(frozen=True, slots=True)
class Ops:
    """What the pages of one process stand on."""

    routing: Routing
    watch: NodeWatch
    pulse: Pulse
    boards: Boards
    queues: QueueBoards
    nodes: NodeList

    def start(self) -> None:
        """Begin to count and tell. On the event loop, once."""
        self.routing.registry.loops.every("pulse", SAMPLE_MS, self.pulse.turn)


_running: Ops | None = None


def running_ops() -> Ops | None:
    """The operators' side of this process, if it runs an instance."""
    return _running


def set_running_ops(ops: Ops | None) -> None:
    global _running  # One instance a process, set once by its composer.
    _running = ops


def build_ops(routing: Routing) -> Ops:
    """Wire it over a process."""
    registry, pools = routing.registry, routing.pools
    watch = NodeWatch(
        registry.views,
        wall_clock=wall_ms,
        caught_up=lambda: routing.membership.synced_at_ms is not None,
    )
    pulse = Pulse(
        _figure_store(routing),
        measure=lambda: _measure(routing),
        count=lambda: Counts(
            routing.intake.accepted,
            routing.completion.finished,
            routing.retries.retried,
            tuple(routing.dispatch_times.counts),
        ),
        outstanding=lambda: _outstanding(routing),
        pool_members=pools.index.counts,
        queue_pool=pool_of,
        watch=watch,
        rules=AlertRules(),
        clock=registry.clock,
        wall_clock=wall_ms,
    )
    boards = Boards(
        registry.views,
        pools.index,
        routing.sessions,
        registry.loops,
        routing.waiting,
        rules=selection_rules(),
    )
    nodes = NodeList(registry.views, pools.index, lambda node_id: _latest(watch, node_id))
    queues = QueueBoards(routing.waiting, routing.stores.queues, routing.tenants, boards)
    return Ops(routing, watch, pulse, boards, queues, nodes)


def _latest(watch: NodeWatch, node_id: str) -> str:
    news = watch.of(node_id)
    return news[0].what if news else ""


async def _outstanding(routing: Routing) -> Outstanding:
    queues: Counter[str] = Counter()
    letters = await routing.letters.total()
    for flow, waiting in (await routing.stores.queues.standing()).waiting.items():
        queues[flow.queue] += waiting
    return Outstanding(queues, letters)


def _figure_store(routing: Routing) -> RedisFigureStore | MemoryFigureStore:
    ground = routing.registry.ground
    if isinstance(ground, RedisGround):
        return RedisFigureStore(ground.connection, ground.keys, life_ms=FIGURES_LIFE_MS)
    return MemoryFigureStore(ground.server, life_ms=FIGURES_LIFE_MS)


def _measure(routing: Routing) -> Figures:
    """What this process counts of itself; rates are the pulse's."""
    membership, tenure = routing.membership, routing.pools.election.leading()
    held = 0
    for node in membership.local_nodes():
        view = membership.views.get(node.snapshot.node_id)
        held += view.reserved if view is not None else 0
    synced_at_ms = membership.synced_at_ms
    report = routing.pools.report(serves=routing.serves)
    return Figures(
        instance_id=routing.instance_id,
        serves=routing.serves,
        leading_epoch=tenure.epoch if tenure is not None else 0,
        nodes=len(membership.local_nodes()),
        sessions=len(routing.sessions),
        unfinished=len(routing.deadlines),
        held=held,
        running=routing.assignment.running,
        pools=report.pools,
        pool_version=report.pool_config_version,
        index_digest=report.pool_index_digest,
        sync_delay_ms=routing.registry.clock() - synced_at_ms if synced_at_ms is not None else 0,
        lag_ms=round(routing.lag_ms, 1),
        degraded=routing.overview.degraded,
    )
