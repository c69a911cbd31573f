"""The last 15 minutes, in rings of fixed size, so that a page opened later has them."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from routing.domain.figures import Figures

SAMPLE_MS = 5_000
KEPT = 15 * 60_000 // SAMPLE_MS


class Sample(msgspec.Struct, frozen=True):
    """The cluster at one moment. `queued` is None while no leader tells of it."""

    at_ms: int
    accepted_per_s: float
    finished_per_s: float
    retried_per_s: float
    queued: int | None
    running: int
    sessions: int
    nodes: int
    ready: int
    epoch: int
    p50_ms: float | None
    p99_ms: float | None
    lag_ms: float


def sample(all_figures: Sequence[Figures], *, at_ms: int, nodes: int, ready: int) -> Sample:
    """Everybody's figures as one. Percentiles do not add up: the worst instance stands for all."""
    leader = leading(all_figures)
    return Sample(
        at_ms=at_ms,
        accepted_per_s=round(sum(f.accepted_per_s for f in all_figures), 2),
        finished_per_s=round(sum(f.finished_per_s for f in all_figures), 2),
        retried_per_s=round(sum(f.retried_per_s for f in all_figures), 2),
        queued=sum(leader.cluster.queues.values()) if leader and leader.cluster else None,
        running=sum(f.running for f in all_figures),
        sessions=sum(f.sessions for f in all_figures),
        nodes=nodes,
        ready=ready,
        epoch=leader.leading_epoch if leader else 0,
        p50_ms=_worst(f.p50_ms for f in all_figures),
        p99_ms=_worst(f.p99_ms for f in all_figures),
        lag_ms=round(max((f.lag_ms for f in all_figures), default=0.0), 1),
    )


def leading(all_figures: Sequence[Figures]) -> Figures | None:
    """Who leads by these figures; of two, the one with the higher epoch."""
    leaders = [figures for figures in all_figures if figures.leading_epoch]
    return max(leaders, key=lambda f: f.leading_epoch, default=None)


@dataclass(slots=True)
class PoolTrail:
    """One pool's last members and queue lengths, oldest first."""

    members: deque[int]
    queued: deque[int]


class History:
    """Samples of the cluster and of each pool."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self._kept = kept
        self.samples: deque[Sample] = deque(maxlen=kept)
        self.pools: dict[str, PoolTrail] = {}

    def add(self, taken: Sample) -> None:
        self.samples.append(taken)

    def add_pools(self, members: Mapping[str, int], queued: Mapping[str, int]) -> None:
        """Pools that are not among `members` are gone, and forgotten."""
        for name in self.pools.keys() - members.keys():
            del self.pools[name]
        for name, count in members.items():
            trail = self.pools.get(name)
            if trail is None:
                trail = PoolTrail(deque(maxlen=self._kept), deque(maxlen=self._kept))
                self.pools[name] = trail
            trail.members.append(count)
            trail.queued.append(queued.get(name, 0))

    def leader_changes(self, *, since_ms: int) -> int:
        """How often another epoch led, within what is kept."""
        epochs = [s.epoch for s in self.samples if s.at_ms >= since_ms and s.epoch]
        return sum(after > before for before, after in pairwise(epochs))


def _worst(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
