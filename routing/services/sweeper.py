"""The leader's clean-up after nodes and instances that left without a farewell.

A node whose presence ran out is removed, and what it was given is tried again elsewhere. An
instance whose presence ran out, or that left work behind, has its sessions minded here from then
on, whether or not their clients come back, and each of their jobs is made sure to be on its way;
its inbox is emptied: an assignment that nobody handed over is tried again; results need nothing,
as each is in its session's outbox already.

So no job is without a minder for long: who minds which session is written down before its first
job is, and the names of instances stay until their sessions were inherited. That holds too when
everything was restarted: the instances of before are absent, and the new leader inherits.

Every step may be done twice, or by two leaders at once, or by one that lost its lease on the way
and does not know: a sweep decides nothing by itself. A job moves on only from the attempt that was
seen to be lost (`fail_attempt` compares it), and ends once; a node's removal compares its
connection; a reservation is freed by its attempt. Whoever comes second finds things changed, and
two minders of one session look twice at the same jobs.
"""

import asyncio

import structlog

from registry.services.election import Election
from registry.services.membership import Membership
from registry.services.ports import Clock, InstanceStore
from routing.domain.outcome import Envelope, EnvelopeKind
from routing.services.losses import Losses
from routing.services.ports import InboxStore
from routing.services.retries import Retries
from routing.services.sessions import Sessions

log = structlog.get_logger(__name__)

SESSIONS_AT_ONCE = 50
SWEEPS_A_TTL = 6


class Sweeper:
    """Sweeps while this process leads; otherwise idle."""

    def __init__(
        self,
        election: Election,
        membership: Membership,
        instances: InstanceStore,
        inbox: InboxStore,
        sessions: Sessions,
        retries: Retries,
        losses: Losses,
        *,
        presence_ttl_ms: int,
        clock: Clock,
    ) -> None:
        self._election = election
        self._membership = membership
        self._instances = instances
        self._inbox = inbox
        self._sessions = sessions
        self._retries = retries
        self._losses = losses
        self._presence_ttl_ms = presence_ttl_ms
        self._clock = clock
        self._next_ms: int | None = None

    async def turn(self) -> None:
        """Sweep if this process leads and it is time; at once when it has just begun to lead."""
        if self._election.leading() is None or not self._membership.may_judge:
            self._next_ms = None
        elif self._next_ms is None or self._clock() >= self._next_ms:
            await self.sweep()
            self._next_ms = self._clock() + self._presence_ttl_ms // SWEEPS_A_TTL

    async def sweep(self) -> None:
        """One sweep, whether or not this process leads."""
        swept = await self._membership.sweep()
        # Its silence has lasted a presence TTL by now.
        grace_ms = max(self._losses.return_ms - self._presence_ttl_ms, 0)
        for node_id in swept:
            log.info("node swept", node_id=node_id)
        await asyncio.gather(
            *(self._losses.node_left(node_id, grace_ms=grace_ms) for node_id in swept)
        )
        for instance_id in await self._instances.absent():
            await self._bury(instance_id)

    async def _bury(self, instance_id: str) -> None:
        sessions = await self._sessions.inherit(instance_id)
        for start in range(0, len(sessions), SESSIONS_AT_ONCE):
            some = sessions[start : start + SESSIONS_AT_ONCE]
            await asyncio.gather(*(self._inherit(one, instance_id) for one in some))
        removed = False
        while not removed:
            left = await self._inbox.left_by(instance_id)
            await asyncio.gather(*(self._redo(envelope) for _, envelope in left))
            removed = await self._inbox.clear(instance_id, [token for token, _ in left])
        await self._instances.leave(instance_id)
        log.warning("instance swept", instance_id=instance_id, sessions=len(sessions))

    async def _inherit(self, session_id: str, instance_id: str) -> None:
        # An instance that left in order is absent at once: its nodes are on their way elsewhere.
        await self._losses.inherit(session_id, grace_ms=self._losses.return_ms)
        await self._sessions.bequeathed(session_id, instance_id=instance_id)

    async def _redo(self, envelope: Envelope) -> None:
        if envelope.kind == EnvelopeKind.ASSIGN:
            await self._retries.try_again(
                envelope.job_id,
                envelope.number,
                node_id=envelope.subject,
                reason="the node's instance died",
            )
        elif envelope.kind == EnvelopeKind.LEFT:
            await self._losses.left(envelope)
