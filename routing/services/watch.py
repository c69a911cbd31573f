"""What became of nodes lately, as this process saw it: counts by status, and a bounded log.

Told by the node views at each change; costs nothing while nothing changes.

Not promised: what happened before this process had read the nodes, or while it was away.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from registry.domain.node import NodeSnapshot
from registry.services.views import NodeViews

EVENTS_KEPT = 500
NODES_KEPT = 2_000
EVENTS_OF_A_NODE = 30


@dataclass(frozen=True, slots=True)
class NodeNews:
    """One change of a node, in words. `at_ms` is wall time here."""

    at_ms: int
    node_id: str
    what: str


class NodeWatch:
    """Follows the node views."""

    def __init__(
        self,
        views: NodeViews,
        *,
        wall_clock: Callable[[], int],
        caught_up: Callable[[], bool],
    ) -> None:
        self._wall_clock = wall_clock
        self._caught_up = caught_up
        self._all: deque[NodeNews] = deque(maxlen=EVENTS_KEPT)
        self._by_node: OrderedDict[str, deque[NodeNews]] = OrderedDict()
        self._connections: deque[tuple[int, str]] = deque()
        self.by_status: Counter[str] = Counter(v.snapshot.status.value for v in views)
        views.subscribe(self._on_change)

    def latest(self, count: int) -> list[NodeNews]:
        """The newest first."""
        return list(islice(reversed(self._all), count))

    def of(self, node_id: str) -> list[NodeNews]:
        """The newest first."""
        return list(reversed(self._by_node.get(node_id, ())))

    def connections(self, *, within_ms: int) -> dict[str, int]:
        """How often each node connected lately; those that did so once are left out."""
        oldest_ms = self._wall_clock() - within_ms
        while self._connections and self._connections[0][0] < oldest_ms:
            self._connections.popleft()
        counts = Counter(node_id for _, node_id in self._connections)
        return {node_id: times for node_id, times in counts.items() if times > 1}

    def _on_change(self, before: NodeSnapshot | None, after: NodeSnapshot | None) -> None:
        if before is not None:
            self.by_status[before.status.value] -= 1
        if after is not None:
            self.by_status[after.status.value] += 1
        # The first reading tells of nodes that have been there all the time.
        if self._caught_up() and (what := _what(before, after)):
            self._note((after or before).node_id, what)  # type: ignore[union-attr]
            if after is not None and _connected_anew(before, after):
                self._connections.append((self._wall_clock(), after.node_id))

    def _note(self, node_id: str, what: str) -> None:
        news = NodeNews(self._wall_clock(), node_id, what)
        self._all.append(news)
        of_node = self._by_node.setdefault(node_id, deque(maxlen=EVENTS_OF_A_NODE))
        of_node.append(news)
        self._by_node.move_to_end(node_id)
        if len(self._by_node) > NODES_KEPT:
            self._by_node.popitem(last=False)


def _what(before: NodeSnapshot | None, after: NodeSnapshot | None) -> str:
    if after is None:
        return "left"
    if before is None:
        return f"joined at {after.instance_id}, {after.status.value}"
    if _connected_anew(before, after):
        return f"connected again at {after.instance_id}, {after.status.value}"
    if before.status is not after.status:
        return f"{before.status.value} \N{RIGHTWARDS ARROW} {after.status.value}"
    return "said that it can do something else"


def _connected_anew(before: NodeSnapshot | None, after: NodeSnapshot) -> bool:
    return before is None or before.connection_epoch != after.connection_epoch
