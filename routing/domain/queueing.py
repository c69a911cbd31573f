"""Where a job waits, and what a tenant may have of a queue.

Jobs that wait alike form a flow: one queue (a pool, a pair and labels), one tenant, one priority,
and the same nodes to keep away from. So what a node may take, and who goes first, is known from
names alone; within a flow the oldest goes first. Between flows the store decides, by priority,
then by how much service each tenant had for its weight, then by age.

The weights are those of tenants that wait side by side; a tenant without one counts 1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from registry.domain.ids import job_id, split_job_id
from routing.domain import labels
from routing.domain.outcome import Brief, StoredJob

NO_LABELS: Mapping[str, str] = {}
LABELS = "?"
"""Stands before the labels in a queue's name."""

DIGITS = 18
"""Of the highest utterance index."""

HIGHEST_WEIGHT = 100
DEFAULT_WEIGHT = 1


class Flow(NamedTuple):
    """Jobs that wait alike. `avoid`: nodes that failed them, comma-joined in order.

    `labels`, as `labels.encode` writes them, are what a node must have.
    """

    pool: str
    src: str
    tgt: str
    priority: int
    avoid: str
    tenant: str
    labels: str = ""

    @property
    def queue(self) -> str:
        return _queue(self.pool, self.src, self.tgt, self.labels)

    @property
    def wanted_labels(self) -> Mapping[str, str]:
        return labels.decode(self.labels) if self.labels else NO_LABELS

    @property
    def name(self) -> str:
        """Unambiguous: only the tenant, which comes last, may hold any character."""
        return f"{self.queue}|{self.priority}|{self.avoid}|{self.tenant}"

    @property
    def avoided(self) -> frozenset[str]:
        return frozenset(self.avoid.split(",")) if self.avoid else frozenset()


class Lease(NamedTuple):
    """A pulled job: it comes back to its flow unless the lease is settled in time."""

    job_id: str
    attempt: int
    accepted_ms: int
    flow: Flow

    @property
    def member(self) -> str:
        return member_of(self.job_id, self.attempt)

    @property
    def token(self) -> str:
        return f"{self.member}|{self.accepted_ms}|{self.flow.name}"


@dataclass(frozen=True, slots=True)
class QueueFull:
    """The pool's queue takes no more of this tenant now.

    `oldest_ms` is how long the first of its jobs in the same flow has waited; 0 where none waits.
    """

    waiting: int
    oldest_ms: int


@dataclass(frozen=True, slots=True)
class Pull:
    """Jobs taken out of their flows, and which of the flows asked for are empty now."""

    leases: list[Lease] = field(default_factory=list)
    empty: list[Flow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Standing:
    """All flows with waiting jobs, as of a position in the news; and leases that have run out."""

    position: str
    waiting: dict[Flow, int]
    overdue: list[Lease]


class FlowNews(NamedTuple):
    """A flow began to hold waiting jobs, or is empty."""

    flow: Flow
    waits: bool


def queue_of(pool: str, src: str, tgt: str, wanted: Mapping[str, str] = NO_LABELS) -> str:
    """The queue of a pair's jobs that were accepted for this pool, and ask for these labels."""
    return _queue(pool, src, tgt, labels.encode(wanted))


def _queue(pool: str, src: str, tgt: str, wanted: str) -> str:
    return f"{pool}|{src}>{tgt}{LABELS}{wanted}" if wanted else f"{pool}|{src}>{tgt}"


def queue_parts(queue: str) -> tuple[str, str, str, str]:
    """Pool, source, target and labels of a queue, out of its name."""
    pool, _, pair = queue.rpartition("|")
    pair, _, wanted = pair.partition(LABELS)
    src, _, tgt = pair.partition(">")
    return pool, src, tgt, wanted


def queue_in_words(queue: str) -> str:
    """A queue's name for people."""
    pool, src, tgt, wanted = queue_parts(queue)
    words = f"{src} to {tgt}"
    if wanted:
        words += f" with {labels.in_words(labels.decode(wanted))}"
    return f"{pool} ({words})" if pool not in ("", f"{src}-{tgt}") or wanted else words


def member_of(job: str, attempt: int) -> str:
    """What waits: the attempt that is to be given next, the first if none was yet.

    Jobs accepted in one millisecond go by this name, so a session's by their index.
    """
    session_id, index = split_job_id(job)
    return f"{session_id}:{index:0{DIGITS}}|{max(attempt, 1)}"


def flow_of(brief: Brief, *, failed_on: Iterable[str] = ()) -> Flow:
    """Where a job waits that failed on these nodes."""
    pool, src, tgt, wanted = queue_parts(brief.queue)
    avoid = ",".join(sorted(set(failed_on)))
    return Flow(pool, src, tgt, brief.priority, avoid, brief.tenant, wanted)


def flow_of_job(job: StoredJob) -> Flow:
    return flow_of(job.brief, failed_on=(str(entry["node"]) for entry in job.history))


def flow_named(name: str) -> Flow:
    """The flow of this name; raises ValueError when it is none."""
    pool, pair, priority, avoid, tenant = name.split("|", 4)
    _, src, tgt, wanted = queue_parts(pair)
    return Flow(pool, src, tgt, int(priority), avoid, tenant, wanted)


def lease_of(token: str) -> Lease:
    job, attempt, accepted_ms, name = token.split("|", 3)
    session_id, _, index = job.rpartition(":")
    job = job_id(session_id, int(index))
    return Lease(job, int(attempt), int(accepted_ms), flow_named(name))


def check_weight(weight: int, *, tenant: str) -> int:
    """Return `weight` when a tenant may have it, else raise ValueError."""
    if not 1 <= weight <= HIGHEST_WEIGHT:
        raise ValueError(
            f"SCHED_TENANT_WEIGHTS gives '{tenant}' a weight of {weight};"
            f" it must be from 1 to {HIGHEST_WEIGHT}"
        )
    return weight


def parse_weights(text: str) -> dict[str, int]:
    """Read "acme=3,beta=1"; raises ValueError with a sentence that names the setting."""
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        tenant, _, weight = (word.strip() for word in part.rpartition("="))
        if not tenant or not weight.isdecimal():
            raise ValueError(
                f"SCHED_TENANT_WEIGHTS has '{part}'; write tenants as in acme=3,beta=1"
            )
        if tenant in found:
            raise ValueError(f"SCHED_TENANT_WEIGHTS names '{tenant}' twice; leave one of them")
        found[tenant] = check_weight(int(weight), tenant=tenant)
    return found


def may_queue(
    tenant: str, waiting: Mapping[str, int], *, limit: int, weights: Mapping[str, int]
) -> bool:
    """Whether a pool's queue takes one more job of a tenant, given what waits in it by tenant.

    Below the limit anyone may, so a tenant alone may fill it. At the limit only who has less than
    its weighted share of it, so that a flood does not lock its neighbours out; at twice the limit
    nobody.
    """
    total = sum(waiting.values())
    if total < limit:
        return True
    mine = weights.get(tenant, DEFAULT_WEIGHT)
    others = sum(weights.get(name, DEFAULT_WEIGHT) for name in waiting if name != tenant)
    return total < 2 * limit and waiting.get(tenant, 0) * (mine + others) < limit * mine
