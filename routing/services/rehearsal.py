"""The dry run: where jobs of a pair would go from here, and why not elsewhere.

The choice itself runs, on views in which only the rehearsal's own picks are added; nothing is
reserved and no store is asked. Choosing draws lots, so another run may name other nodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pools.domain.index import PoolIndex
from registry.services.views import NodeView, NodeViews
from routing.domain.selection import Candidate, Chance, SelectionRules
from routing.services.placement import Placement

WAITS = "queued"
REFUSED = "NO_AVAILABLE_NODE"
ASSIGNED = "accepted"


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is compared between two candidates, in this order; less is better.

    `share` is the part of its slots that is reserved; `load_step` how busy the machine is, in
    quarters.
    """

    degraded: bool
    share: float
    load_step: int


@dataclass(frozen=True, slots=True)
class CandidateState:
    """A node that would be tried."""

    id: str
    slots: int
    reserved: int
    full: bool
    pressure: Pressure


@dataclass(frozen=True, slots=True)
class PlacementState:
    """One job: the nodes in the order they would be tried, and the one that would get it.

    `outcome` is accepted, queued (all are full or passed over), or NO_AVAILABLE_NODE.
    """

    outcome: str
    node: str | None
    candidates: list[CandidateState]


@dataclass(frozen=True, slots=True)
class PassedOver:
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Simulation:
    """`pool` is null where no pool takes the pair; if `filtered`, not all its nodes support it.

    `passed_over` names every node that is a candidate of no placement.
    """

    src_lang: str
    tgt_lang: str
    pool: str | None
    filtered: bool
    placements: list[PlacementState]
    passed_over: list[PassedOver]


class Rehearsal:
    """Places jobs that there are not."""

    def __init__(
        self, index: PoolIndex, views: NodeViews, *, rules: SelectionRules, chance: Chance
    ) -> None:
        self._index = index
        self._views = views
        self._rules = rules
        self._chance = chance

    def simulate(self, src: str, tgt: str, *, count: int = 1) -> Simulation:
        """Place `count` jobs of a pair one after the other."""
        views = _RehearsedViews(self._views)
        placement = Placement(self._index, views, rules=self._rules, chance=self._chance)
        reasons = placement.objections(src, tgt)
        placements = [_place(placement, views, src, tgt) for _ in range(count)]
        tried = {candidate.id for placed in placements for candidate in placed.candidates}
        choice = self._index.choose_pool(src, tgt)
        return Simulation(
            src_lang=src,
            tgt_lang=tgt,
            pool=choice.pool.name if choice is not None else None,
            filtered=choice is not None and choice.filtered,
            placements=placements,
            passed_over=[
                PassedOver(node_id, reason or "others were drawn before it")
                for node_id, reason in sorted(reasons.items())
                if node_id not in tried
            ],
        )


def _place(placement: Placement, views: "_RehearsedViews", src: str, tgt: str) -> PlacementState:
    plan = placement.plan(src, tgt)
    if plan is None:
        return PlacementState(REFUSED, None, [])
    candidates = [_candidate(view) for view in map(views.get, plan.nodes) if view is not None]
    node_id = next((candidate.id for candidate in candidates if not candidate.full), None)
    if node_id is None:
        return PlacementState(WAITS, None, candidates)
    views.reserve(node_id)
    return PlacementState(ASSIGNED, node_id, candidates)


def _candidate(view: NodeView) -> CandidateState:
    node = Candidate(view.snapshot, view.load, view.reserved)
    return CandidateState(
        id=view.snapshot.node_id,
        slots=view.snapshot.max_concurrent_jobs,
        reserved=view.reserved,
        full=node.full,
        pressure=Pressure(*node.pressure),
    )


class _RehearsedViews(NodeViews):
    """The views, with reservations on top that nobody else sees."""

    def __init__(self, views: NodeViews) -> None:
        super().__init__()
        self._real = views
        self._changed: dict[str, NodeView] = {}

    def get(self, node_id: str) -> NodeView | None:
        return self._changed.get(node_id) or self._real.get(node_id)

    def __iter__(self) -> Iterator[NodeView]:
        return (self._changed.get(view.snapshot.node_id, view) for view in self._real)

    def __len__(self) -> int:
        return len(self._real)

    def reserve(self, node_id: str) -> None:
        """Count one slot more as reserved."""
        seen = self.get(node_id)
        if seen is None:
            return
        changed = NodeView(seen.snapshot)
        changed.load, changed.reserved = seen.load, seen.reserved + 1
        self._changed[node_id] = changed
