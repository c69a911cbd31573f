"""What dispatch needs from outside, as protocols.

Every store method may raise `StoreUnavailable`. Redis and memory both implement them, and one
contract suite holds both to the same behaviour.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Protocol

from routing.domain.credentials import NodeGrant
from routing.domain.figures import Figures
from routing.domain.letters import Burial, DeadLetter, Position, ReplayNote
from routing.domain.operators import AuditRecord
from routing.domain.outcome import (
    Acceptance,
    Again,
    Brief,
    Envelope,
    Exhausted,
    Fault,
    Finished,
    Glance,
    JournalEntry,
    Reservation,
    Resumed,
    ResumeRefused,
    Share,
    Stale,
    StoredJob,
    StoredSession,
)
from routing.domain.queueing import Flow, FlowNews, Lease, Pull, QueueFull, Standing


class JobStore(Protocol):
    """Jobs, under their session's tag."""

    async def accept(
        self,
        job_id: str,
        *,
        attempt: int,
        node_id: str,
        brief: Brief,
        payload: bytes,
        life_ms: int,
        sent_seq: int = 0,
        decision: bytes = b"",
    ) -> Acceptance:
        """Write the job once, assigned to a node (attempt 1) or queued (attempt 0).

        The session's next terminal message comes after `sent_seq`, whatever the store remembers.
        `decision` is a JSON object of why, kept with the job.
        """

    async def withdraw(self, job_id: str, *, attempt: int) -> bool: ...

    async def assign(
        self, job_id: str, *, expected: int, attempt: int, node_id: str, decision: bytes = b""
    ) -> bool:
        """Give an attempt to a node; False when the job ended or another attempt is current.

        A `decision` is added to those that the job has.
        """

    async def claim(
        self, job_id: str, *, attempt: int, node_id: str, decision: bytes = b""
    ) -> StoredJob | None:
        """Give a queued job's attempt to a node, and read the job.

        None when it is not queued, or waits for another attempt. One without attempts waits for
        its first. `decision` says why this node.
        """

    async def queue(self, job_id: str, *, attempt: int) -> bool: ...

    async def start(self, job_id: str, *, attempt: int) -> None: ...

    async def fail_attempt(
        self,
        job_id: str,
        *,
        attempt: int,
        max_attempts: int,
        reason: str,
        node_id: str = "",
        fault: Fault | None = None,
    ) -> Again | Exhausted | Stale:
        """End an attempt once; repeated for the last one, it is exhausted still.

        With `node_id` only if the attempt is that node's. A `fault` is kept in the history.
        """

    async def take_back(self, job_id: str, *, attempt: int, node_id: str) -> bool:
        """Make an attempt current again that its node still works on.

        Only while the next one was given to nobody, and its failure was no word of the node's.
        True also where it was current all the time.
        """

    async def finish(
        self, job_id: str, *, attempt: int, node_id: str, state: str, body: bytes
    ) -> Finished | Stale:
        """End the job with its terminal message.

        A node's word counts for its own current attempt only. The scheduler itself passes no
        node_id, and attempt 0 for whichever is current.
        """

    async def file(self, job_id: str, *, state: str, brief: Brief, body: bytes) -> int | None:
        """End a job that the store does not know, as message `seq` of its session.

        None where the store knows the job, or not even its session.
        """

    async def get(self, job_id: str) -> StoredJob | None: ...

    async def glance(self, job_id: str) -> Glance | None:
        """Where a job stands, without what it carries."""


