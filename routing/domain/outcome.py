"""What the stores answer: each step's result as a value. Losing a race is one of them."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec


class Brief(msgspec.Struct, frozen=True):
    """What every attempt of a job needs to know beside its payload. Written once, at accept.

    Only a node that has all the `labels` may take it.
    """

    src: str
    tgt: str
    priority: int
    tenant: str
    trace_id: str
    queue: str
    labels: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job is written. Both times are the server's."""

    accepted_ms: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    state: str


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session is unknown to the store, or was closed."""


@dataclass(frozen=True, slots=True)
class TooManyOpen:
    """The session has as many unfinished jobs as it may have."""


Acceptance = Accepted | Duplicate | SessionClosed | TooManyOpen


@dataclass(frozen=True, slots=True)
class Reserved:
    """A slot is held on the node, whose socket `instance_id` has. `fresh` unless it was before."""

    instance_id: str
    count: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class Full:
    count: int


@dataclass(frozen=True, slots=True)
class Busier:
    """The node has room, and more reservations than the caller would have it hold."""

    count: int


@dataclass(frozen=True, slots=True)
class NodeGone:
    """No living connection owns the node."""


class Share(StrEnum):
    """Whether a tenant's job is counted among its unfinished ones, or is one too many."""

    HELD = "held"
    ALREADY = "already"
    FULL = "full"


Reservation = Reserved | Full | Busier | NodeGone


@dataclass(frozen=True, slots=True)
class Finished:
    """The job ended here and now, as message `seq` of its session."""

    seq: int
    instance_id: str
    attempt: int
    node_id: str


@dataclass(frozen=True, slots=True)
class Stale:
    """The job ended before, moved on to another attempt, or is not known: nothing was changed.

    Where it has ended, `seq` and `instance_id` say as which message, and who holds its session.
    """

    why: str
    seq: int = 0
    instance_id: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """The next attempt may begin."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Exhausted:
    """No attempt is left. `history` is one entry per attempt: attempt, node, reason.

    An entry of an attempt that its node gave up has the node's `code` and `message` too.
    """

    history: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What a node said of an attempt that it gave up; `details` is as it came, as JSON."""

    code: str
    message: str
    details: Any = None
    retryable: bool = True


def refused_by(history: list[dict[str, Any]]) -> frozenset[str]:
    """The nodes that themselves gave the job up: asked again, they would again."""
    return frozenset(str(entry["node"]) for entry in history if "code" in entry)


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as the store has it. `payload` is gone once it has ended.

    `remaining_ms` is what was left of its deadline by the server's time when it was read.
    `decisions` are why it was given to which node, each as `Decision` encodes it.
    """

    job_id: str
    state: str
    attempt: int
    node_id: str
    deadline_ms: int
    remaining_ms: int = field(compare=False)
    accepted_ms: int
    brief: Brief
    payload: bytes | None
    history: list[dict[str, Any]]
    seq: int | None
    decisions: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Glance:
    """Where a job stands: the little that a list of jobs shows."""

    state: str
    attempt: int
    node_id: str


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as the store has it, without its secrets. `seq` is its last terminal message."""

    session_id: str
    instance_id: str
    epoch: int
    seq: int
    closed: bool
    open_jobs: list[str]


@dataclass(frozen=True, slots=True)
class Resumed:
    """The session is ours from now on.

    `seq` is its last terminal message so far, `top` its highest utterance index, or -1.
    """

    epoch: int
    seq: int
    previous_instance: str
    init: bytes
    top: int = -1


@dataclass(frozen=True, slots=True)
class ResumeRefused:
    """`forbidden`: the token is not the session's; else the session is unknown or closed."""

    forbidden: bool


class JournalEntry(msgspec.Struct, frozen=True):
    """A terminal message that was sent while the store was away, in order; JSON texts inside."""

    job_id: str
    state: str
    body: str
    brief: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """A command for the instance whose inbox it lies in, from the instance `sender`.

    `node_id` of a result is the node that worked on it.
    """

    kind: str
    subject: str
    body: bytes = b""
    job_id: str = ""
    number: int = 0
    sender: str = ""
    node_id: str = ""


class EnvelopeKind:
    """The commands. `subject` is the node, session or dead letter; `number` the attempt or seq.

    REVOKED: `number` is a node's credential, which is good for nothing from now on.
    """

    ASSIGN = "assign"
    CONFIRM = "confirm"  # was this attempt handed to the node? if not, do it now
    CANCEL = "cancel"
    FAILED = "failed"  # a cancellation that counts as the node's failure
    LEFT = "left"  # the node went and may come back: look later
    CONTROL = "control"
    INSTANCE = "instance"  # drain, or resume, the instance itself
    RESULT = "result"
    PARTIAL = "partial"
    MOVED = "moved"
    REPLAY = "replay"
    REVOKED = "revoked"
