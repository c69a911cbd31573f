"""The leader's clean-up after nodes and instances that left without a farewell.

A node whose presence ran out is removed, and what it was given is tried again elsewhere. An
instance whose presence ran out has its inbox emptied: an assignment that nobody handed over is
tried again; results need nothing, as each is in its session's outbox already. The deadlines of
its sessions' jobs are minded here from then on, whether or not their clients come back.

Every step may be done twice, or by two leaders at once: attempts are fenced, removal compares.
"""

import structlog

from registry.services.election import Election
from registry.services.membership import Membership
from registry.services.ports import InstanceStore
from routing.domain.outcome import Envelope, EnvelopeKind
from routing.services.ports import InboxStore
from routing.services.retries import Retries
from routing.services.sessions import Sessions

log = structlog.get_logger(__name__)


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
    ) -> None:
        self._election = election
        self._membership = membership
        self._instances = instances
        self._inbox = inbox
        self._sessions = sessions
        self._retries = retries

    async def turn(self) -> None:
        """One sweep, if this process leads and may judge who is absent."""
        if self._election.leading() is None or not self._membership.may_judge:
            return
        for node_id in await self._membership.sweep():
            log.info("node swept", node_id=node_id)
            await self._retries.node_left(node_id)
        known = {report.instance_id for report in await self._instances.all_reports()}
        present = {report.instance_id for report in await self._instances.reports()}
        for instance_id in sorted(known - present):
            await self._bury(instance_id)

    async def _bury(self, instance_id: str) -> None:
        for session_id in await self._sessions.inherit(instance_id):
            await self._retries.watch_session(session_id)
            await self._sessions.bequeathed(session_id, instance_id=instance_id)
        removed = False
        while not removed:
            left = await self._inbox.left_by(instance_id)
            for _, envelope in left:
                await self._redo(envelope)
            removed = await self._inbox.clear(instance_id, [token for token, _ in left])
        await self._instances.leave(instance_id)
        log.warning("instance swept", instance_id=instance_id)

    async def _redo(self, envelope: Envelope) -> None:
        if envelope.kind == EnvelopeKind.ASSIGN:
            await self._retries.try_again(
                envelope.job_id,
                envelope.number,
                node_id=envelope.subject,
                reason="the node's instance died",
            )
