"""Dead letters: buried by whoever gives a job up, read and dropped by operators.

A letter is buried before its job is ended as failed, so that no death in between loses it. If it
then turns out that the job ended well after all, the letter is withdrawn; where the process died
in between, a replay finds out.

Not promised: that a letter stays until someone has read it. See `DeadLetterStore`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import structlog

from registry.domain.ids import split_job_id
from registry.services.ports import InstanceStore
from routing.domain.job import JobState
from routing.domain.letters import (
    DeadLetter,
    FailedAttempt,
    LetterFilter,
    LetterKind,
    Position,
    ReplayNote,
    command_letter_id,
    is_replay,
    job_letter_id,
)
from routing.domain.outcome import Envelope, StoredJob
from routing.services.delivery import Delivery
from routing.services.persist import persist
from routing.services.ports import DeadLetterStore, JobStore

log = structlog.get_logger(__name__)

BATCH = 100

LetterMark = list[tuple[str, int, Position | None]]
"""Each instance's count of letters, and where its newest one is."""

ENDED_WELL = frozenset({JobState.SUCCEEDED, JobState.CANCELLED})


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Letters, newest first. `next` is the cursor of the page after this one; None on the last."""

    items: list[DeadLetter]
    next: str | None


class DeadLetters:
    """The dead letters of all instances, and the burying of this one."""

    def __init__(
        self,
        store: DeadLetterStore,
        jobs: JobStore,
        instances: InstanceStore,
        *,
        instance_id: str,
        leads: Callable[[], bool],
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._instances = instances
        self._instance_id = instance_id
        self._leads = leads
        self.held = 0
        self.buried = 0
        self.dropped = 0

    def listen(self, delivery: Delivery) -> None:
        """Bury the commands that nobody here can act on."""
        delivery.on_dead = self.bury_command

    async def bury(
        self, job: StoredJob, *, code: str, reason: str, history: list[dict[str, Any]]
    ) -> None:
        """Write a job's letter. Done twice, by whomever, it is one letter."""
        if job.payload is None:
            return  # It ended meanwhile.
        note = await self._note(split_job_id(job.job_id)[0])
        letter = _job_letter(job, code=code, reason=reason, history=history, note=note)
        await self._bury(letter, job.payload)

    async def bury_command(self, token: str, envelope: Envelope, *, reason: str) -> None:
        """Write the letter of a command that came into our inbox."""
        letter = DeadLetter(
            id=command_letter_id(self._instance_id, token),
            kind=LetterKind.COMMAND,
            code=envelope.kind,
            reason=reason,
            job_id=envelope.job_id,
            subject=envelope.subject,
            payload_bytes=len(envelope.body),
        )
        await self._bury(letter, envelope.body)

    async def bury_and(
        self,
        end: Callable[[], Awaitable[bool]],
        job_id: str,
        *,
        code: str,
        reason: str,
        history: list[dict[str, Any]],
    ) -> bool:
        """Bury a job with what failed, then `end` it; without a failure it is only ended.

        Where it turns out that it had ended well before, the letter is withdrawn.
        """
        job = await persist(lambda: self._jobs.get(job_id), what="bury") if history else None
        if job is None:
            return await end()
        await persist(
            lambda: self.bury(job, code=code, reason=reason, history=history), what="bury"
        )
        ended = await end()
        if not ended:
            await persist(lambda: self._withdraw(job), what="withdraw letter")
        return ended

    async def page(
        self, wanted: LetterFilter, *, cursor: str = "", limit: int = BATCH
    ) -> LetterPage:
        """One page; raises ValueError for a cursor that is none."""
        after = Position.parse(cursor) if cursor else None
        found: dict[str, tuple[Position, DeadLetter]] = {}
        for instance_id in await self._store.instances():
            taken = 0
            async for position, letter in self._matching(instance_id, wanted, after):
                # Of one job buried at two instances at once, the newer letter is shown.
                if letter.id not in found or found[letter.id][0] < position:
                    found[letter.id] = (position, letter)
                taken += 1
                if taken > limit:
                    break
        ranked = sorted(found.values(), key=lambda item: item[0], reverse=True)
        items = [letter for _, letter in islice(ranked, limit)]
        more = len(ranked) > limit
        return LetterPage(items, ranked[limit - 1][0].cursor if more else None)

    async def count(self, wanted: LetterFilter, *, cursor: str = "") -> int:
        """How many letters there are after a place, which may be the beginning."""
        after = Position.parse(cursor) if cursor else None
        ids: set[str] = set()
        for instance_id in await self._store.instances():
            async for _, letter in self._matching(instance_id, wanted, after):
                ids.add(letter.id)
        return len(ids)

    async def total(self) -> int:
        """How many letters all instances have; one that two buried at once counts twice."""
        counts = [self._store.count(name) for name in await self._store.instances()]
        return sum(await asyncio.gather(*counts))

    async def mark(self) -> LetterMark:
        """What differs as soon as a letter came or went, at the cost of a few short commands."""
        names = await self._store.instances()
        counts = await asyncio.gather(*map(self._store.count, names))
        newest = await asyncio.gather(
            *(self._store.read(name, before="", count=1) for name in names)
        )
        return [
            (name, count, found[0][0] if found else None)
            for name, count, found in zip(names, counts, newest, strict=True)
        ]

    async def get(self, letter_id: str) -> DeadLetter | None:
        found = await self._store.get(letter_id)
        return found[0] if found is not None else None

    async def drop(self, letter_id: str) -> bool:
        """Remove a letter for good; False when there is none."""
        if not await self._store.drop(letter_id):
            return False
        log.info("dead letter removed", letter_id=letter_id)
        return True

    async def tidy(self) -> None:
        """Let go of what is too old: here, and on the leader also of instances that are gone."""
        mine = await self._store.trim(self._instance_id)
        self.held = mine.held
        self.dropped += mine.dropped
        if not self._leads():
            return
        present = {report.instance_id for report in await self._instances.reports()}
        for instance_id in await self._store.instances():
            if instance_id not in present | {self._instance_id}:
                left = await self._store.trim(instance_id)
                self.dropped += left.dropped
                if not left.held:
                    await self._store.forget(instance_id)

    async def _bury(self, letter: DeadLetter, payload: bytes) -> None:
        burial = await self._store.bury(letter, payload=payload)
        self.held = burial.held
        self.dropped += burial.dropped
        if burial.fresh:
            self.buried += 1
            log.warning("dead letter", letter_id=letter.id, code=letter.code, reason=letter.reason)

    async def _withdraw(self, job: StoredJob) -> None:
        # Only if it ended well: two who give one job up at once must not undo each other's letter.
        now = await self._jobs.get(job.job_id)
        if now is not None and now.state in ENDED_WELL and now.accepted_ms == job.accepted_ms:
            await self.drop(job_letter_id(job.job_id, accepted_ms=job.accepted_ms))

    async def _note(self, session_id: str) -> ReplayNote | None:
        return await self._store.replay_note(session_id) if is_replay(session_id) else None

    async def _matching(
        self, instance_id: str, wanted: LetterFilter, after: Position | None
    ) -> AsyncIterator[tuple[Position, DeadLetter]]:
        before = after.before(instance_id) if after is not None else ""
        while True:
            batch = await self._store.read(instance_id, before=before, count=BATCH)
            for position, letter in batch:
                if wanted.fits(letter):
                    yield position, letter
            if len(batch) < BATCH:
                return
            before = batch[-1][0].before(instance_id)


def _job_letter(
    job: StoredJob,
    *,
    code: str,
    reason: str,
    history: list[dict[str, Any]],
    note: ReplayNote | None,
) -> DeadLetter:
    session_id, utterance_index = split_job_id(job.job_id)
    letter = DeadLetter(
        id=job_letter_id(job.job_id, accepted_ms=job.accepted_ms),
        kind=LetterKind.JOB,
        code=code,
        reason=reason,
        job_id=job.job_id,
        session_id=session_id,
        utterance_index=utterance_index,
        tenant=job.brief.tenant,
        src=job.brief.src,
        tgt=job.brief.tgt,
        priority=job.brief.priority,
        trace_id=job.brief.trace_id,
        accepted_ms=job.accepted_ms,
        history=[_attempt(entry) for entry in history],
        payload_bytes=len(job.payload or b""),
    )
    if note is None:
        return letter
    return replace(letter, replay_of=note.letter_id, history=[*note.history, *letter.history])


def _attempt(entry: dict[str, Any]) -> FailedAttempt:
    error = {"code": entry["code"], "message": entry["message"]} if "code" in entry else None
    return FailedAttempt(int(entry["attempt"]), str(entry["node"]), str(entry["reason"]), error)
