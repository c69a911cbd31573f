"""An instance that empties itself: told by an operator, or because its process is to end.

From the moment it drains it takes no new sessions and nodes, and its nodes get nothing new. Each
node's and each session's socket is closed with 1012 as soon as nothing of it is under way, or when
the time is over; they go on at another instance. A node that names there what it works on keeps it.
Then the instance stays, empty, until it is stopped or told to resume.

Not promised: that a session that keeps talking is ever without work before the time is over.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from registry.domain.errors import StoreUnavailable
from registry.domain.ids import split_job_id
from registry.services.membership import LocalNode, Membership
from registry.services.ports import Clock
from routing.domain.errors import CloseCode
from routing.domain.outcome import Envelope, EnvelopeKind
from routing.services.assignment import Assignment
from routing.services.connections import Connections
from routing.services.deadlines import Deadlines
from routing.services.delivery import Delivery
from routing.services.sessions import Sessions
from routing.services.waiting import Waiting

log = structlog.get_logger(__name__)

DRAIN = b"drain"
RESUME = b"resume"
PAUSE_S = 0.02
SLICE = 200
WHY = "the instance is going down"


class Leaving:
    """Whether this instance drains, and what it still has to see out."""

    def __init__(
        self,
        membership: Membership,
        sessions: Sessions,
        assignment: Assignment,
        waiting: Waiting,
        deadlines: Deadlines,
        connections: Connections,
        delivery: Delivery,
        *,
        timeout_ms: int,
        clock: Clock,
    ) -> None:
        self._membership = membership
        self._sessions = sessions
        self._assignment = assignment
        self._waiting = waiting
        self._deadlines = deadlines
        self._connections = connections
        self._timeout_ms = timeout_ms
        self._clock = clock
        self._due_ms = 0
        self.draining = False
        self.on_change: Callable[[], None] = lambda: None
        delivery.on(EnvelopeKind.INSTANCE, self._on_instance)

    async def drain(self, *, within_ms: int | None = None) -> None:
        """Take nothing new, and close what is idle from now on. Repeated, it sets the time anew."""
        self.draining = True
        self._due_ms = self._clock() + (self._timeout_ms if within_ms is None else within_ms)
        self.on_change()
        log.info("instance drains", nodes=len(self._membership.local_nodes()))
        await self._of_all_nodes(self._membership.retire)

    async def resume(self) -> None:
        """Take work again."""
        self.draining = False
        self.on_change()
        log.info("instance resumes")
        await self._of_all_nodes(self._reopen)

    async def emptied(self) -> None:
        """Return when there is no socket left, or the time is over."""
        while self._connections and self._clock() < self._due_ms:
            await self.turn()
            await asyncio.sleep(PAUSE_S)

    async def turn(self) -> None:
        """Close what has finished; when the time is over, the rest."""
        if not self.draining:
            return
        over = self._clock() >= self._due_ms
        busy = {split_job_id(job_id)[0] for job_id in self._deadlines.jobs()}
        for session in self._sessions.connected():
            if session.link is not None and (over or session.session_id not in busy):
                session.link.close(CloseCode.GOING_DOWN, WHY)
        for node in self._membership.local_nodes():
            if over or not self._assignment.held_by(node.snapshot.node_id):
                node.link.close(CloseCode.GOING_DOWN, WHY)

    async def _of_all_nodes(self, step: Callable[[LocalNode], Awaitable[None]]) -> None:
        nodes = self._membership.local_nodes()
        for start in range(0, len(nodes), SLICE):
            done = (step(node) for node in nodes[start : start + SLICE])
            for outcome in await asyncio.gather(*done, return_exceptions=True):
                if isinstance(outcome, StoreUnavailable):
                    # Its next heartbeat closes the slots as well.
                    log.warning("slots not closed", reason=str(outcome))
                elif isinstance(outcome, BaseException):
                    raise outcome

    async def _reopen(self, node: LocalNode) -> None:
        await self._membership.reopen(node)
        await self._waiting.fill(node)

    async def _on_instance(self, envelope: Envelope) -> None:
        if envelope.body == RESUME:
            await self.resume()
        elif not self.draining:
            await self.drain()
