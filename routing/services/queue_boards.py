"""What waits, for people: by queue, by tenant, and by flow; lengths from memory, ages of the store.

Lengths are at most a second old.
"""

from collections import Counter
from dataclasses import dataclass

from routing.domain.labels import decode, in_words
from routing.domain.queueing import DEFAULT_WEIGHT, NO_LABELS, Flow, queue_parts
from routing.services.boards import Boards, Why, arrow
from routing.services.ports import QueueStore
from routing.services.tenants import Tenants
from routing.services.waiting import Waiting

QUEUES_SHOWN = 50
FLOWS_SHOWN = 100
TENANTS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class QueueBoard:
    """Jobs that wait alike, of all tenants, and why. `labels` are what a node must have."""

    name: str
    pair: str
    labels: str
    waiting: int
    why: Why


@dataclass(frozen=True, slots=True)
class FlowBoard:
    """A tenant's jobs of one priority in a queue. `avoids`: nodes that failed them.

    `oldest_ms` is how long ago the first was accepted; None when it left a moment ago.
    """

    flow: Flow
    pair: str
    labels: str
    avoids: str
    weight: int
    waiting: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class TenantBoard:
    """What waits of one tenant: `share` is in percent of all that waits."""

    name: str
    weight: int
    waiting: int
    share: int


class QueueBoards:
    """Answers what waits, from one instance."""

    def __init__(
        self, waiting: Waiting, queues: QueueStore, tenants: Tenants, boards: Boards
    ) -> None:
        self._waiting = waiting
        self._queues = queues
        self._tenants = tenants
        self._boards = boards

    @property
    def total(self) -> int:
        """Jobs that wait in the whole cluster, as of a second ago at most."""
        return sum(self._waiting.lengths.values())

    def queues(self) -> list[QueueBoard]:
        """The longest first."""
        lengths: Counter[str] = Counter()
        for flow, waiting in self._waiting.lengths.items():
            lengths[flow.queue] += waiting
        return [self._queue(name, length) for name, length in lengths.most_common(QUEUES_SHOWN)]

    async def flows(self) -> list[FlowBoard]:
        """The longest first, with their ages. Raises StoreUnavailable."""
        lengths = self._waiting.lengths
        longest = sorted(lengths, key=lambda flow: (-lengths[flow], flow))[:FLOWS_SHOWN]
        ages = await self._queues.oldest(longest)
        return [
            FlowBoard(
                flow=flow,
                pair=arrow(flow.src, flow.tgt),
                labels=in_words(flow.wanted_labels),
                avoids=", ".join(sorted(flow.avoided)),
                weight=self._weight(flow.tenant),
                waiting=lengths[flow],
                oldest_ms=age,
            )
            for flow, age in zip(longest, ages, strict=True)
        ]

    @property
    def flow_count(self) -> int:
        return len(self._waiting.lengths)

    def tenants(self) -> list[TenantBoard]:
        """Who has most that waits, first."""
        lengths: Counter[str] = Counter()
        for flow, waiting in self._waiting.lengths.items():
            lengths[flow.tenant] += waiting
        return [
            TenantBoard(name, self._weight(name), waiting, round(100 * waiting / lengths.total()))
            for name, waiting in lengths.most_common(TENANTS_SHOWN)
        ]

    def _queue(self, name: str, length: int) -> QueueBoard:
        _, src, tgt, encoded = queue_parts(name)
        labels = decode(encoded) if encoded else NO_LABELS
        why = self._boards.why(src, tgt, labels=labels)
        return QueueBoard(name, arrow(src, tgt), in_words(labels), length, why)

    def _weight(self, tenant: str) -> int:
        return self._tenants.weights.get(tenant, DEFAULT_WEIGHT)
