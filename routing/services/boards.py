"""What the pages of operators show, from memory; each a small question with a plain answer.

What only the store knows (one session, one job, what a node holds) is asked of it once a look.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pools.domain.index import PoolIndex
from registry.domain.capability import AUTO
from registry.services.loops import Loops
from registry.services.views import NodeView, NodeViews
from routing.domain.labels import has_labels, in_words
from routing.domain.queueing import NO_LABELS, queue_parts
from routing.domain.selection import Candidate, SelectionRules, objection
from routing.services.sessions import Sessions
from routing.services.waiting import Waiting

LOOKED_AT = 300
"""Members of a pool that are asked why they take no job: enough to say what is wrong."""


@dataclass(frozen=True, slots=True)
class PoolBoard:
    """One pool, summed over its members. `running` reservations of `slots`, in percent `used`."""

    id: int
    name: str
    kind: str
    src: str
    tgt: str
    nodes: int
    ready: int
    reserved: int
    slots: int
    queued: int

    @property
    def used(self) -> int:
        return round(100 * self.reserved / self.slots) if self.slots else 0


@dataclass(frozen=True, slots=True)
class Reason:
    """Why some nodes do not take a job now."""

    what: str
    nodes: int


@dataclass(frozen=True, slots=True)
class Why:
    """What keeps jobs of a pair waiting. `free` nodes could take one now, of `looked_at`."""

    pool: str | None
    members: int
    looked_at: int
    free: int
    reasons: list[Reason]

    @property
    def sentence(self) -> str:
        if self.pool is None:
            return "No pool takes this pair: no node that is known supports it."
        if not self.members:
            return f"Pool {self.pool} has no nodes now."
        if self.free:
            return f"{self.free} of {self.looked_at} nodes have room: it goes out in a moment."
        if self.looked_at == 1:
            return f"The only node in {self.pool} cannot take it now."
        return f"None of {self.looked_at} nodes in {self.pool} can take it now."


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session whose socket is here."""

    id: str
    tenant: str
    pair: str
    seq: int
    platform: str


class Boards:
    """Answers from one instance's memory."""

    def __init__(
        self,
        views: NodeViews,
        index: PoolIndex,
        sessions: Sessions,
        loops: Loops,
        waiting: Waiting,
        *,
        rules: SelectionRules,
    ) -> None:
        self._views = views
        self._index = index
        self._sessions = sessions
        self._loops = loops
        self._waiting = waiting
        self._rules = rules

    def trouble(self) -> list[str]:
        """What of this instance's background work fails now."""
        return [f"{name}: {why}" for name, why in sorted(self._loops.failing.items())]

    def pools(self) -> list[PoolBoard]:
        """All pools in the order of their names."""
        queued = self._queued_by_pool()
        return [self._pool(pool.name, queued) for pool in self._index.pools]

    def pool(self, name: str) -> PoolBoard | None:
        if all(pool.name != name for pool in self._index.pools):
            return None
        return self._pool(name, self._queued_by_pool())

    def why(self, src: str, tgt: str, *, labels: Mapping[str, str] = NO_LABELS) -> Why:
        """What keeps jobs of a pair waiting, as far as is known here."""
        choice = self._index.choose_pool(src, tgt)
        if choice is None:
            return Why(None, 0, 0, 0, [])
        members = [
            node_id
            for node_id in list(self._index.members(choice.pool.name))[:LOOKED_AT]
            if src == AUTO or not choice.filtered or self._index.supports(node_id, src, tgt)
        ]
        reasons = Counter(self._objection(node_id, labels) for node_id in members)
        free = reasons.pop("", 0)
        return Why(
            choice.pool.name,
            len(self._index.members(choice.pool.name)),
            len(members),
            free,
            [Reason(what, count) for what, count in reasons.most_common()],
        )

    def passed_over(self, view: NodeView) -> str:
        """Why a node takes no job now; empty when it does."""
        return objection(_candidate(view), self._rules) or _fullness(_candidate(view))

    def sessions(self, *, limit: int = 200) -> list[SessionRow]:
        """Sessions whose sockets are here, by id."""
        found = sorted(self._sessions.connected(), key=lambda s: s.session_id)
        return [
            SessionRow(
                s.session_id,
                s.init.tenant,
                arrow(s.init.src_lang, s.init.tgt_lang),
                s.sent_seq,
                s.init.platform,
            )
            for s in found[:limit]
        ]

    def tenants(self) -> list[tuple[str, int]]:
        """Sessions here by tenant, the largest first."""
        counts = Counter(s.init.tenant for s in self._sessions.connected())
        return counts.most_common(50)

    def _pool(self, name: str, queued: Mapping[str, int]) -> PoolBoard:
        pool = next(pool for pool in self._index.pools if pool.name == name)
        ready = reserved = slots = nodes = 0
        for node_id in self._index.members(name):
            view = self._views.get(node_id)
            if view is None:
                continue
            nodes += 1
            ready += view.ready
            reserved += view.reserved
            slots += view.snapshot.max_concurrent_jobs
        return PoolBoard(
            pool.id,
            name,
            pool.kind.value,
            pool.src,
            pool.tgt,
            nodes,
            ready,
            reserved,
            slots,
            queued.get(name, 0),
        )

    def _objection(self, node_id: str, labels: Mapping[str, str]) -> str:
        view = self._views.get(node_id)
        if view is None:
            return "it left a moment ago"
        if not has_labels(labels, view.snapshot.labels):
            return f"it has not all the labels {in_words(labels)}"
        return self.passed_over(view)

    def _queued_by_pool(self) -> Counter[str]:
        queued: Counter[str] = Counter()
        for flow, waiting in self._waiting.lengths.items():
            queued[pool_of(flow.queue)] += waiting
        return queued


def arrow(src: str, tgt: str) -> str:
    """A pair for people."""
    return f"{src} \N{RIGHTWARDS ARROW} {tgt}"


def pool_of(queue: str) -> str:
    """The pool that a queue's jobs are counted to."""
    pool, src, tgt, _ = queue_parts(queue)
    return pool or f"{'*' if src == AUTO else src}-{tgt}"


def _candidate(view: NodeView) -> Candidate:
    return Candidate(view.snapshot, view.peak_percent, view.reserved, view.pending)


def _fullness(node: Candidate) -> str:
    slots = node.snapshot.max_concurrent_jobs
    return f"all its {slots} slots are reserved" if node.full else ""
