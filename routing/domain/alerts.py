"""When an operator should look: values in, alerts out.

`breaches` says what is beyond its threshold now; `settle` lets a breach become an alert when it has
lasted as long as its rule wants, so that what passes by itself wakes nobody. The same thresholds
stand in docs/prometheus-rules.yml, for those who have a Prometheus.

Not promised: that nothing is wrong where there is no alert. A reading that nobody takes is judged
by no rule.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum

import msgspec

from routing.domain.queueing import queue_in_words


class Severity(StrEnum):
    """How soon to look: at once, or today."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class AlertRules:
    """Thresholds, and in `_for_ms` how long they must be passed. Raises ValueError below zero."""

    window_ms: int = 600_000
    no_leader_for_ms: int = 15_000
    no_instance_for_ms: int = 15_000
    pools_differ_for_ms: int = 15_000
    sync_delay_ms: int = 10_000
    sync_delay_for_ms: int = 5_000
    leader_changes: int = 3
    queue_standing_ms: int = 30_000
    error_percent: float = 5.0
    error_sample: int = 20
    error_for_ms: int = 30_000
    dead_letters: int = 0
    flaps: int = 5
    leaked_slots: int = 2
    leaked_slots_for_ms: int = 60_000

    def __post_init__(self) -> None:
        for threshold in fields(self):
            if getattr(self, threshold.name) < 0:
                raise ValueError(f"{threshold.name} must not be negative")


@dataclass(frozen=True, slots=True)
class InstanceReading:
    """One instance. `leaked` are reservations on its nodes that no attempt there accounts for."""

    id: str
    pools: int
    pool_version: int
    index_digest: str
    sync_delay_ms: int
    leaked: int


@dataclass(frozen=True, slots=True)
class Readings:
    """The cluster at one moment. Counts of what happened are those within the rules' window.

    `queues` maps each queue that has jobs to how long it has had some without a break, in ms;
    `connections` a node to how often it connected. None stands for what nobody measures.
    """

    leader: bool
    instances: Sequence[InstanceReading]
    leader_changes: int = 0
    queues: Mapping[str, int] = field(default_factory=dict)
    attempts_ended: int = 0
    attempts_failed: int = 0
    dead_letters: int | None = None
    connections: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Breach:
    """Something is beyond its threshold. `key` is the same for as long as it is the same thing."""

    rule: str
    subject: str
    severity: Severity
    sentence: str
    cure: str
    lasting_ms: int = 0

    @property
    def key(self) -> str:
        return f"{self.rule}:{self.subject}"


class Alert(msgspec.Struct, frozen=True):
    """A breach that lasts. `since_ms` is wall time where it was noticed."""

    rule: str
    subject: str
    severity: Severity
    sentence: str
    cure: str
    since_ms: int


def breaches(now: Readings, rules: AlertRules) -> list[Breach]:
    """All that is beyond a threshold, the critical first."""
    found = [
        *_leadership(now, rules),
        *_instances(now, rules),
        *_work(now, rules),
        *_nodes(now, rules),
    ]
    return sorted(found, key=lambda breach: breach.severity is not Severity.CRITICAL)


def settle(
    since: Mapping[str, int], found: Sequence[Breach], *, now_ms: int
) -> tuple[dict[str, int], tuple[Alert, ...]]:
    """Since when each breach lasts, and those that have lasted as long as their rule wants."""
    lasting = {breach.key: since.get(breach.key, now_ms) for breach in found}
    alerts = tuple(
        Alert(
            breach.rule,
            breach.subject,
            breach.severity,
            breach.sentence,
            breach.cure,
            lasting[breach.key],
        )
        for breach in found
        if now_ms - lasting[breach.key] >= breach.lasting_ms
    )
    return lasting, alerts


