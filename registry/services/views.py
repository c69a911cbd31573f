"""The nodes as this instance sees them, in memory, and who wants to know when that changes.

Reading is O(1) and touches no store. Views follow `nodes:all` within one sync interval; a node
registered here is seen at once. A view is not a promise: the reservation on the node's own slots
decides.
"""

from collections.abc import Callable, Iterator
from math import ceil

from registry.domain.node import (
    DIGEST_BITS,
    IDLE,
    NodeLoad,
    NodeSnapshot,
    NodeStatus,
    digest_part,
)

NEVER_MS = -(10**15)

HEARD_LATELY_MS = 1_000
"""How long what a node's slots answered stands against what its instance tells: that was on its way
longer, and leaves out what others reserved.
"""

FAILURE_MEMORY_MS = 30_000
"""How long a node is the worse for an attempt that failed on it."""

FAILURES_COUNTED = 3


class NodeView:
    """One node: its snapshot, its last load, and how many reservations it was last seen to hold.

    `peak_percent` is the scarcest resource of that load, rounded up. `pending` counts the
    reservations that were sent from here and are not answered yet; `heard_ms` is when one was
    answered last, by this process's monotonic clock.
    """

    __slots__ = ("heard_ms", "load", "peak_percent", "pending", "reserved", "snapshot")

    def __init__(self, snapshot: NodeSnapshot) -> None:
        self.snapshot = snapshot
        self.load: NodeLoad = IDLE
        self.peak_percent = 0
        self.reserved = 0
        self.pending = 0
        self.heard_ms = NEVER_MS

    @property
    def ready(self) -> bool:
        return self.snapshot.status is NodeStatus.READY


Listener = Callable[[NodeSnapshot | None, NodeSnapshot | None], None]
"""Called with the snapshot before and after; None where the node was not, or is no more, there."""


class NodeViews:
    """All nodes by id. What was heard of a node within `fresh_ms` is taken for the truth."""

    def __init__(self) -> None:
        self._views: dict[str, NodeView] = {}
        self._listeners: list[Listener] = []
        self._failed_ms: dict[str, list[int]] = {}
        self.digest = 0
        self.fresh_ms = 0

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def get(self, node_id: str) -> NodeView | None:
        return self._views.get(node_id)

    def __iter__(self) -> Iterator[NodeView]:
        return iter(list(self._views.values()))

    def __len__(self) -> int:
        return len(self._views)

    def put(self, snapshot: NodeSnapshot) -> bool:
        """Take a snapshot over unless a newer one is known; True when it changed something."""
        view = self._views.get(snapshot.node_id)
        if view is None:
            self._views[snapshot.node_id] = NodeView(snapshot)
            self._shift_digest(digest_part(snapshot))
            self._tell(None, snapshot)
            return True
        before = view.snapshot
        if snapshot.order <= before.order:
            return False
        view.snapshot = snapshot
        self._shift_digest(digest_part(snapshot) - digest_part(before))
        if snapshot.connection_epoch != before.connection_epoch:
            view.load, view.peak_percent, view.reserved = IDLE, 0, 0
        self._tell(before, snapshot)
        return True

    def remove(self, node_id: str, *, epoch: int) -> bool:
        """Forget a node, unless a newer connection of it is known."""
        view = self._views.get(node_id)
        if view is None or view.snapshot.connection_epoch > epoch:
            return False
        del self._views[node_id]
        self._shift_digest(-digest_part(view.snapshot))
        self._tell(view.snapshot, None)
        return True

    def note_failure(self, node_id: str, *, now_ms: int) -> None:
        """An attempt failed on the node, whether it is there or not: it may come back."""
        recent = [ms for ms in self._failed_ms.get(node_id, ()) if now_ms - ms < FAILURE_MEMORY_MS]
        self._failed_ms[node_id] = [*recent, now_ms][-FAILURES_COUNTED:]

    @property
    def some_failed(self) -> bool:
        """Whether `failures` can be more than 0 for any node."""
        return bool(self._failed_ms)

    def failures(self, node_id: str, *, now_ms: int) -> int:
        """How many attempts failed on it lately, as seen from here; at most FAILURES_COUNTED."""
        failed_ms = self._failed_ms.get(node_id)
        if failed_ms is None:
            return 0
        recent = [ms for ms in failed_ms if now_ms - ms < FAILURE_MEMORY_MS]
        if not recent:
            del self._failed_ms[node_id]
        return len(recent)

    def set_load(self, node_id: str, load: NodeLoad, *, now_ms: int) -> None:
        """Take a load over; its reservations only where nothing was heard of the slots lately."""
        view = self._views.get(node_id)
        if view is None:
            return
        view.load, view.peak_percent = load, ceil(load.peak_percent)
        if now_ms - view.heard_ms >= HEARD_LATELY_MS:
            view.reserved = load.reserved

    def holds_at_least(self, node_id: str, reserved: int) -> None:
        """So many slots of the node are in use, whoever reserved them."""
        view = self._views.get(node_id)
        if view is not None and view.reserved < reserved:
            view.reserved = reserved

    def _shift_digest(self, by: int) -> None:
        self.digest = (self.digest + by) % 2**DIGEST_BITS

    def _tell(self, before: NodeSnapshot | None, after: NodeSnapshot | None) -> None:
        for listener in self._listeners:
            listener(before, after)
