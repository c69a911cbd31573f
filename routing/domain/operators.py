"""Who acts on the cluster, and what is kept of it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Source(StrEnum):
    """Which way an action came."""

    API = "api"
    ADMIN = "admin"
    COMMAND = "command"
    PAGE = "page"


@dataclass(frozen=True, slots=True)
class Operator:
    """A person, or a program with a token. `address` is where from, as far as is known."""

    name: str
    source: Source
    address: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """It was done, or is on its way. `sentence` says what, for people.

    `facts`, here and below, are more for the audit log: how it was before, and is after.
    """

    subject: str
    sentence: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AlreadySo:
    """It was so before, and is so still."""

    subject: str
    sentence: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotFound:
    """There is nobody to do it to; nothing was done."""

    subject: str
    sentence: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotNow:
    """It cannot be done as things are; nothing was done."""

    subject: str
    sentence: str
    facts: dict[str, str] = field(default_factory=dict)


ActionOutcome = Done | AlreadySo | NotFound | NotNow

OUTCOME_WORDS = {Done: "done", AlreadySo: "already so", NotFound: "not found", NotNow: "not now"}
"""What the API answers and the audit log keeps; a failure is kept as "failed"."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One action and its outcome, as the audit log keeps it."""

    operator: Operator
    action: str
    subject: str
    outcome: str
    detail: dict[str, Any]
