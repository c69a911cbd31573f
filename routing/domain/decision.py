"""Why an attempt of a job was given to its node: a record of what the choice saw.

It is encoded once, rides in the write that gives the job to the node, and is read again only when
someone asks. Candidates are arrays, as a job may have a dozen in each decision.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from routing.domain.selection import Candidate


class Considered(Struct, frozen=True, gc=False, array_like=True):
    """A candidate as it was compared; `reserved` counts what was on its way there, too."""

    id: str
    reserved: int
    slots: int
    degraded: bool
    failures: int
    load_step: int
    near: bool
    avoided: bool


class Asked(Struct, frozen=True, gc=False, array_like=True):
    """A candidate that did not give a slot: it was `busier` than thought, `full` or `gone`."""

    id: str
    answer: str


class Decision(Struct, frozen=True, omit_defaults=True):
    """One decision. Without a `node`, the job was to wait.

    `waited`: the job stood in the queue before, or then. `filtered`: not all nodes of the pool
    support the pair. `passed_over` counts those among the nodes looked at that could not be tried.
    """

    attempt: int
    pool: str = ""
    filtered: bool = False
    node: str = ""
    waited: bool = False
    candidates: list[Considered] = []
    passed_over: dict[str, int] = {}
    asked: list[Asked] = []


def considered(node: Candidate) -> Considered:
    snapshot = node.snapshot
    return Considered(
        snapshot.node_id,
        node.reserved + node.pending,
        snapshot.max_concurrent_jobs,
        node.degraded,
        node.failures,
        node.load_step,
        node.near,
        node.avoided,
    )


_encoder = msgspec.json.Encoder()
encode = _encoder.encode


def latest(stored: Iterable[Mapping[str, Any]]) -> list[Decision]:
    """The decision of each attempt, out of all that a job has.

    Within an attempt the last one counts: the job waited in between, or a node that was named
    first turned out to be busier.
    """
    found: dict[int, Decision] = {}
    for entry in stored:
        decision = msgspec.convert(entry, Decision)
        before = found.get(decision.attempt)
        if before is not None and before.waited and not decision.waited:
            decision = msgspec.structs.replace(decision, waited=True)
        found[decision.attempt] = decision
    return [found[attempt] for attempt in sorted(found)]
