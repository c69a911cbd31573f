"""Who acts on the cluster, and what is kept of it."""

from dataclasses import dataclass
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
class AuditRecord:
    """One action and its outcome, as the audit log keeps it."""

    operator: Operator
    action: str
    subject: str
    outcome: str
    detail: dict[str, Any]
