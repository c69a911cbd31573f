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


def because(decision: DecisionState) -> str:
    """Why this node rather than the next one, as a sentence."""
    if decision.outcome == REFUSED:
        return "No node supports it."
    if decision.node is None:
        return "Every node that was looked at was full or passed over, so it had to wait."
    if decision.waited and len(decision.candidates) == 1:
        return "It had waited in the queue, and this node had a slot free."
    chosen = next((each for each in decision.candidates if each.id == decision.node), None)
    others = [each for each in decision.candidates if each.id != decision.node]
    if chosen is None or not others:
        return "No other candidate was found."
    asked = [each for each in others if each.answers]
    if asked:
        told = ", ".join(f"{each.id} was {each.answers[-1]}" for each in asked)
        return f"Of those that were asked before it, {told}."
    return _against(chosen, others[0])


def _against(chosen: CandidateState, other: CandidateState) -> str:
    """What of the pressures, compared in their order, told the two apart."""
    mine, its = chosen.pressure, other.pressure
    if mine.avoided != its.avoided:
        return f"{other.id} had failed this very task."
    if mine.degraded != its.degraded:
        return f"{other.id} was degraded."
    if mine.failures != its.failures:
        return f"It had fewer failures lately: {mine.failures}, {other.id} {its.failures}."
    if mine.share != its.share:
        return f"Less of it was reserved: {mine.share:.0%}, of {other.id} {its.share:.0%}."
    if mine.near != its.near:
        return "It had the session's last task."
    if mine.load_step != its.load_step:
        return f"Its machine was less busy than that of {other.id}."
    return f"It and {other.id} were alike: the lot decided."


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