class SessionStore(Protocol):
    """Sessions and their outboxes."""

    async def open(
        self, session_id: str, *, instance_id: str, token_hash: str, init: bytes
    ) -> bool: ...

    async def resume(
        self, session_id: str, *, instance_id: str, token_hash: str
    ) -> Resumed | ResumeRefused: ...

    async def close(self, session_id: str) -> list[str]:
        """Close the session for good; returns its unfinished jobs."""

    async def settle(
        self, session_id: str, *, base: int, entries: Sequence[JournalEntry], token: str
    ) -> int | None:
        """File what was sent while the store was away, from `base` + 1 on; once per `token`.

        What had ended in the store after `base`, unseen by the client, moves behind it. Returns
        the last seq; None where the store knows no such session.
        """

    async def restore(
        self,
        session_id: str,
        *,
        instance_id: str,
        token_hash: str,
        init: bytes,
        epoch: int,
        seq: int,
    ) -> bool:
        """Write a session again that the store has lost; False when it is known.

        Either way its next terminal message comes after `seq`.
        """

    async def touch(self, session_id: str) -> None:
        """Prolong the life of a session that is connected but idle."""

    async def watch(self, session_id: str, *, instance_id: str) -> None:
        """Note that a process minds the session's deadlines, for whoever sweeps up after it."""

    async def unwatch(self, session_id: str, *, instance_id: str) -> None:
        """That process does so no longer."""

    async def watched(self, instance_id: str) -> list[str]:
        """The sessions that a process minds."""

    async def get(self, session_id: str) -> StoredSession | None:
        """The session as it stands, closed or not."""

    async def open_jobs(self, session_id: str) -> list[str]: ...

    async def outbox(self, session_id: str, *, after: int) -> list[tuple[int, bytes]]:
        """Terminal messages with a higher seq, in order."""

    async def trim(self, session_id: str, *, upto: int) -> None: ...


class SlotStore(Protocol):
    """Reservations, under their node's tag."""

    async def reserve(
        self,
        node_id: str,
        *,
        job_id: str,
        attempt: int,
        lease_ms: int,
        ceiling: int | None = None,
    ) -> Reservation:
        """Hold a slot for an attempt, once, if the node has one free.

        With a `ceiling`, only if it holds no more reservations than that: else `Busier`.
        """

    async def release(self, node_id: str, *, job_id: str, attempt: int) -> int:
        """Free the slot if this attempt holds it; returns how many are held still."""

    async def held(self, node_id: str) -> list[tuple[str, int]]:
        """(job id, attempt) of each unexpired reservation."""


class ShareStore(Protocol):
    """Tenants' unfinished jobs, under their tenant's tag."""

    async def hold(self, tenant: str, *, job_id: str, life_ms: int, limit: int) -> Share: ...

    async def release(self, tenant: str, *, job_id: str) -> None: ...


class QueueStore(Protocol):
    """Jobs that wait for a slot, by flow."""

    async def put(
        self,
        flow: Flow,
        *,
        member: str,
        accepted_ms: int,
        limit: int | None = None,
        weights: Mapping[str, int] | None = None,
    ) -> QueueFull | None:
        """Let an attempt of a job wait in its flow; None when it does, from now on or already.

        With a limit it may be refused; see `routing.domain.queueing.may_queue`.
        """

    async def pull(
        self, flows: Sequence[Flow], *, weights: Mapping[str, int], count: int, lease_ms: int
    ) -> Pull:
        """Take up to `count` jobs, each under a lease of `lease_ms`.

        The highest priority first, then the tenant that had the least service for its weight
        while others waited, then the oldest; of equal ones the flow that is named first.
        """

    async def settle(self, lease: Lease) -> None:
        """The pulled job is in good hands, or in a flow again: its lease is over."""

    async def give_back(self, lease: Lease) -> bool:
        """Put a pulled job back into its place; False when its lease is over."""

    async def leave(self, flow: Flow, *, member: str) -> bool: ...

    async def standing(self) -> Standing:
        """Which flows wait, and which leases have run out."""

    async def oldest(self, flows: Sequence[Flow]) -> list[int | None]:
        """How many ms ago each flow's first job was accepted, by the server's time.

        None where nothing waits.
        """

    async def news(self, since: str, *, within_ms: int) -> tuple[str, list[FlowNews]]:
        """Flows that began to wait or are empty, after a position; waits up to `within_ms`.

        Returns the position reached. Not promised: what is more than a thousand news ago.
        """


