"""Finding a node for a job: the pool, the candidates, and why.

In memory and O(1): nothing here speaks to a store. The same code answers the dry run.

Where only some members of a pool may take a job (it asks for labels, or its pair has no pool of its
own), and where LOOKS looks found nobody fit, the pool is looked through, and what was found is kept
for a moment: see `Narrowed`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pools.domain.index import Choice, PoolIndex
from registry.domain.capability import AUTO
from registry.services.ports import Clock
from registry.services.views import NodeView, NodeViews
from routing.domain import decision
from routing.domain.labels import has_labels, in_words
from routing.domain.outcome import Brief
from routing.domain.queueing import Flow
from routing.domain.selection import (
    Candidate,
    Chance,
    SelectionRules,
    objection,
    prefer,
)
from routing.domain.shortlist import Shortlist
from routing.services.narrowing import Narrowed

LOCAL_DRAWS = 2
"""Nodes connected here that are drawn for a session that has none yet."""

NO_LABELS: Mapping[str, str] = {}
NOBODY: frozenset[str] = frozenset()


def _nobody(lot: float) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a job may go now. No nodes: every member of the pool is busy, or passed over."""

    pool: str
    nodes: Shortlist


class Placement:
    """Chooses from this instance's views."""

    def __init__(
        self,
        index: PoolIndex,
        views: NodeViews,
        *,
        rules: SelectionRules,
        chance: Chance,
        clock: Clock,
        some_local: Callable[[float], str] = _nobody,
    ) -> None:
        """`some_local` gives, by lot, a node that is connected here, or ""."""
        self._some_local = some_local
        self._index = index
        self._views = views
        self._rules = rules
        self._chance = chance
        self._clock = clock
        self._narrowed = Narrowed(views, clock)

    def on(self, views: NodeViews) -> "Placement":
        """The same choice on other views."""
        return Placement(
            self._index,
            views,
            rules=self._rules,
            chance=self._chance,
            clock=self._clock,
            some_local=self._some_local,
        )

    def plan_for(
        self, brief: Brief, *, avoid: frozenset[str] = NOBODY, near: str = ""
    ) -> Plan | None:
        """The candidates for a job; see `plan`."""
        return self.plan(brief.src, brief.tgt, labels=brief.labels, avoid=avoid, near=near)

    def plan(
        self,
        src: str,
        tgt: str,
        *,
        labels: Mapping[str, str] = NO_LABELS,
        avoid: frozenset[str] = NOBODY,
        near: str = "",
    ) -> Plan | None:
        """The candidates for a pair; None when no node supports it and has the labels.

        Nodes in `avoid` (they failed this job before) come last, and only if no other is there.
        `near` had the session's last job: of equals it comes first. Without it, a node that is
        connected here does: what goes there needs no other instance.
        """
        choice = self._index.choose_pool(src, tgt)
        if choice is None:
            return None
        members = self._members(choice, src, tgt, labels)
        if not members:
            return None
        near = self._near(near, src, tgt, labels)
        look = self._looker(avoid, near)
        draw = prefer(members, look=look, rules=self._rules, chance=self._chance, near=near)
        if draw.exhausted:
            fit = self._narrowed.fit(
                (choice.pool.name, src, tgt, in_words(labels)),
                lambda: [node_id for node_id in members if self._is_fit(node_id)],
            )
            again = prefer(fit, look=look, rules=self._rules, chance=self._chance)
            draw.candidates = again.candidates
        nodes = Shortlist(
            draw.candidates,
            pool=choice.pool.name,
            filtered=choice.filtered,
            passed_over=draw.passed_over,
        )
        return Plan(choice.pool.name, nodes)

    def only(self, node_id: str, *, pool: str = "") -> Shortlist:
        """The one node that pulled a job, as a shortlist."""
        node = self._look(node_id)
        return Shortlist([node] if node is not None else [], pool=pool)

    def pulled(self, node_id: str, *, attempt: int, pool: str = "") -> bytes:
        """The decision to keep with a job that a node with a free slot took from a queue."""
        shortlist = self.only(node_id, pool=pool)
        return decision.encode(shortlist.decision(node_id, attempt=attempt, waited=True))

    def refusal(self, brief: Brief) -> str:
        """Why there is no plan for a job, as a sentence."""
        choice = self._index.choose_pool(brief.src, brief.tgt)
        if brief.labels and choice and self._members(choice, brief.src, brief.tgt, NO_LABELS):
            return (
                f"no node that supports {brief.src} to {brief.tgt}"
                f" has the labels {in_words(brief.labels)}"
            )
        return f"no node supports {brief.src} to {brief.tgt}"

    def note_failure(self, node_id: str) -> None:
        """An attempt failed on the node: for a while it is the worse for it, as seen from here."""
        self._views.note_failure(node_id, now_ms=self._clock())

    def can_take(self, node_id: str) -> bool:
        """Whether the node may be given a job now, as far as is known here."""
        node = self._look(node_id)
        return node is not None and not node.full and objection(node, self._rules) is None

    def accepts(self, node_id: str, brief: Brief) -> bool:
        """Whether this job may go to the node, at some time."""
        return self.serves(node_id, brief.src, brief.tgt) and self._has_labels(
            node_id, brief.labels
        )

    def takes_flow(self, node_id: str, flow: Flow) -> bool:
        """Whether jobs that wait in this flow may go to the node, at some time."""
        return self.serves(node_id, flow.src, flow.tgt) and self._has_labels(
            node_id, flow.wanted_labels
        )

    def room(self, node_id: str, *, freed: int = 0) -> int:
        """Slots of the node that may be given jobs now, with `freed` ones on top."""
        node = self._look(node_id)
        if node is None or objection(node, self._rules) is not None:
            return 0
        return max(node.snapshot.max_concurrent_jobs - node.reserved - node.pending + freed, 0)

    def serves(self, node_id: str, src: str, tgt: str) -> bool:
        """Whether jobs of this pair may go to the node."""
        if src == AUTO:
            return f"*-{tgt}" in self._index.pools_of(node_id)
        return self._index.supports(node_id, src, tgt)

    def serves_elsewhere(self, flow: Flow, *, than: frozenset[str]) -> bool:
        """Whether another node than these is up and takes jobs of the flow."""
        choice = self._index.choose_pool(flow.src, flow.tgt)
        members = self._index.members(choice.pool.name) if choice else ()
        for node_id in members:
            node = self._look(node_id) if node_id not in than else None
            if node is not None and node.up and self.takes_flow(node_id, flow):
                return True
        return False

    def objections(
        self, src: str, tgt: str, *, labels: Mapping[str, str] = NO_LABELS
    ) -> dict[str, str | None]:
        """For every known node, why it would be passed over for this pair; None where not."""
        choice = self._index.choose_pool(src, tgt)
        members = set(self._index.members(choice.pool.name)) if choice else set()
        reasons: dict[str, str | None] = {}
        for view in self._views:
            node_id = view.snapshot.node_id
            if node_id not in members or not self.serves(node_id, src, tgt):
                reasons[node_id] = self._unfit(view, src, tgt)
            elif not self._has_labels(node_id, labels):
                reasons[node_id] = f"it has not all the labels {in_words(labels)}"
            else:
                candidate = _candidate(view)
                reasons[node_id] = objection(candidate, self._rules) or _fullness(candidate)
        return reasons

    def _near(self, near: str, src: str, tgt: str, labels: Mapping[str, str]) -> str:
        for node_id in (near, *(self._some_local(self._chance()) for _ in range(LOCAL_DRAWS))):
            if node_id and self.serves(node_id, src, tgt) and self._has_labels(node_id, labels):
                return node_id
        return ""

    def _looker(self, avoid: frozenset[str], near: str) -> Callable[[str], Candidate | None]:
        views, get, now_ms = self._views, self._views.get, self._clock()
        old_ms, some_failed = now_ms - views.fresh_ms, views.some_failed

        def look(node_id: str) -> Candidate | None:
            view = get(node_id)
            if view is None:
                return None
            return Candidate(
                view.snapshot,
                view.peak_percent,
                view.reserved,
                view.pending,
                views.failures(node_id, now_ms=now_ms) if some_failed else 0,
                node_id == near,
                node_id in avoid,
                view.heard_ms >= old_ms or view.pending > 0,
            )

        return look

    def _members(
        self, choice: Choice, src: str, tgt: str, labels: Mapping[str, str]
    ) -> Sequence[str]:
        """The members of the pool that may take such a job at all."""
        members = self._index.members(choice.pool.name)
        if not choice.filtered and not labels:
            return members
        return self._narrowed.members(
            (choice.pool.name, src, tgt, in_words(labels)),
            lambda: [
                node_id
                for node_id in members
                if (not choice.filtered or self._index.supports(node_id, src, tgt))
                and self._has_labels(node_id, labels)
            ],
        )

    def _has_labels(self, node_id: str, labels: Mapping[str, str]) -> bool:
        if not labels:
            return True
        view = self._views.get(node_id)
        return view is not None and has_labels(labels, view.snapshot.labels)

    def _is_fit(self, node_id: str) -> bool:
        node = self._look(node_id)
        return node is not None and objection(node, self._rules) is None

    def _unfit(self, view: NodeView, src: str, tgt: str) -> str:
        if src == AUTO:
            return f"it supports no source language to {tgt}"
        reason = self._index.refusal(view.snapshot.capabilities, src, tgt)
        return reason or f"it is not in the pool for {src}-{tgt}"

    def _look(self, node_id: str) -> Candidate | None:
        view = self._views.get(node_id)
        return _candidate(view) if view is not None else None


def _fullness(node: Candidate) -> str | None:
    slots = node.snapshot.max_concurrent_jobs
    return f"all its {slots} slots are reserved" if node.full else None


def _candidate(view: NodeView) -> Candidate:
    return Candidate(view.snapshot, view.peak_percent, view.reserved, view.pending)
