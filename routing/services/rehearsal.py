"""The dry run: where jobs of a pair would go from here, and why not elsewhere.

The choice itself runs, on views in which only the rehearsal's own picks are added; nothing is
reserved and no store is asked, so no node answers that it is busier than this instance believes.
Choosing draws lots, so another run may name other nodes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pools.domain.index import PoolIndex
from registry.services.views import NodeView, NodeViews
from routing.services.placement import NO_LABELS, Placement
from routing.services.reasons import DecisionState, refused, shown


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
    placements: list[DecisionState]
    passed_over: list[PassedOver]


class Rehearsal:
    """Places jobs that there are not."""

    def __init__(self, index: PoolIndex, views: NodeViews, placement: Placement) -> None:
        self._index = index
        self._views = views
        self._placement = placement

    def simulate(
        self, src: str, tgt: str, *, labels: Mapping[str, str] = NO_LABELS, count: int = 1
    ) -> Simulation:
        """Place `count` jobs of a pair one after the other."""
        views = _RehearsedViews(self._views)
        placement = self._placement.on(views)
        reasons = placement.objections(src, tgt, labels=labels)
        placements = [_place(placement, views, src, tgt, labels) for _ in range(count)]
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


def _place(
    placement: Placement, views: "_RehearsedViews", src: str, tgt: str, labels: Mapping[str, str]
) -> DecisionState:
    plan = placement.plan(src, tgt, labels=labels)
    if plan is None:
        return refused()
    node_id = next((node.node_id for node in plan.nodes.candidates if not node.full), "")
    if node_id:
        views.reserve(node_id)
    return shown(plan.nodes.decision(node_id, attempt=1))


class _RehearsedViews(NodeViews):
    """The views, with reservations on top that nobody else sees."""

    def __init__(self, views: NodeViews) -> None:
        super().__init__()
        self._real = views
        self.fresh_ms = views.fresh_ms
        self._changed: dict[str, NodeView] = {}

    def get(self, node_id: str) -> NodeView | None:
        return self._changed.get(node_id) or self._real.get(node_id)

    def __iter__(self) -> Iterator[NodeView]:
        return (self._changed.get(view.snapshot.node_id, view) for view in self._real)

    def __len__(self) -> int:
        return len(self._real)

    @property
    def some_failed(self) -> bool:
        return self._real.some_failed

    def failures(self, node_id: str, *, now_ms: int) -> int:
        return self._real.failures(node_id, now_ms=now_ms)

    def reserve(self, node_id: str) -> None:
        """Count one slot more as reserved."""
        seen = self.get(node_id)
        if seen is None:
            return
        changed = NodeView(seen.snapshot)
        changed.load, changed.peak_percent = seen.load, seen.peak_percent
        changed.pending = seen.pending
        changed.reserved, changed.heard_ms = seen.reserved + 1, seen.heard_ms
        self._changed[node_id] = changed
