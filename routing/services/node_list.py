"""The nodes as rows: for the page of all nodes, and as a topic that sends changed rows only.

A row is a list, in the order of `COLUMNS`: thousands of them travel to a page. Finding what
changed costs a few comparisons a node, and nothing is built for one that did not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pools.domain.index import PoolIndex
from registry.domain.node import NodeLoad, NodeSnapshot
from registry.services.views import NodeView, NodeViews

COLUMNS = (
    "id",
    "status",
    "owner",
    "reserved",
    "slots",
    "cpu",
    "gpu",
    "mem",
    "labels",
    "version",
    "public",
    "pools",
    "news",
)
"""`pools` are ids of pools, `news` is what happened to the node last, `labels` words `k=v`."""

SORTS = ("id", "status", "owner", "reserved", "cpu", "gpu", "mem")
PAGE_ROWS = 50

Row = list[Any]
_PLACE = {name: place for place, name in enumerate(COLUMNS)}


@dataclass(frozen=True, slots=True)
class Query:
    """What of the nodes to show. `words` must all be found in id, owner, labels or version."""

    words: tuple[str, ...] = ()
    status: str = ""
    pool: int | None = None
    sort: str = "id"
    descending: bool = False
    page: int = 1


@dataclass(frozen=True, slots=True)
class Page:
    """One page of rows, of `total` that fit, of `all` that there are."""

    rows: list[Row]
    total: int
    all: int
    page: int
    pages: int


class NodeList:
    """Rows of the node views."""

    def __init__(
        self, views: NodeViews, index: PoolIndex, latest_news: Callable[[str], str]
    ) -> None:
        self._views = views
        self._index = index
        self._latest_news = latest_news

    @property
    def pools(self) -> list[tuple[int, str]]:
        """Each pool's id and name, by name."""
        return [(pool.id, pool.name) for pool in self._index.pools]

    @property
    def views(self) -> NodeViews:
        return self._views

    def row(self, view: NodeView) -> Row:
        snapshot, load = view.snapshot, view.load
        ids = {pool.name: pool.id for pool in self._index.pools}
        return self._row(snapshot, load, view.reserved, ids)

    def rows(self, views: Sequence[NodeView]) -> list[Row]:
        ids = {pool.name: pool.id for pool in self._index.pools}
        return [self._row(view.snapshot, view.load, view.reserved, ids) for view in views]

    def page(self, query: Query) -> Page:
        """The rows of a query; a page beyond the last is the last."""
        rows = self.rows(list(self._views))
        fitting = [row for row in rows if _fits(row, query)]
        fitting.sort(key=lambda row: row[0])
        place = _PLACE[query.sort if query.sort in SORTS else "id"]
        fitting.sort(key=lambda row: _sortable(row[place]), reverse=query.descending)
        pages = max(-(-len(fitting) // PAGE_ROWS), 1)
        page = min(max(query.page, 1), pages)
        start = (page - 1) * PAGE_ROWS
        return Page(fitting[start : start + PAGE_ROWS], len(fitting), len(rows), page, pages)

    def _row(
        self, snapshot: NodeSnapshot, load: NodeLoad, reserved: int, ids: dict[str, int]
    ) -> Row:
        return [
            snapshot.node_id,
            snapshot.status.value,
            snapshot.instance_id,
            reserved,
            snapshot.max_concurrent_jobs,
            round(load.cpu_percent),
            None if load.gpu_percent is None else round(load.gpu_percent),
            round(load.mem_percent),
            [f"{key}={value}" for key, value in sorted(snapshot.labels.items())],
            snapshot.version,
            snapshot.accept_public_jobs,
            [ids[name] for name in self._index.pools_of(snapshot.node_id) if name in ids],
            self._latest_news(snapshot.node_id),
        ]


def _fits(row: Row, query: Query) -> bool:
    if query.status and row[1] != query.status:
        return False
    if query.pool is not None and query.pool not in row[_PLACE["pools"]]:
        return False
    text = " ".join([row[0], row[2], row[9], *row[8]]).lower()
    return all(word in text for word in query.words)


def _sortable(value: Any) -> tuple[bool, Any]:
    """What is not known comes first."""
    return (value is not None, value if value is not None else 0)


Seen = tuple[NodeSnapshot, NodeLoad, int]


class NodesTopic:
    """All nodes. News are the rows that changed, and the ids that went."""

    def __init__(self, nodes: NodeList) -> None:
        self._nodes = nodes
        self._seen: dict[str, Seen] = {}
        self._pools: list[tuple[int, str]] = []
        self._changed: list[NodeView] = []
        self._gone: list[str] = []
        self._anew = True

    async def refresh(self) -> None:
        pools = self._nodes.pools
        self._anew = pools != self._pools
        self._pools = pools
        seen = self._seen
        now: dict[str, Seen] = {}
        self._changed = []
        for view in self._nodes.views:
            node_id = view.snapshot.node_id
            before = seen.get(node_id)
            if (
                before is not None
                and before[0] is view.snapshot
                and before[1] == view.load
                and before[2] == view.reserved
            ):
                now[node_id] = before
            else:
                now[node_id] = (view.snapshot, view.load, view.reserved)
                self._changed.append(view)
        self._gone = [node_id for node_id in seen if node_id not in now]
        self._seen = now

    def whole(self) -> dict[str, Any]:
        return {"pools": self._pools, "rows": self._nodes.rows(list(self._nodes.views))}

    def news(self) -> dict[str, Any] | None:
        if self._anew:
            return self.whole() | {"whole": True}
        if not self._changed and not self._gone:
            return None
        return {"rows": self._nodes.rows(self._changed), "gone": self._gone}