def _leadership(now: Readings, rules: AlertRules) -> Iterator[Breach]:
    if not now.leader:
        yield Breach(
            "no leader",
            "cluster",
            Severity.CRITICAL,
            "Nobody leads: work goes on, but pools do not follow the nodes.",
            "Look at the logs of the candidates for 'loop waits for the store'; start an instance,"
            " or a run_leader_loop, if none is there.",
            rules.no_leader_for_ms,
        )
    if now.leader_changes > rules.leader_changes:
        yield Breach(
            "leader changes",
            "cluster",
            Severity.WARNING,
            f"The leader changed {now.leader_changes} times in"
            f" {_minutes(rules.window_ms)} minutes.",
            "Look for 'leader demoted' in the logs: a slow store or a blocked event loop loses"
            " leases. SCHED_LEADER_TTL_MS may be too short.",
        )


def _instances(now: Readings, rules: AlertRules) -> Iterator[Breach]:
    if not now.instances:
        yield Breach(
            "no instance",
            "cluster",
            Severity.CRITICAL,
            "No instance serves: nodes and sessions cannot connect.",
            "Start one: daphne -p 8000 schedsite.asgi:application",
            rules.no_instance_for_ms,
        )
    if len({(i.pools, i.pool_version, i.index_digest) for i in now.instances}) > 1:
        yield Breach(
            "pools differ",
            "cluster",
            Severity.WARNING,
            f"Instances hold different pools: {_by_pools(now.instances)}.",
            "Compare SCHED_REDIS_URL, SCHED_REDIS_KEY_PREFIX and the pool settings of the"
            " instances; for a moment after a change it is normal.",
            rules.pools_differ_for_ms,
        )
    for instance in now.instances:
        if instance.sync_delay_ms > rules.sync_delay_ms:
            yield Breach(
                "sync delay",
                instance.id,
                Severity.WARNING,
                f"{instance.id} saw the nodes {instance.sync_delay_ms / 1000:.0f} s ago last.",
                "It cannot reach the store, or its event loop is blocked: see its /readyz and"
                " sched_loop_lag_seconds.",
                rules.sync_delay_for_ms,
            )


def _work(now: Readings, rules: AlertRules) -> Iterator[Breach]:
    for queue, standing_ms in sorted(now.queues.items()):
        if standing_ms > rules.queue_standing_ms:
            yield Breach(
                "queue age",
                queue,
                Severity.WARNING,
                f"Jobs of {queue_in_words(queue)} have waited for {standing_ms / 1000:.0f} s"
                " without a break.",
                "The queues page says why its nodes are passed over; add nodes for the pair.",
            )
    if now.attempts_ended >= max(rules.error_sample, 1):
        percent = 100 * now.attempts_failed / now.attempts_ended
        if percent > rules.error_percent:
            yield Breach(
                "error rate",
                "cluster",
                Severity.WARNING,
                f"{percent:.0f} % of {now.attempts_ended} attempts failed in"
                f" {_minutes(rules.window_ms)} minutes.",
                "Sort the nodes by failures; drain those that fail.",
                rules.error_for_ms,
            )
    if now.dead_letters is not None and now.dead_letters > rules.dead_letters:
        yield Breach(
            "dead letters",
            "cluster",
            Severity.WARNING,
            f"{now.dead_letters} in the dead letters: work that nobody could do.",
            "Read why they failed, then replay or drop them.",
        )


def _nodes(now: Readings, rules: AlertRules) -> Iterator[Breach]:
    for node_id, times in sorted(now.connections.items()):
        if times > rules.flaps:
            yield Breach(
                "node flapping",
                node_id,
                Severity.WARNING,
                f"Node {node_id} connected {times} times in {_minutes(rules.window_ms)} minutes.",
                "Look at the network between them, and whether two agents use this id (4409).",
            )
    for instance in now.instances:
        if instance.leaked > rules.leaked_slots:
            yield Breach(
                "slots leaking",
                instance.id,
                Severity.WARNING,
                f"{instance.leaked} slots of nodes at {instance.id} are held by no attempt.",
                "They run out by themselves within SCHED_JOB_TIMEOUT_MS and 5 s; if they stay,"
                " report it with the instance's log.",
                rules.leaked_slots_for_ms,
            )


def _by_pools(instances: Sequence[InstanceReading]) -> str:
    return ", ".join(f"{i.id} {i.pools} (version {i.pool_version})" for i in instances)


def _minutes(ms: int) -> str:
    return f"{ms / 60_000:g}"
