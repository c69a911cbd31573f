"""Keeping which nodes have registered: collects from the views, writes in batches.

Not promised: every registration. Of a node that registered several times between two turns, the
last one is kept.
"""

from itertools import islice

from registry.domain.node import NodeSnapshot
from registry.services.membership import Membership
from registry.services.ports import NodeHistory

BATCH = 500
"""Nodes per write: a transaction that other writers of the database wait for."""


class NodeRecorder:
    """Records the nodes that one process's membership sees."""

    def __init__(self, membership: Membership, history: NodeHistory) -> None:
        self._membership = membership
        self._history = history
        self._due: dict[str, NodeSnapshot] = {}
        membership.views.subscribe(self._on_node)

    async def turn(self) -> None:
        """Follow the nodes, and write what came. Raises StoreUnavailable; nothing is lost then."""
        await self._membership.sync()
        while batch := list(islice(self._due.values(), BATCH)):
            await self._history.record(batch)
            for snapshot in batch:
                # A newer one may have come while this one was being written.
                if self._due.get(snapshot.node_id) is snapshot:
                    del self._due[snapshot.node_id]

    def _on_node(self, before: NodeSnapshot | None, after: NodeSnapshot | None) -> None:
        if after is None:
            return
        if before is None or before.connection_epoch != after.connection_epoch:
            self._due[after.node_id] = after
