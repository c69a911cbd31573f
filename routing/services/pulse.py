"""One process's beat for operators: count, tell, listen, remember; and judge, while it leads.

One call of the store a beat, whatever the size of the cluster or the number of viewers.

Not promised: exact rates. A beat that comes late covers a longer time, and is divided by it.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from operator import sub

import msgspec
import structlog

from registry.domain.errors import StoreUnavailable
from registry.services.ports import Clock
from routing.domain.alerts import (
    Alert,
    AlertRules,
    InstanceReading,
    Readings,
    breaches,
    settle,
)
from routing.domain.figures import ClusterFigures, Figures
from routing.domain.spread import percentile_ms
from routing.services.history import History, leading, sample
from routing.services.ports import FigureStore
from routing.services.watch import NodeWatch

log = structlog.get_logger(__name__)


PERCENTILE_BEATS = 12
"""Percentiles are of so many beats, a minute: those of one beat would be of a few tasks."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What only ever grows; rates and percentiles are made of the differences.

    `dispatched` are counts by bucket of `routing.domain.spread`.
    """

    accepted: int
    finished: int
    retried: int
    dispatched: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What the leader reads of the store: waiting jobs by queue, and dead letters, if counted."""

    queues: Mapping[str, int]
    dead_letters: int | None = None


class Pulse:
    """The beat of one process."""

    def __init__(
        self,
        store: FigureStore,
        *,
        measure: Callable[[], Figures],
        count: Callable[[], Counts],
        outstanding: Callable[[], Awaitable[Outstanding]],
        pool_members: Callable[[], Mapping[str, int]],
        queue_pool: Callable[[str], str],
        watch: NodeWatch,
        rules: AlertRules,
        clock: Clock,
        wall_clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._measure = measure
        self._count = count
        self._outstanding = outstanding
        self._pool_members = pool_members
        self._queue_pool = queue_pool
        self._watch = watch
        self._clock = clock
        self._wall_clock = wall_clock
        self._counted = count()
        self._counted_at_ms = clock()
        self._dispatched = deque([self._counted.dispatched], maxlen=PERCENTILE_BEATS + 1)
        self._since: dict[str, int] = {}
        self._own_since: dict[str, int] = {}
        self._queues_since: dict[str, int] = {}
        self._own_alerts: tuple[Alert, ...] = ()
        self.rules = rules
        self.history = History()
        self.latest: list[Figures] = []

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """The leader's alerts as told last, or, where nobody leads, what is clear without one."""
        leader = leading(self.latest)
        if leader is not None and leader.cluster is not None:
            return leader.cluster.alerts
        return self._own_alerts

    @property
    def queues(self) -> Mapping[str, int]:
        """Waiting jobs by queue, as the leader told last."""
        leader = leading(self.latest)
        return leader.cluster.queues if leader is not None and leader.cluster else {}

    async def turn(self) -> None:
        """One beat."""
        own = self._figures()
        try:
            if own.leading_epoch:
                own = msgspec.structs.replace(own, cluster=await self._judge())
            self.latest = await self._store.post(own)
        except StoreUnavailable:
            self.latest = [own]
            raise
        finally:
            self._remember()

    def _figures(self) -> Figures:
        now_ms, counts = self._clock(), self._count()
        seconds = max(now_ms - self._counted_at_ms, 1) / 1000
        before, self._counted, self._counted_at_ms = self._counted, counts, now_ms
        self._dispatched.append(counts.dispatched)
        dispatched = list(map(sub, counts.dispatched, self._dispatched[0]))
        return msgspec.structs.replace(
            self._measure(),
            accepted_per_s=_rate(before.accepted, counts.accepted, seconds),
            finished_per_s=_rate(before.finished, counts.finished, seconds),
            retried_per_s=_rate(before.retried, counts.retried, seconds),
            p50_ms=percentile_ms(dispatched, 50),
            p99_ms=percentile_ms(dispatched, 99),
        )

    async def _judge(self) -> ClusterFigures:
        found, now_ms = await self._outstanding(), self._wall_clock()
        self._queues_since = {
            queue: self._queues_since.get(queue, now_ms) for queue in found.queues
        }
        readings = self._readings(found, leader=True)
        self._since, alerts = settle(self._since, breaches(readings, self.rules), now_ms=now_ms)
        return ClusterFigures(dict(found.queues), alerts, found.dead_letters)

    def _readings(self, outstanding: Outstanding, *, leader: bool) -> Readings:
        now_ms, rules = self._wall_clock(), self.rules
        ended, failed = self._attempts(since_ms=now_ms - rules.window_ms)
        return Readings(
            leader=leader,
            instances=[_reading(figures) for figures in self.latest if figures.serves],
            leader_changes=self.history.leader_changes(since_ms=now_ms - rules.window_ms),
            queues={queue: now_ms - since for queue, since in self._queues_since.items()},
            attempts_ended=ended,
            attempts_failed=failed,
            dead_letters=outstanding.dead_letters,
            connections=self._watch.connections(within_ms=rules.window_ms),
        )

    def _attempts(self, *, since_ms: int) -> tuple[int, int]:
        """Attempts that ended and those of them that failed, from the rates that are kept."""
        ended = failed = 0.0
        for before, after in pairwise(self.history.samples):
            if after.at_ms >= since_ms:
                seconds = (after.at_ms - before.at_ms) / 1000
                failed += after.retried_per_s * seconds
                ended += (after.retried_per_s + after.finished_per_s) * seconds
        return round(ended), round(failed)

    def _remember(self) -> None:
        now_ms = self._wall_clock()
        by_status = self._watch.by_status
        self.history.add(
            sample(self.latest, at_ms=now_ms, nodes=by_status.total(), ready=by_status["ready"])
        )
        queued: dict[str, int] = {}
        for queue, length in self.queues.items():
            pool = self._queue_pool(queue)
            queued[pool] = queued.get(pool, 0) + length
        self.history.add_pools(self._pool_members(), queued)
        self._judge_alone(now_ms)

    def _judge_alone(self, now_ms: int) -> None:
        """What is clear without a leader: that there is none, and what peers' figures show."""
        if leading(self.latest) is not None:
            self._own_since, self._own_alerts = {}, ()
            return
        found = breaches(self._readings(Outstanding({}), leader=False), self.rules)
        self._own_since, self._own_alerts = settle(self._own_since, found, now_ms=now_ms)


def _reading(figures: Figures) -> InstanceReading:
    return InstanceReading(
        figures.instance_id,
        figures.pools,
        figures.pool_version,
        figures.index_digest,
        figures.sync_delay_ms,
        max(figures.held - figures.running, 0),
    )


def _rate(before: int, after: int, seconds: float) -> float:
    return round(max(after - before, 0) / seconds, 2)
