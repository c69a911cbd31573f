"""The sessions whose sockets this instance holds, and delivery from their outboxes.

Delivery reads the outbox: a terminal message that arrives here with the very next `seq` is sent
as it is, anything else makes the session catch up from the store. So a resumed session, a lost
wake-up and normal work are one code.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from registry.domain.ids import session_id as new_session_id
from routing.domain import wire
from routing.domain.outcome import ResumeRefused
from routing.services.ports import SessionStore

log = structlog.get_logger(__name__)

SLICE = 200
"""Sessions restored at once."""


class SessionLink(Protocol):
    """The socket of a session."""

    def send(self, frame: bytes) -> bool: ...

    def close(self, code: int, reason: str) -> None: ...


class Init(msgspec.Struct, frozen=True):
    """What a session said of itself, kept with it in the store."""

    src_lang: str
    tgt_lang: str
    tenant: str
    trace_id: str
    platform: str = ""
    client_version: str = ""
    node_labels: dict[str, str] = {}


@dataclass(slots=True)
class Session:
    """A session served here. `sent_seq` is the last terminal message given to its socket.

    `top` is its highest utterance index, `last_node` the one that was given its last job, if known.
    While `unsettled`, it was sent messages that the store
    does not know yet, and the store's numbers mean nothing.
    """

    session_id: str
    init: Init
    token_hash: str
    epoch: int
    sent_seq: int
    link: SessionLink | None
    top: int = -1
    last_node: str = ""
    unsettled: bool = False
    catching_up: bool = False
    behind: bool = False


class Sessions:
    """This instance's sessions."""

    def __init__(
        self,
        store: SessionStore,
        *,
        instance_id: str,
        new_token: Callable[[], str],
    ) -> None:
        self._store = store
        self._instance_id = instance_id
        self._new_token = new_token
        self._local: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._local)

    def get(self, session_id: str) -> Session | None:
        return self._local.get(session_id)

    def connected(self) -> list[Session]:
        return [session for session in self._local.values() if session.link is not None]

    async def open(
        self, init: Init, link: SessionLink, *, bound_to: str | None = None
    ) -> tuple[Session, str]:
        """Start a new session; returns it with its resume token, which is not kept in clear.

        That is good only together with `bound_to`, the tenant of who opened it.
        """
        token = self._new_token()
        session_id = new_session_id(self._new_token()[:22])
        await asyncio.gather(
            self._store.watch(session_id, instance_id=self._instance_id),
            self._store.open(
                session_id,
                instance_id=self._instance_id,
                token_hash=_hash(token, bound_to),
                init=msgspec.json.encode(init),
            ),
        )
        session = Session(session_id, init, _hash(token, bound_to), epoch=1, sent_seq=0, link=link)
        self._local[session_id] = session
        log.info("session opened", session_id=session_id, tenant=init.tenant)
        return session, token

    async def resume(
        self,
        session_id: str,
        token: str,
        *,
        last_seq: int,
        link: SessionLink,
        bound_to: str | None = None,
    ) -> tuple[Session, str] | ResumeRefused:
        """Take a session over for the bearer of its token; the caller then calls `catch_up`.

        Returns the session and the instance that held it until now.
        """
        outcome = await self._store.resume(
            session_id, instance_id=self._instance_id, token_hash=_hash(token, bound_to)
        )
        if isinstance(outcome, ResumeRefused):
            return outcome
        await self._store.watch(session_id, instance_id=self._instance_id)
        before = self._local.get(session_id)
        if before is not None and before.link is not None:
            before.link.close(4409, "the session was resumed on another socket")
        init = msgspec.json.decode(outcome.init, type=Init)
        sent_seq = min(last_seq, outcome.seq)
        session = Session(
            session_id,
            init,
            _hash(token, bound_to),
            outcome.epoch,
            sent_seq,
            link,
            top=outcome.top,
        )
        if before is not None:
            session.last_node = before.last_node
        self._local[session_id] = session
        log.info("session resumed", session_id=session_id, last_seq=last_seq, seq=outcome.seq)
        return session, outcome.previous_instance

    async def deliver(self, session_id: str, *, seq: int, body: bytes) -> None:
        """Bring terminal message `seq` to the session's socket, if it is here; else it waits."""
        session = self._local.get(session_id)
        if session is None or session.link is None or seq <= session.sent_seq:
            return
        if session.unsettled:
            return
        if seq == session.sent_seq + 1 and body and not session.catching_up:
            session.sent_seq = seq
            session.link.send(wire.with_seq(body, seq))
        else:
            await self.catch_up(session)

    async def catch_up(self, session: Session) -> None:
        """Send what the outbox has beyond the last message sent, in order."""
        if session.unsettled:
            return
        if session.catching_up:
            session.behind = True
            return
        session.catching_up = True
        try:
            session.behind = True
            while session.behind and session.link is not None:
                session.behind = False
                for seq, body in await self._store.outbox(
                    session.session_id, after=session.sent_seq
                ):
                    if session.link is not None and seq > session.sent_seq:
                        session.sent_seq = seq
                        session.link.send(wire.with_seq(body, seq))
        finally:
            session.catching_up = False

    async def open_jobs(self, session_id: str) -> list[str]:
        """The session's jobs that have not ended, by deadline."""
        return await self._store.open_jobs(session_id)

    async def acknowledge(self, session: Session, *, seq: int) -> None:
        """The client has everything up to `seq`: the outbox may forget it."""
        await self._store.trim(session.session_id, upto=min(seq, session.sent_seq))

    async def touch(self) -> None:
        """Keep connected sessions alive in the store, and stop minding those that are over."""
        for session in self.connected():
            await self._store.touch(session.session_id)
        await self.unmind()

    async def restore(self) -> None:
        """The store was away: write what it lost of our connected sessions.

        Their clients go on without noticing; what they had under way ends by its deadline. Also a
        store that lost only its last writes, at a failover, goes on behind what was sent.
        """
        connected = [session for session in self.connected() if not session.unsettled]
        restored = 0
        for start in range(0, len(connected), SLICE):
            some = connected[start : start + SLICE]
            work = (self.restore_one(session, seq=session.sent_seq) for session in some)
            restored += sum(await asyncio.gather(*work))
        if restored:
            log.warning("sessions restored after data loss", sessions=restored)

    async def restore_one(self, session: Session, *, seq: int) -> bool:
        """Write one session again whose client has got everything up to `seq`.

        False when the store knows it; then only its next seq is made sure of.
        """
        restored, _ = await asyncio.gather(
            self._store.restore(
                session.session_id,
                instance_id=self._instance_id,
                token_hash=session.token_hash,
                init=msgspec.json.encode(session.init),
                epoch=session.epoch,
                seq=seq,
            ),
            self._store.watch(session.session_id, instance_id=self._instance_id),
        )
        return restored

    async def unmind(self) -> int:
        """Stop minding sessions without socket and jobs; returns how many are minded still."""
        minded = await self._store.watched(self._instance_id)
        left = 0
        for session_id in minded:
            if self.get(session_id) is None and not await self._store.open_jobs(session_id):
                await self._store.unwatch(session_id, instance_id=self._instance_id)
            else:
                left += 1
        return left

    async def inherit(self, instance_id: str) -> list[str]:
        """Mind from now on what a process minded that is gone; returns those sessions."""
        sessions = await self._store.watched(instance_id)
        for session_id in sessions:
            await self._store.watch(session_id, instance_id=self._instance_id)
        return sessions

    async def bequeathed(self, session_id: str, *, instance_id: str) -> None:
        """What that process minded is watched here by now."""
        await self._store.unwatch(session_id, instance_id=instance_id)

    async def close(self, session: Session) -> list[str]:
        """Close for good; returns the jobs that are to be cancelled."""
        return await self._store.close(session.session_id)

    def detach(self, session: Session, link: SessionLink) -> None:
        """The socket is gone. The session waits in the store for its client to resume."""
        if session.link is link:
            session.link = None
        # Resumed here on another socket meanwhile, it has a successor under its id.
        if self._local.get(session.session_id) is session:
            del self._local[session.session_id]

    async def moved(self, session_id: str, *, epoch: int) -> None:
        """Another instance has taken the session over."""
        await self._store.unwatch(session_id, instance_id=self._instance_id)
        session = self._local.get(session_id)
        if session is None or session.epoch >= epoch:
            return
        del self._local[session_id]
        if session.link is not None:
            session.link.close(4409, "the session was resumed on another socket")


def _hash(token: str, bound_to: str | None) -> str:
    """What the store compares: with a tenant in it, only that tenant's token fits.

    So the check is one with the take-over, and costs no look-up before it.
    """
    said = token if bound_to is None else f"{token}\0{bound_to}"
    return hashlib.sha256(said.encode()).hexdigest()
