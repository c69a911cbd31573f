"""A session that moves from one instance to another takes its work along."""

from routing.domain.outcome import Envelope, EnvelopeKind
from routing.services.delivery import Delivery
from routing.services.losses import Losses
from routing.services.retries import Retries
from routing.services.sessions import Session, Sessions


class Handover:
    """Both ends of a session's move."""

    def __init__(
        self,
        sessions: Sessions,
        retries: Retries,
        losses: Losses,
        delivery: Delivery,
        *,
        instance_id: str,
    ) -> None:
        self._sessions = sessions
        self._losses = losses
        self._retries = retries
        self._delivery = delivery
        self._instance_id = instance_id
        delivery.on(EnvelopeKind.MOVED, self._on_moved)

    async def take_over(self, session: Session, previous_instance: str) -> None:
        """Tell the instance that held the session until now, and watch its unfinished jobs here."""
        if previous_instance not in ("", self._instance_id):
            moved = Envelope(
                EnvelopeKind.MOVED,
                session.session_id,
                number=session.epoch,
                sender=self._instance_id,
            )
            if not await self._delivery.send(previous_instance, moved):
                # It is gone, and may have left something half done.
                await self._losses.inherit(session.session_id, grace_ms=self._losses.return_ms)
                return
        await self._retries.watch_session(session.session_id)

    async def _on_moved(self, envelope: Envelope) -> None:
        await self._sessions.moved(envelope.subject, epoch=envelope.number)
