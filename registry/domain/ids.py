"""Identifiers: their shape, and how new ones are made from given randomness.

An id becomes part of a Redis key inside a hash tag, so braces, blanks and control characters are
refused at the door. Nothing here promises that an id is unique; 80 random bits make it so.
"""

import re

from registry.domain.errors import InvalidIdentifier

MAX_LENGTH = 128
_SHAPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")
_HOST_JUNK = re.compile(r"[^A-Za-z0-9.-]+")


def check_identifier(value: str, *, what: str) -> str:
    """Return `value` when it may be part of a key, else raise InvalidIdentifier."""
    if _SHAPE.fullmatch(value) is None:
        raise InvalidIdentifier(
            f"{what} must be 1 to {MAX_LENGTH} letters, digits, '.', '_', ':', '@' or '-',"
            " starting with a letter or digit"
        )
    return value


def instance_id(*, host: str, pid: int, token: str) -> str:
    """Name one scheduler process, e.g. `gpu-3-4711-9f2c01`."""
    clean = _HOST_JUNK.sub("-", host).strip("-.")[:60] or "host"
    return f"{clean}-{pid}-{token}"


def node_id(token: str) -> str:
    """Name a node that registered without an id of its own."""
    return f"node-{token}"


def session_id(token: str) -> str:
    """Name a new session."""
    return f"s-{token}"


def job_id(session: str, utterance_index: int) -> str:
    """Name the job of one utterance: derived, so that sending it twice names it once."""
    return f"{session}:{utterance_index}"


def split_job_id(job: str) -> tuple[str, int]:
    """Return (session id, utterance index); raises InvalidIdentifier when it is not a job id."""
    session, _, index = job.rpartition(":")
    if not session or _INDEX.fullmatch(index) is None:
        raise InvalidIdentifier("a job id is a session id, a colon and an utterance index")
    return check_identifier(session, what="session id"), int(index)
