"""The nodes that one decision named, tried one after the other until a slot is held.

Reservations of other instances are seen late. So that a burst for which several instances choose
at once is spread evenly all the same, a reservation carries a ceiling where this instance knows the
node well: it has heard of its slots within FRESH_MS, or has reservations under way there. A node
that holds more than that answers "busier"; its count is noted, and whichever of the shortlist is
the least loaded by now comes next, maybe the same one. An old figure gives no ceiling: in normal
work the first node asked nearly always takes the job.

Not promised: the same order as when it was drawn. There is no second draw.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from routing.domain.decision import Asked, Decision, considered
from routing.domain.outcome import Busier, NodeGone, Reservation, Reserved
from routing.domain.selection import Candidate

TRIES = 4
"""Nodes without a slot that are found so before the job waits."""

ROUNDS = 16
"""Questions under a ceiling; the next one takes any free slot."""

Held = Callable[[str], int]
"""Tells how many reservations a node holds, as far as is known by now."""


class Shortlist:
    """Candidates of one job, in order, and what they answered."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        *,
        pool: str = "",
        filtered: bool = False,
        passed_over: Counter[str] | None = None,
    ) -> None:
        self.pool = pool
        self.filtered = filtered
        self._candidates = candidates
        self._left = list(candidates)
        self._passed_over = passed_over
        self._asked: list[Asked] = []
        self._in_vain = 0

    def __len__(self) -> int:
        return len(self._candidates)

    def __iter__(self) -> Iterator[str]:
        return (node.snapshot.node_id for node in self._candidates)

    def without(self, node_ids: Collection[str]) -> "Shortlist":
        """The same, less these nodes."""
        return Shortlist(
            [node for node in self._candidates if node.node_id not in node_ids],
            pool=self.pool,
            filtered=self.filtered,
            passed_over=self._passed_over,
        )

    @property
    def candidates(self) -> Sequence[Candidate]:
        return self._candidates

    @property
    def first(self) -> str:
        return self._candidates[0].snapshot.node_id

    @property
    def unlimited(self) -> bool:
        """Whether the next one asked is to give any slot it has."""
        return len(self._asked) >= ROUNDS or len(self._left) == 1

    def next(self, held: Held) -> str | None:
        """The node to ask now; None when the job has to wait."""
        if not self._left or self._in_vain >= TRIES:
            return None
        if not self._asked:
            return self.first
        best = min(self._left, key=lambda node: node.pressure_with(held(node.snapshot.node_id)))
        return best.snapshot.node_id

    def heard(self, node_id: str, answer: Reservation) -> None:
        """Note what a node answered."""
        if isinstance(answer, Reserved):
            return
        busier = isinstance(answer, Busier)
        word = "busier" if busier else "gone" if isinstance(answer, NodeGone) else "full"
        self._asked.append(Asked(node_id, word))
        if not busier:
            self._in_vain += 1
            self._left = [node for node in self._left if node.snapshot.node_id != node_id]

    def decision(self, node_id: str = "", *, attempt: int, waited: bool = False) -> Decision:
        """Why this node gets the attempt; no node: why it waits."""
        return Decision(
            pool=self.pool,
            filtered=self.filtered,
            attempt=attempt,
            node=node_id,
            waited=waited or not node_id,
            candidates=list(map(considered, self._candidates)),
            passed_over=dict(self._passed_over or ()),
            asked=self._asked,
        )