class TenantStore(Protocol):
    """What operators gave tenants."""

    async def weights(self) -> dict[str, int]: ...


class InboxStore(Protocol):
    """Commands between instances."""

    async def open(self) -> None:
        """Make this instance's inbox."""

    async def close(self) -> bool:
        """Remove it if it is empty; what others send from then on tells them that we are gone."""

    async def send(self, instance_id: str, envelope: Envelope) -> bool:
        """Put a command into an inbox; False when that instance has none."""

    def receive(self) -> AsyncIterator[list[tuple[str, Envelope]]]:
        """Batches of commands, each with the token that `done` takes; empty ones now and then.

        Begins with what a former reader took and did not acknowledge. Ends once it is closed.
        """

    async def done(self, tokens: Sequence[str]) -> None:
        """Acknowledge commands that were handed over, and drop them."""

    async def left_by(self, instance_id: str) -> list[tuple[str, Envelope]]:
        """Commands in the inbox of an instance that is gone, each with the token for `clear`."""

    async def clear(self, instance_id: str, tokens: Sequence[str]) -> bool:
        """Drop these from that inbox, and the inbox too if none is left: True then."""


class DeadLetterStore(Protocol):
    """Dead letters, under the tag of the instance that buried them."""

    async def bury(self, letter: DeadLetter, *, payload: bytes) -> Burial:
        """Add a letter to this instance's, once, whoever has it; the oldest ones make way."""

    async def instances(self) -> list[str]:
        """Who may have letters, by id; also those that are gone."""

    async def read(
        self, instance_id: str, *, before: str, count: int
    ) -> list[tuple[Position, DeadLetter]]:
        """An instance's letters, newest first, those below the entry `before`; '' for all."""

    async def count(self, instance_id: str) -> int:
        """How many letters an instance has, at the cost of one short command."""

    async def get(self, letter_id: str) -> tuple[DeadLetter, bytes] | None:
        """A letter and its payload, wherever it lies."""

    async def drop(self, letter_id: str) -> bool:
        """Remove a letter wherever it lies; False when there is none."""

    async def trim(self, instance_id: str) -> Burial:
        """Remove an instance's letters that are too old, or too many, the oldest first."""

    async def forget(self, instance_id: str) -> None:
        """Name an instance no more that is gone and has no letters."""

    async def note_replay(self, session_id: str, note: ReplayNote) -> None:
        """Keep with a replay's session whose replay it is, for as long as its job may take."""

    async def replay_note(self, session_id: str) -> ReplayNote | None: ...


class FigureStore(Protocol):
    """Each process's figures, for all to see."""

    async def post(self, figures: Figures) -> list[Figures]:
        """File one's own; returns those of all that posted lately, by id."""


class AuditLog(Protocol):
    """What operators did, kept for people to read; nothing in it is ever changed."""

    async def record(self, record: AuditRecord) -> None: ...


class OperatorTokens(Protocol):
    """The credentials of operators' programs."""

    async def holder(self, token: str) -> str | None:
        """Whom to name in the audit log; None unless the token is good now."""

    async def issue(self, *, user: str, name: str, days: int | None) -> str | None:
        """A new token of a staff user, shown this once; None when there is no such user."""


class NodeCredentials(Protocol):
    """What nodes come in by."""

    async def find(self, secret: str) -> NodeGrant | None:
        """What a secret is good for; None unless it is good now. Notes that it was used."""

    async def bound(self, node_id: str) -> bool:
        """Whether the id has a good credential of its own."""

    async def good(self, key_ids: Iterable[int]) -> set[int]:
        """Those of them that are good now."""

    async def issue(self, *, node_id: str | None, name: str, days: int | None, by: str) -> str:
        """A new one, shown this once; for any node id where that is None."""

    async def revoke(self, begins_with: str) -> list[tuple[int, str]]:
        """Revoke those with exactly this prefix; returns id and name of those that were good."""
