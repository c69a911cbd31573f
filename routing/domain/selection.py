"""Which nodes may take a task, and in which order: filters, then the least loaded of a few by lot.

`objection` says why a node may not be tried; `prefer` orders some that may. The views are a little
old and other instances choose at the same time, so "the best of all" would be one node for a whole
burst: the best of a few by lot spreads it, and the reservation on the node's own slots has the last
word (`Shortlist`). For the same reason a node that looks full is a last resort, not an objection:
its slots may have become free where this instance could not see it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd

from msgspec import Struct

from registry.domain.node import NodeSnapshot, NodeStatus

Chance = Callable[[], float]
"""Draws evenly from 0 up to, not including, 1."""

FEW = 2
"""Good nodes that one decision compares in calm times."""

CANDIDATES = 16
"""Good nodes that it compares when one was heard of within FRESH_MS, as there is a burst, or has
only one slot left, which may be gone by now.

Fewer spread one less evenly, more only cost time (tests/unit/routing/test_evenness.py).
"""

FRESH_MS = 60
"""How long what a node said of its slots is taken for the truth, and for the sign of a burst."""

FRESH_ROUND_TRIPS = 40
MOST_FRESH_MS = 1_000


def freshness_ms(round_trip_ms: int) -> int:
    """FRESH_MS, or longer where everything takes longer: then a burst does, too.

    A session's utterances are taken one after the other, so a burst may be dozens of round trips.
    """
    return min(max(FRESH_MS, FRESH_ROUND_TRIPS * round_trip_ms), MOST_FRESH_MS)


DRAWS = 24
"""Nodes looked at for them, as long as there is one with room among those."""

LOOKS = 256
"""Nodes looked at when none of them has room.

A bound, so that a task never costs more in a pool of 10,000 than in one of 300; what it misses in
a large pool that is all but full, the next freed slot finds.
"""

LAST_RESORTS = 2
"""Nodes named when all look full: enough to notice that the view is old."""

OVERUSED = "its resources are used above the threshold"


class Candidate(Struct, frozen=True, gc=False):
    """A node as the choice sees it.

    `peak_percent` is its scarcest resource. `reserved` are the slots it was last seen to have
    reserved, `pending` the reservations sent from here and not answered yet. `fresh`: it was heard
    of within FRESH_MS, or something is pending. `failures` are the recent ones of attempts, as seen
    from here.
    `near` is the node that had the session's last job, or, for a session without one, a node that
    is connected to the instance that chooses; `avoided` one that failed this very job.
    """

    snapshot: NodeSnapshot
    peak_percent: int
    reserved: int
    pending: int = 0
    failures: int = 0
    near: bool = False
    avoided: bool = False
    fresh: bool = False

    @property
    def node_id(self) -> str:
        return self.snapshot.node_id

    @property
    def degraded(self) -> bool:
        return self.snapshot.status is NodeStatus.DEGRADED

    @property
    def load_step(self) -> int:
        """How busy the machine is, in quarters.

        As its figures are a heartbeat old, finer steps would send everything to one node until
        its next heartbeat.
        """
        return self.peak_percent // 25

    @property
    def full(self) -> bool:
        """Whether all its slots were reserved when last seen, or are being reserved from here."""
        return self.reserved + self.pending >= self.snapshot.max_concurrent_jobs

    @property
    def good(self) -> bool:
        """Whether nothing but its load speaks against it: only such nodes count as looked at."""
        return not (self.avoided or self.failures or self.snapshot.status is NodeStatus.DEGRADED)

    @property
    def up(self) -> bool:
        """Whether it takes jobs at all, be it busy or not."""
        takes = self.snapshot.status in (NodeStatus.READY, NodeStatus.DEGRADED)
        return takes and self.snapshot.accept_public_jobs

    @property
    def tight(self) -> bool:
        """Whether it has at most one slot left."""
        return self.reserved + self.pending + 1 >= self.snapshot.max_concurrent_jobs

    @property
    def pressure(self) -> "Pressure":
        return self.pressure_with(self.reserved + self.pending)

    def pressure_with(self, held: int) -> "Pressure":
        """What is compared between two nodes, if this one holds so many reservations."""
        return (
            self.avoided,
            self.snapshot.status is NodeStatus.DEGRADED,
            self.failures,
            held / self.snapshot.max_concurrent_jobs,
            not self.near,
            self.peak_percent // 25,
        )


Pressure = tuple[bool, bool, int, float, bool, int]
"""Avoided, degraded, recent failures, share of reserved slots, not the session's last, load."""


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


@dataclass(slots=True)
class Draw:
    """What `prefer` found: the nodes to try in order, and how many it passed over for what.

    `exhausted`: it looked at LOOKS nodes of a larger pool and none of them may be tried at all.
    """

    candidates: list[Candidate]
    passed_over: Counter[str]
    exhausted: bool = False


def objection(node: Candidate, rules: SelectionRules) -> str | None:
    """Why this node is passed over, as a clause for people; None when it may be tried."""
    reason = _fault(node, rules)
    if reason is OVERUSED:
        return (
            f"its resources are used to {node.peak_percent} %,"
            f" above the threshold of {rules.resource_threshold} %"
        )
    return reason


def _fault(node: Candidate, rules: SelectionRules) -> str | None:
    """The same in few different words, to be counted."""
    status = node.snapshot.status
    if status is not NodeStatus.READY and status is not NodeStatus.DEGRADED:
        return f"it is {status}"
    if not node.snapshot.accept_public_jobs:
        return "it takes no public jobs"
    if node.peak_percent > rules.resource_threshold:
        return OVERUSED
    return None


def prefer(
    members: Sequence[str],
    *,
    look: Callable[[str], Candidate | None],
    rules: SelectionRules,
    chance: Chance,
    near: str = "",
) -> Draw:
    """FEW or CANDIDATES nodes of a pool, and worse ones found on the way, in the order to try them.

    O(1) in the size of the pool: never more than LOOKS nodes are looked at. `near`, a member, is
    among them whatever the lot. Nodes that look full are named only where none with room was found.
    """
    wanted = FEW
    free: list[Candidate] = []
    full: list[Candidate] = []
    passed_over: Counter[str] = Counter()
    looks = found = 0
    for node_id in _by_lot(members, chance, near):
        looks += 1
        node = look(node_id)
        fault = "it has just left" if node is None else _fault(node, rules)
        if fault is not None or node is None:
            passed_over[fault or ""] += 1
        elif node.full:
            full.append(node)
        else:
            free.append(node)
            found += node.good
            if node.fresh or node.tight:
                wanted = CANDIDATES
        if found >= wanted or looks >= (DRAWS if free else LOOKS):
            break
    exhausted = not free and not full and looks < len(members)
    if free and full:
        passed_over["all its slots are reserved"] = len(full)
    free.sort(key=_pressure)
    full.sort(key=_pressure)
    return Draw(free or full[:LAST_RESORTS], passed_over, exhausted)


def _pressure(node: Candidate) -> Pressure:
    return node.pressure


def _by_lot(members: Sequence[str], chance: Chance, near: str) -> Iterator[str]:
    """Every member once: from a place by lot on, in strides by lot.

    Two lots for a whole decision choose as well as one for each draw would (Mitzenmacher, Balanced
    allocations and double hashing, 2014), and never the same node twice.
    """
    if near:
        yield near
    count = len(members)
    if not count:
        return
    place, stride = int(chance() * count), 1 + int(chance() * (count - 1))
    while gcd(stride, count) != 1:
        stride += 1
    for _ in range(count):
        node_id = members[place]
        if node_id != near:
            yield node_id
        place = (place + stride) % count
