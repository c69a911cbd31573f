"""`/ws/session`: a session opens or resumes, sends utterances and gets their results."""

import contextlib
import time
from typing import Any

from registry.domain.errors import InvalidIdentifier, StoreUnavailable
from registry.domain.ids import check_identifier, job_id
from routing.consumers.base import SocketConsumer
from routing.domain import wire
from routing.domain.credentials import Presented, SessionGrant
from routing.domain.errors import CloseCode, ErrorCode, InvalidSession, NotAuthorized
from routing.domain.limits import Bucket, Limits
from routing.domain.outcome import ResumeRefused, Share
from routing.instance import Routing
from routing.services.intake import RETRY_AFTER_MS, Acknowledged, Refused
from routing.services.sessions import Init, Session

DEFAULT_TENANT = "default"


class SessionConsumer(SocketConsumer):
    """The socket of one session."""

    GREETING = "session_init"

    def __init__(self, routing: Routing) -> None:
        super().__init__(routing)
        self._session: Session | None = None
        self._grant: SessionGrant | None = None

    async def admit(self, shown: Presented) -> None:
        self._grant = self.routing.access.admit_session(shown)
        if self._grant is not None and self._grant.rate is not None:
            self.pace = Bucket(self._grant.rate, self.heard_ms)

    def frame_rate(self, limits: Limits) -> int:
        return limits.session_frame_rate

    def idle(self, now_ms: int, limits: Limits) -> str | None:
        if 0 < limits.session_idle_ms <= now_ms - self.heard_ms:
            return f"no frame within {limits.session_idle_ms} ms"
        return None

    async def frame(self, data: str | bytes) -> None:
        began_ns = self.routing.dispatch_times.now_ns()
        message, fields = wire.SESSION_FRAMES.decode(data)
        if isinstance(message, wire.SessionInit):
            await self._init(message)
            return
        session = self._held(message)
        match message:
            case wire.Utterance():
                await self._utterance(session, message, fields, began_ns)
            case wire.ResultAck():
                with contextlib.suppress(StoreUnavailable):  # the next one trims what this did not
                    await self.routing.sessions.acknowledge(session, seq=message.seq)
            case wire.UtteranceCancel():
                await self._cancel(session, message)
            case wire.ClientHeartbeat():
                self.send(wire.server_heartbeat(session.session_id, timestamp_ms=_now_ms()))
            case wire.SessionClose():
                await self._close_session(session, message)

    async def closed(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self.routing.sessions.detach(session, self)

    async def _init(self, message: wire.SessionInit) -> None:
        if self.turned_away():
            return
        if self._session is not None:
            raise InvalidSession(
                f"this socket holds {self._session.session_id} already; open another one"
            )
        tenant = self._tenant(message)
        trace_id = message.trace_id or self.routing.new_trace_id()
        if message.resume is not None:
            await self._resume(message.resume, trace_id)
            return
        init = Init(
            src_lang=message.src_lang,
            tgt_lang=message.tgt_lang,
            tenant=tenant,
            trace_id=trace_id,
            platform=message.platform,
            client_version=message.client_version,
            node_labels=(message.features and message.features.node_labels) or {},
        )
        session, token = await self.routing.sessions.open(init, self, bound_to=self._bound_to)
        self._session = session
        self.greeted = True
        self._acknowledge_init(session, trace_id, token, resumed=False)

    @property
    def _bound_to(self) -> str | None:
        return self._grant.tenant if self._grant is not None else None

    def _tenant(self, message: wire.SessionInit) -> str:
        """The token's tenant, which nobody may say otherwise."""
        if self._grant is None:
            return message.tenant_id or DEFAULT_TENANT
        if message.tenant_id not in (None, self._grant.tenant):
            raise NotAuthorized("tenant_id is not that of the session token")
        return self._grant.tenant

    async def _resume(self, resume: wire.Resume, trace_id: str) -> None:
        try:
            check_identifier(resume.session_id, what="session_id")
        except InvalidIdentifier as error:
            raise InvalidSession(str(error)) from None
        outcome = await self.routing.sessions.resume(
            resume.session_id,
            resume.token,
            last_seq=resume.last_seq,
            link=self,
            bound_to=self._bound_to,
        )
        if isinstance(outcome, ResumeRefused):
            if outcome.forbidden:
                self.refuse(ErrorCode.UNAUTHORIZED, "the resume token is not this session's")
                return
            raise InvalidSession("the session is closed or was forgotten; start a new one")
        session, previous_instance = outcome
        self._session = session
        self.greeted = True
        self._acknowledge_init(session, trace_id, resume.token, resumed=True)
        await self.routing.sessions.catch_up(session)
        await self.routing.handover.take_over(session, previous_instance)

    def _acknowledge_init(
        self, session: Session, trace_id: str, token: str, *, resumed: bool
    ) -> None:
        self.send(
            wire.session_init_ack(
                session.session_id,
                message="session resumed" if resumed else "session opened",
                trace_id=trace_id,
                resume_token=token,
                resumed=resumed,
                node_id=session.last_node if resumed else "",
            )
        )

    async def _utterance(
        self, session: Session, message: wire.Utterance, fields: wire.Fields, began_ns: int
    ) -> None:
        index = message.utterance_index
        outcome = self._not_allowed(message) or await self._submit(
            session, message, fields, began_ns
        )
        if isinstance(outcome, Refused):
            more: dict[str, Any] = {"details": outcome.details} if outcome.details else {}
            self.refuse(
                outcome.code,
                outcome.message,
                session_id=session.session_id,
                utterance_index=index,
                job_id=job_id(session.session_id, index),
                **more,
            )
            return
        self.send(
            wire.utterance_ack(
                session.session_id, index, job_id=outcome.job_id, status=outcome.status
            )
        )

    def _not_allowed(self, message: wire.Utterance) -> Refused | None:
        src, tgt = message.src_lang, message.tgt_lang
        if self._grant is None or self._grant.allows(src, tgt):
            return None
        return Refused(ErrorCode.UNAUTHORIZED, f"the session token does not allow {src} to {tgt}")

    async def _submit(
        self, session: Session, message: wire.Utterance, fields: wire.Fields, began_ns: int
    ) -> Acknowledged | Refused:
        island = self.routing.island
        job = job_id(session.session_id, message.utterance_index)
        if island.serves(session):
            return island.submit(session, message, fields)
        if island.knows(job):
            return Acknowledged(job, "duplicate")
        try:
            outcome = await self._take_in(session, job, message, fields, began_ns)
        except StoreUnavailable:
            # What came of it in the store, if anything, ends with what the island makes of it.
            island.begin()
            return island.submit(session, message, fields)
        if isinstance(outcome, Acknowledged):
            session.top = max(session.top, message.utterance_index)
        return outcome

    async def _take_in(
        self,
        session: Session,
        job: str,
        message: wire.Utterance,
        fields: wire.Fields,
        began_ns: int,
    ) -> Acknowledged | Refused:
        """Take an utterance as one of its tenant's, if that may have one more."""
        limit = self._grant.in_flight if self._grant is not None else None
        share = await self.routing.shares.hold(session.init.tenant, job, limit=limit)
        if share is Share.FULL:
            return Refused(
                ErrorCode.RATE_LIMITED,
                "the tenant has as many unfinished utterances as it may have; wait for results",
                {"retry_after_ms": RETRY_AFTER_MS},
            )
        outcome = await self.routing.intake.submit(session, message, fields, began_ns=began_ns)
        taken = isinstance(outcome, Acknowledged) and outcome.status != "duplicate"
        if share is Share.HELD and not taken:
            await self.routing.shares.release(job)
        return outcome

    async def _cancel(self, session: Session, message: wire.UtteranceCancel) -> None:
        # What has ended already has had its one terminal message: nothing to say again.
        cancelled = job_id(session.session_id, message.utterance_index)
        if not self.routing.island.cancel(cancelled, reason="by the session"):
            await self.routing.completion.cancel(cancelled, reason="by the session")

    async def _close_session(self, session: Session, message: wire.SessionClose) -> None:
        for open_job in await self.routing.sessions.close(session):
            await self.routing.completion.cancel(open_job, reason="the session closed")
        self.send(wire.session_close_ack(session.session_id))
        self.close(CloseCode.NORMAL, "session closed")

    def _held(self, message: wire.Message) -> Session:
        if self._session is None:
            raise InvalidSession("send session_init first")
        claimed = getattr(message, "session_id", None)
        if claimed != self._session.session_id:
            raise InvalidSession(
                f"session_id is {str(claimed)[:64]!r},"
                f" but this socket holds {self._session.session_id}"
            )
        return self._session


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
