"""Finding a node for a job: the pool, the candidates, and why.

In memory and O(1): nothing here speaks to a store. The same code answers the dry run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pools.domain.index import PoolIndex
from registry.domain.capability import AUTO
from registry.services.views import NodeView, NodeViews
from routing.domain.selection import Candidate, Chance, SelectionRules, objection, prefer


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a job may go now. No nodes: every member of the pool is busy, or passed over."""

    pool: str
    nodes: Sequence[str]


class Placement:
    """Chooses from this instance's views."""

    def __init__(
        self, index: PoolIndex, views: NodeViews, *, rules: SelectionRules, chance: Chance
    ) -> None:
        self._index = index
        self._views = views
        self._rules = rules
        self._chance = chance

    def plan(self, src: str, tgt: str, *, avoid: frozenset[str] = frozenset()) -> Plan | None:
        """The candidates for a pair; None when no node supports it.

        Nodes in `avoid` (they failed this job before) come last, and only if no other is there.
        """
        choice = self._index.choose_pool(src, tgt)
        if choice is None:
            return None
        name = choice.pool.name
        members = self._index.members(name)
        if choice.filtered:
            members = [n for n in members if self._index.supports(n, src, tgt)]
        if not members:
            return None
        nodes = prefer(members, look=self._look, rules=self._rules, chance=self._chance)
        if avoid:
            nodes.sort(key=avoid.__contains__)
        return Plan(name, nodes)

    def can_take(self, node_id: str) -> bool:
        """Whether the node may be given a job now, as far as is known here."""
        node = self._look(node_id)
        return node is not None and not node.full and objection(node, self._rules) is None

    def room(self, node_id: str, *, freed: int = 0) -> int:
        """Slots of the node that may be given jobs now, with `freed` ones on top."""
        node = self._look(node_id)
        if node is None or objection(node, self._rules) is not None:
            return 0
        return max(node.snapshot.max_concurrent_jobs - node.reserved + freed, 0)

    def serves(self, node_id: str, src: str, tgt: str) -> bool:
        """Whether jobs of this pair may go to the node."""
        if src == AUTO:
            return f"*-{tgt}" in self._index.pools_of(node_id)
        return self._index.supports(node_id, src, tgt)

    def serves_elsewhere(self, src: str, tgt: str, *, than: frozenset[str]) -> bool:
        """Whether another node than these is up and takes jobs of the pair."""
        choice = self._index.choose_pool(src, tgt)
        members = self._index.members(choice.pool.name) if choice else ()
        for node_id in members:
            node = self._look(node_id) if node_id not in than else None
            if node is not None and node.up and self.serves(node_id, src, tgt):
                return True
        return False

    def objections(self, src: str, tgt: str) -> dict[str, str | None]:
        """For every known node, why it would be passed over for this pair; None where not."""
        choice = self._index.choose_pool(src, tgt)
        members = set(self._index.members(choice.pool.name)) if choice else set()
        reasons: dict[str, str | None] = {}
        for view in self._views:
            node_id = view.snapshot.node_id
            if node_id not in members or not self.serves(node_id, src, tgt):
                reasons[node_id] = self._unfit(view, src, tgt)
            else:
                candidate = _candidate(view)
                reasons[node_id] = objection(candidate, self._rules) or _fullness(candidate)
        return reasons

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
    return Candidate(view.snapshot, view.load, view.reserved)
