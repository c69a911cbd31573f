"""Dead letters: jobs that ran out of attempts, and commands that no instance could act on.

A letter's id comes from what it is about, not from who buried it: whoever buries the same job
again names the same letter. So does the replay's session: replayed twice, a letter is one job.

Not promised: that a letter outlives its time or the cap of the instance that buried it.
"""

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from registry.domain.ids import job_id as job_id_of

LONGEST_ID = 400
REPLAY = "replay-"
_CURSOR = re.compile(r"([0-9]{1,15})-([0-9]{1,15})~(\S{1,128})")


class LetterKind(StrEnum):
    JOB = "job"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed. `error` is what the node itself said, if it said something."""

    attempt: int
    node: str
    reason: str
    error: Any = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is kept of a dead job or command, without its payload; of that only the size.

    `subject` of a command is the node or session it was for, and `code` the command's kind.
    `buried_at_ms` is the server's time, `instance_id` who buried it: both are the store's word.
    """

    id: str
    kind: LetterKind
    code: str
    reason: str
    job_id: str = ""
    session_id: str = ""
    utterance_index: int = 0
    tenant: str = ""
    src: str = ""
    tgt: str = ""
    priority: int = 0
    trace_id: str = ""
    accepted_ms: int = 0
    subject: str = ""
    history: list[FailedAttempt] = field(default_factory=list)
    replay_of: str | None = None
    payload_bytes: int = 0
    buried_at_ms: int = 0
    instance_id: str = ""


@dataclass(frozen=True, slots=True)
class Burial:
    """What came of burying. Not `fresh`: the letter was there before, and stays as it was.

    `held` letters are in this instance's stream now; `dropped` made way for it.
    """

    fresh: bool
    held: int
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class ReplayNote:
    """Kept with a replay's session: whose replay it is, and what had failed before it."""

    letter_id: str
    history: list[FailedAttempt]


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant; what is empty matches all."""

    tenant: str = ""
    code: str = ""
    src: str = ""
    tgt: str = ""

    def fits(self, letter: DeadLetter) -> bool:
        return all(
            wanted in ("", found)
            for wanted, found in (
                (self.tenant, letter.tenant),
                (self.code, letter.code),
                (self.src, letter.src),
                (self.tgt, letter.tgt),
            )
        )


class Position(NamedTuple):
    """A letter's place among all letters: by the time it was buried, then by instance."""

    ms: int
    number: int
    instance_id: str

    @classmethod
    def of(cls, entry_id: str, instance_id: str) -> "Position":
        ms, _, number = entry_id.partition("-")
        return cls(int(ms), int(number or "0"), instance_id)

    @classmethod
    def parse(cls, cursor: str) -> "Position":
        """Read a cursor; raises ValueError when it is none."""
        found = _CURSOR.fullmatch(cursor)
        if found is None:
            raise ValueError("a cursor is what an earlier page named as its next one")
        return cls(int(found[1]), int(found[2]), found[3])

    @property
    def cursor(self) -> str:
        return f"{self.ms}-{self.number}~{self.instance_id}"

    def before(self, instance_id: str) -> str:
        """Below which entry of that instance's stream the letters after this place begin."""
        number = self.number + 1 if instance_id < self.instance_id else self.number
        return f"{self.ms}-{number}"


def job_letter_id(job_id: str, *, accepted_ms: int) -> str:
    """Name the letter of a job. An index that is used again much later is another job."""
    return f"{LetterKind.JOB}~{job_id}~{accepted_ms}"


def command_letter_id(instance_id: str, token: str) -> str:
    """Name the letter of a command by its place in the inbox it lay in."""
    return f"{LetterKind.COMMAND}~{instance_id}~{token}"


def replay_session_id(letter_id: str) -> str:
    """The session of a letter's replay: the same, whoever replays it."""
    return REPLAY + hashlib.sha256(letter_id.encode()).hexdigest()[:40]


def replay_job_id(letter_id: str) -> str:
    return job_id_of(replay_session_id(letter_id), 0)


def is_replay(session_id: str) -> bool:
    """Whether a session is one that a replay made; those of clients begin otherwise."""
    return session_id.startswith(REPLAY)
