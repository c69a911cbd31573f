"""Running a dead letter's payload again, as a new job under a session of its own.

The session that said it has had its one terminal message and gets no other. The new session's id
comes from the letter's, so that a letter replayed twice, by two at once, or after a death half-way
is one job. It has no socket and no token: its result lies in its outbox until its retention ends.

The instance that replays minds the new job's deadlines. `RemoteReplays` is for a process that is
no instance: it asks one.
"""

import asyncio

import msgspec

from registry.services.ports import Clock, InstanceStore
from routing.domain import wire
from routing.domain.job import TERMINAL
from routing.domain.letters import (
    DeadLetter,
    LetterKind,
    ReplayNote,
    replay_job_id,
    replay_session_id,
)
from routing.domain.operators import ActionOutcome, AlreadySo, Done, NotFound, NotNow
from routing.domain.outcome import Envelope, EnvelopeKind
from routing.services.deadletters import ENDED_WELL
from routing.services.delivery import Delivery
from routing.services.intake import Intake, Refused
from routing.services.ports import DeadLetterStore, JobStore, SessionStore
from routing.services.sessions import Init, Session

NO_TOKEN = "-"  # noqa: S105 (it is none)
"""Never the hash of a token: nobody can resume a replay's session."""
PATIENCE_MS = 5_000
LOOK_S = 0.05


class Replays:
    """Replays letters in an instance."""

    def __init__(
        self,
        letters: DeadLetterStore,
        jobs: JobStore,
        sessions: SessionStore,
        intake: Intake,
        delivery: Delivery,
        *,
        instance_id: str,
    ) -> None:
        self._letters = letters
        self._jobs = jobs
        self._sessions = sessions
        self._intake = intake
        self._instance_id = instance_id
        delivery.on(EnvelopeKind.REPLAY, self._on_replay)

    async def replay(self, letter_id: str) -> ActionOutcome:
        """Take a letter's payload as a new job. Refused, the letter stays."""
        found = await self._letters.get(letter_id)
        if found is None:
            return await gone(self._jobs, letter_id)
        letter, payload = found
        if letter.kind is not LetterKind.JOB:
            return NotNow(letter_id, "a command cannot be replayed; it can be dropped")
        return await self._unfit(letter) or await self._submit(letter, payload)

    async def _unfit(self, letter: DeadLetter) -> ActionOutcome | None:
        """Why there is nothing to replay; None where there is."""
        job = await self._jobs.get(letter.job_id)
        if job is None or job.accepted_ms != letter.accepted_ms:
            return None
        if job.state in ENDED_WELL:
            await self._letters.drop(letter.id)
            return AlreadySo(letter.id, f"its job ended as {job.state} after all", before(letter))
        if job.state not in TERMINAL:
            return NotNow(letter.id, "its job has not ended yet; try again in a moment")
        return None

    async def _submit(self, letter: DeadLetter, payload: bytes) -> ActionOutcome:
        session = _session_of(letter)
        await self._open(session, letter)
        frame = wire.replayed_utterance(payload, session_id=session.session_id)
        assert isinstance(frame.message, wire.Utterance)  # noqa: S101 (its type says so)
        answer = await self._intake.submit(session, frame.message, frame.fields)
        if isinstance(answer, Refused):
            return NotNow(letter.id, f"{answer.message}; the letter stays", before(letter))
        # Once more: while the session had no job yet, it may have been let go of as idle.
        await self._sessions.watch(session.session_id, instance_id=self._instance_id)
        await self._letters.drop(letter.id)
        facts = before(letter) | {"after": f"job {answer.job_id}, {answer.status}"}
        if answer.status == "duplicate":
            return AlreadySo(letter.id, f"it was replayed already as job {answer.job_id}", facts)
        return Done(letter.id, f"replayed as job {answer.job_id}", facts)

    async def _open(self, session: Session, letter: DeadLetter) -> None:
        await asyncio.gather(
            self._sessions.watch(session.session_id, instance_id=self._instance_id),
            self._sessions.open(
                session.session_id,
                instance_id=self._instance_id,
                token_hash=NO_TOKEN,
                init=msgspec.json.encode(session.init),
            ),
            self._letters.note_replay(session.session_id, ReplayNote(letter.id, letter.history)),
        )

    async def _on_replay(self, envelope: Envelope) -> None:
        # Whoever asked sees what came of it in the store.
        await self.replay(envelope.subject)


class RemoteReplays:
    """Has an instance replay letters, for a process that is none."""

    def __init__(
        self,
        letters: DeadLetterStore,
        jobs: JobStore,
        instances: InstanceStore,
        delivery: Delivery,
        clock: Clock,
    ) -> None:
        self._letters = letters
        self._jobs = jobs
        self._instances = instances
        self._delivery = delivery
        self._clock = clock

    async def replay(self, letter_id: str) -> ActionOutcome:
        """Ask an instance, and wait a moment for what comes of it."""
        found = await self._letters.get(letter_id)
        if found is None:
            return await gone(self._jobs, letter_id)
        letter = found[0]
        if letter.kind is not LetterKind.JOB:
            return NotNow(letter_id, "a command cannot be replayed; it can be dropped")
        asked = await self._ask(letter_id)
        if asked is None:
            return NotNow(letter_id, "no instance is there that could replay it")
        give_up_ms = self._clock() + PATIENCE_MS
        while self._clock() < give_up_ms:
            if await self._letters.get(letter_id) is None:
                return await self._done(letter)
            await asyncio.sleep(LOOK_S)
        return NotNow(
            letter_id,
            f"instance {asked} did not take it: no node supports {letter.src} to {letter.tgt},"
            " its queue is full, or the instance is busy; the letter stays",
            before(letter),
        )

    async def _ask(self, letter_id: str) -> str | None:
        for report in await self._instances.reports():
            command = Envelope(EnvelopeKind.REPLAY, letter_id)
            if report.serves and await self._delivery.send(report.instance_id, command):
                return report.instance_id
        return None

    async def _done(self, letter: DeadLetter) -> ActionOutcome:
        job_id = replay_job_id(letter.id)
        if await self._jobs.get(job_id) is None:
            return AlreadySo(
                letter.id, "it is gone: its job ended well after all, or it was dropped"
            )
        facts = before(letter) | {"after": f"job {job_id}"}
        return Done(letter.id, f"replayed as job {job_id}", facts)


async def gone(jobs: JobStore, letter_id: str) -> ActionOutcome:
    """What to say of a letter that is not there: it may have been replayed before."""
    job_id = replay_job_id(letter_id)
    if await jobs.get(job_id) is not None:
        return AlreadySo(letter_id, f"it was replayed already as job {job_id}")
    return NotFound(letter_id, "there is no dead letter of this id")


def before(letter: DeadLetter) -> dict[str, str]:
    """How a letter is described in the audit log."""
    what = f"{letter.code}, {letter.src}>{letter.tgt}, tenant {letter.tenant or '-'}"
    return {"before": f"{letter.kind} {letter.job_id or letter.subject}: {what}"}


def _session_of(letter: DeadLetter) -> Session:
    init = Init(letter.src, letter.tgt, letter.tenant, letter.trace_id, platform="replay")
    return Session(replay_session_id(letter.id), init, NO_TOKEN, epoch=1, sent_seq=0, link=None)
