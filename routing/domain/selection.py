"""Which node takes a task: filters, then the less loaded of two chosen by lot.

`objection` says why a node may not be tried; `prefer` orders those that may. The views are a
little old and other instances choose at the same time, so "the best of all" would be one node for
a whole burst: the better of two by lot spreads it, and the reservation on the node's own slots
has the last word. For the same reason a node that looks full is a last resort, not an objection:
its slots may have become free where this instance could not see it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from registry.domain.node import NodeLoad, NodeSnapshot, NodeStatus

Chance = Callable[[], float]
"""Draws evenly from 0 up to, not including, 1."""

TRIES = 4
"""Nodes that one decision names; reserving walks down the list."""

LAST_RESORTS = 2
"""Nodes it names when all look full: enough to notice that the view is old."""

DRAWS = 16
"""Random draws before the pool is looked through."""

LOOKS = 256
"""Nodes looked at in a row, from a place by lot, when the draws found only full ones.

A bound, so that a task never costs more in a pool of 10,000 than in one of 300; what it misses in
a large pool that is all but full, the next freed slot finds.
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as the choice sees it."""

    snapshot: NodeSnapshot
    load: NodeLoad
    reserved: int

    @property
    def full(self) -> bool:
        """Whether all its slots were reserved when last seen."""
        return self.reserved >= self.snapshot.max_concurrent_jobs

    @property
    def up(self) -> bool:
        """Whether it takes jobs at all, be it busy or not."""
        takes = self.snapshot.status in (NodeStatus.READY, NodeStatus.DEGRADED)
        return takes and self.snapshot.accept_public_jobs

    @property
    def pressure(self) -> tuple[bool, float, int]:
        """What is compared: degraded, the share of reserved slots, and how busy the machine is.

        The last in steps of a quarter, as its figures are a heartbeat old: finer ones would send
        everything to one node until its next heartbeat.
        """
        degraded = self.snapshot.status is NodeStatus.DEGRADED
        share = self.reserved / self.snapshot.max_concurrent_jobs
        return degraded, share, int(self.load.peak_percent // 25)


@dataclass(frozen=True, slots=True)
class SelectionRules:
    """`resource_threshold` in percent of the scarcest of CPU, GPU and memory."""

    resource_threshold: int = 85

    def __post_init__(self) -> None:
        if not 1 <= self.resource_threshold <= 100:
            raise ValueError(
                f"SCHED_RESOURCE_THRESHOLD is {self.resource_threshold};"
                " it must be a percentage from 1 to 100"
            )


def objection(node: Candidate, rules: SelectionRules) -> str | None:
    """Why this node is passed over, as a clause for people; None when it may be tried."""
    snapshot = node.snapshot
    if snapshot.status not in (NodeStatus.READY, NodeStatus.DEGRADED):
        return f"it is {snapshot.status}"
    if not snapshot.accept_public_jobs:
        return "it takes no public jobs"
    if node.load.peak_percent > rules.resource_threshold:
        return (
            f"its resources are used to {node.load.peak_percent:.0f} %,"
            f" above the threshold of {rules.resource_threshold} %"
        )
    return None


def prefer(
    members: Sequence[str],
    *,
    look: Callable[[str], Candidate | None],
    rules: SelectionRules,
    chance: Chance,
) -> list[str]:
    """Up to TRIES node ids of a pool in the order to try them; empty when none may be tried.

    O(1) in the size of the pool: a few draws, then at most LOOKS nodes one after the other. Only
    where the draws found none but unfit nodes is the whole pool looked through.
    """
    free: dict[str, Candidate] = {}
    full: dict[str, Candidate] = {}
    if len(members) > TRIES:
        for _ in range(DRAWS):
            _consider(members[int(chance() * len(members))], free, full, look, rules)
            if len(free) >= TRIES:
                break
    if not free:
        start = int(chance() * len(members))
        for step in range(min(len(members), LOOKS) if full else len(members)):
            _consider(members[(start + step) % len(members)], free, full, look, rules)
            if len(free) >= TRIES:
                break
    return _ordered(free, chance)[:TRIES] or _ordered(full, chance)[:LAST_RESORTS]


def _consider(
    node_id: str,
    free: dict[str, Candidate],
    full: dict[str, Candidate],
    look: Callable[[str], Candidate | None],
    rules: SelectionRules,
) -> None:
    if node_id in free or node_id in full:
        return
    node = look(node_id)
    if node is not None and objection(node, rules) is None:
        (full if node.full else free)[node_id] = node


def _ordered(found: dict[str, Candidate], chance: Chance) -> list[str]:
    """The better of two by lot, then the other one and the rest; degraded ones last."""
    ids = list(found)
    for last in range(len(ids) - 1, 0, -1):
        other = int(chance() * (last + 1))
        ids[last], ids[other] = ids[other], ids[last]
    ids.sort(key=lambda node_id: found[node_id].snapshot.status is NodeStatus.DEGRADED)
    ids[:2] = sorted(ids[:2], key=lambda node_id: found[node_id].pressure)
    return ids
