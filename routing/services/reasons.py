"""Why a job went where it did, as operators are shown it: of real jobs and of rehearsed ones."""

from dataclasses import dataclass

from routing.domain.decision import Considered, Decision

WAITS = "queued"
REFUSED = "NO_AVAILABLE_NODE"
ASSIGNED = "accepted"


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is compared between two candidates, in this order; less is better, but near is best.

    `avoided` is a node that had failed this very job; `failures` are recent ones of attempts;
    `share` is the part of its slots that is reserved; `near` is the node of the session's last job,
    or, if it had none, one that is connected to the instance that chose; `load_step` is how busy
    the machine is, in quarters.
    """

    avoided: bool
    degraded: bool
    failures: int
    share: float
    near: bool
    load_step: int


@dataclass(frozen=True, slots=True)
class CandidateState:
    """A node that was compared. `reserved` counts reservations that were on their way, too.

    `answers` is what it said when it gave no slot: "busier" than it was believed, "full" or "gone".
    """

    id: str
    slots: int
    reserved: int
    full: bool
    pressure: Pressure
    answers: list[str]


@dataclass(frozen=True, slots=True)
class DecisionState:
    """One decision: the candidates in the order of preference, and the node that got the job.

    `outcome` is accepted, queued (all were full or passed over), or NO_AVAILABLE_NODE. `waited`: it
    stood in a queue. `passed_over` counts what kept others from being candidates, among the nodes
    that were looked at.
    """

    attempt: int
    outcome: str
    pool: str | None
    filtered: bool
    node: str | None
    waited: bool
    candidates: list[CandidateState]
    passed_over: dict[str, int]


def shown(decision: Decision) -> DecisionState:
    """A decision for people to read."""
    return DecisionState(
        attempt=decision.attempt,
        outcome=ASSIGNED if decision.node else WAITS,
        pool=decision.pool or None,
        filtered=decision.filtered,
        node=decision.node or None,
        waited=decision.waited,
        candidates=[_candidate(each, decision) for each in decision.candidates],
        passed_over=decision.passed_over,
    )


def refused() -> DecisionState:
    """What is shown where there is no plan."""
    return DecisionState(1, REFUSED, None, False, None, False, [], {})


def _candidate(each: Considered, decision: Decision) -> CandidateState:
    return CandidateState(
        id=each.id,
        slots=each.slots,
        reserved=each.reserved,
        full=each.reserved >= each.slots,
        pressure=Pressure(
            each.avoided,
            each.degraded,
            each.failures,
            each.reserved / each.slots,
            each.near,
            each.load_step,
        ),
        answers=[asked.answer for asked in decision.asked if asked.id == each.id],
    )
