"""The end of a node's drain: what it has not finished in time is tried elsewhere.

A node that drains gets nothing new. Here the instance that has its socket remembers by when it
should be done; then the node is told to stop what is left, and each job gets its next attempt. A
node that reconnects while it drains gets its time anew.
"""

import asyncio

import structlog

from registry.domain.node import NodeStatus
from registry.services.membership import LocalNode, Membership
from registry.services.ports import Clock
from routing.domain import wire
from routing.services.retries import Retries
from routing.services.slots import Slots

log = structlog.get_logger(__name__)


class Draining:
    """By when the nodes of this instance that drain should be done."""

    def __init__(
        self,
        membership: Membership,
        slots: Slots,
        retries: Retries,
        *,
        timeout_ms: int,
        clock: Clock,
    ) -> None:
        self._membership = membership
        self._slots = slots
        self._retries = retries
        self._timeout_ms = timeout_ms
        self._clock = clock
        self._due: dict[str, tuple[int, LocalNode]] = {}

    def follow(self, node: LocalNode) -> None:
        """Note what a node's status says: since when it drains, or that it does no longer."""
        node_id = node.snapshot.node_id
        known = self._due.get(node_id)
        if node.snapshot.status is not NodeStatus.DRAINING:
            self._due.pop(node_id, None)
        elif known is None or known[1] is not node:
            self._due[node_id] = (self._clock() + self._timeout_ms, node)

    async def turn(self) -> None:
        """Move what is left on nodes whose time is over. Raises StoreUnavailable."""
        now_ms = self._clock()
        for node_id, (due_ms, node) in list(self._due.items()):
            if self._membership.local(node_id) is not node:
                del self._due[node_id]
            elif now_ms >= due_ms:
                await self.move(node, reason="the node drains, and its time is over")
                self._due.pop(node_id, None)

    async def move(self, node: LocalNode, *, reason: str) -> None:
        """Have a node stop all that it works on, and try that elsewhere."""
        node_id = node.snapshot.node_id
        held = await self._slots.held(node_id)
        if held:
            log.info("work moved", node_id=node_id, jobs=len(held), reason=reason)
        for job_id, _ in held:
            node.link.send(wire.job_cancel(job_id, reason=reason))
        await asyncio.gather(
            *(
                self._retries.try_again(job_id, attempt, node_id=node_id, reason=reason)
                for job_id, attempt in held
            )
        )
