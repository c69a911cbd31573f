"""What waits for a slot, as this instance knows it: which flows hold jobs.

It follows the store's news of flows that begin to wait or are empty, so that a freed slot asks the
store only when there is something to ask for. All of it is read anew once a second: that heals
whatever the news did not tell, after a gap, an outage or a loss of data.

Not promised: that a flow still holds a job. The pull decides; one that is vain costs a round trip.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from registry.services.ports import Clock
from routing.domain.queueing import Flow, Lease, QueueFull
from routing.services.placement import Placement
from routing.services.ports import QueueStore

READ_MS = 1_000
"""How often everything is read: one short script, whose cost grows with the flows that wait."""

FULL_FOR_MS = 50
"""How long a refusal is repeated without asking again: few places become free in that time."""

MOST_FLOWS = 200
"""Flows that one pull asks for: the most urgent ones."""


class Heard(NamedTuple):
    """What one turn of following brought.

    `began`: something began to wait. `read`: all was read, with these leases that have run out.
    """

    began: bool
    read: bool = False
    overdue: Sequence[Lease] = ()


class Refusal(NamedTuple):
    full: QueueFull
    until_ms: int


class Backlog:
    """The flows that hold jobs, by queue; `lengths` are how many, as all was read last."""

    def __init__(self, queues: QueueStore, placement: Placement, *, clock: Clock) -> None:
        self._queues = queues
        self._placement = placement
        self._clock = clock
        self.lengths: Mapping[Flow, int] = {}
        self._by_queue: dict[str, dict[Flow, int]] = {}
        self._turns = count(1)
        self._turn = 0
        self._position: str | None = None
        self._read_again_ms = 0
        self._refusals: dict[tuple[str, str], Refusal] = {}

    def __bool__(self) -> bool:
        return bool(self._by_queue)

    def __iter__(self) -> Iterator[Flow]:
        for flows in self._by_queue.values():
            yield from flows

    async def follow(self) -> Heard:
        """Wait for news once, and take it in; read everything when its time has come.

        To be called again and again. Raises StoreUnavailable; all is read anew then.
        """
        if self._position is None or self._clock() >= self._read_again_ms:
            overdue = await self._read()
            return Heard(began=bool(self), read=True, overdue=overdue)
        position, self._position = self._position, None
        within_ms = max(self._read_again_ms - self._clock(), 1)
        self._position, news = await self._queues.news(position, within_ms=within_ms)
        self._turn = next(self._turns)
        for flow, waits in news:
            if waits:
                self._add(flow)
            else:
                self._remove(flow)
        return Heard(began=any(item.waits for item in news))

    async def _read(self) -> list[Lease]:
        standing = await self._queues.standing()
        self._turn = next(self._turns)
        self.lengths = standing.waiting
        self._by_queue = {}
        for flow in standing.waiting:
            self._add(flow)
        self._position = standing.position
        self._read_again_ms = self._clock() + READ_MS
        self._forget_refusals()
        return standing.overdue

    def fitting(self, node_id: str) -> list[Flow]:
        """The flows that a node may pull from, at once [] where nothing waits at all."""
        found = [flow for flow in self._servable(node_id) if self._may_take(node_id, flow)]
        if len(found) > MOST_FLOWS:
            found.sort(key=lambda flow: -flow.priority)
        return found[:MOST_FLOWS]

    def fits(self, node_id: str) -> bool:
        """Whether there is any flow that the node may pull from."""
        return any(self._may_take(node_id, flow) for flow in self._servable(node_id))

    def _servable(self, node_id: str) -> Iterator[Flow]:
        """Flows of queues that the node serves: those of one queue are alike in that."""
        for flows in self._by_queue.values():
            if self._placement.takes_flow(node_id, next(iter(flows))):
                yield from flows

    def goes_before(self, queue: str, *, priority: int) -> bool:
        """Whether a job waits in this queue that a new one of this priority must not overtake."""
        flows = self._by_queue.get(queue)
        return flows is not None and any(flow.priority >= priority for flow in flows)

    @property
    def turn(self) -> int:
        """Where the news stands; for `emptied`."""
        return self._turn

    def emptied(self, flows: list[Flow], *, since: int) -> None:
        """A pull that was sent at turn `since` found these flows empty, or left them so.

        What is news since then may have come after the pull: such a flow is kept.
        """
        for flow in flows:
            if self._by_queue.get(flow.queue, {}).get(flow, since + 1) <= since:
                self._remove(flow)

    def refused(self, flow: Flow, full: QueueFull) -> None:
        """The pool's queue takes no more of the flow's tenant."""
        self._refusals[flow.pool, flow.tenant] = Refusal(full, self._clock() + FULL_FOR_MS)

    def refusal(self, flow: Flow) -> QueueFull | None:
        """How the tenant was refused, if that was just now."""
        last = self._refusals.get((flow.pool, flow.tenant))
        return last.full if last is not None and self._clock() < last.until_ms else None

    def _may_take(self, node_id: str, flow: Flow) -> bool:
        # A node that failed a job gets it again only where there is no other.
        return node_id not in flow.avoided or not self._placement.serves_elsewhere(
            flow, than=flow.avoided
        )

    def _add(self, flow: Flow) -> None:
        self._by_queue.setdefault(flow.queue, {})[flow] = self._turn

    def _remove(self, flow: Flow) -> None:
        flows = self._by_queue.get(flow.queue)
        if flows is not None and flows.pop(flow, None) is not None and not flows:
            del self._by_queue[flow.queue]

    def _forget_refusals(self) -> None:
        now_ms = self._clock()
        for key in [key for key, last in self._refusals.items() if last.until_ms <= now_ms]:
            del self._refusals[key]
