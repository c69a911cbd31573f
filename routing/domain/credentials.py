"""What a peer presented at its handshake, and what that lets it do.

Not promised: that a grant is still good. Whoever holds one hears of its end from `NodeKeys`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

PROTOCOL = "scheduler.v1"
"""Offered beside `bearer.<secret>`, it spares the answer from repeating the secret."""

BEARER = "bearer."
LONGEST_SECRET = 4_096
SHORTEST_KEY = 32
_IN_ADDRESS = re.compile(
    rb"(?:^|&)(?:token|access_token|key|api_key|authorization)=", re.IGNORECASE
)
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, repr=False)
class Presented:
    """The secret of a handshake, if there was one, and the subprotocol to answer with.

    It has no `repr`, so that no log shows it.
    """

    secret: str | None = None
    subprotocol: str | None = None
    in_address: bool = False


def presented(
    headers: Iterable[tuple[bytes, bytes]], subprotocols: Sequence[str], query: bytes
) -> Presented:
    """Read `Authorization: Bearer ...`, or else the subprotocol `bearer.<secret>`.

    A browser closes a socket whose server chooses none of the subprotocols that it offered.
    """
    offered = next((word for word in subprotocols if word.startswith(BEARER)), None)
    chosen = PROTOCOL if PROTOCOL in subprotocols else offered
    secret = _header(headers) or (offered or "").removeprefix(BEARER)
    return Presented(secret or None, chosen, _IN_ADDRESS.search(query) is not None)


def _header(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        scheme, _, rest = value.partition(b" ")
        if name.lower() == b"authorization" and scheme.lower() == b"bearer":
            return rest.decode("latin-1").strip()
    return None


@dataclass(frozen=True, slots=True)
class NodeGrant:
    """A node's credential: good for one node id, or, with None, for ids that have none."""

    key_id: int
    name: str
    node_id: str | None
    expires_at_ms: int | None = None

    def has_ended(self, wall_ms: int) -> bool:
        return self.expires_at_ms is not None and self.expires_at_ms <= wall_ms


@dataclass(frozen=True, slots=True)
class SessionGrant:
    """What a session's token says: whose it is, and what it may do. None is no limit."""

    tenant: str
    languages: frozenset[str] | None = None
    pairs: frozenset[str] | None = None
    rate: int | None = None
    in_flight: int | None = None

    def allows(self, src: str, tgt: str) -> bool:
        """Whether this pair may be translated; `*` in a pair stands for any language."""
        if self.languages is not None and not {src, tgt} <= self.languages:
            return False
        wanted = {f"{src}-{tgt}", f"*-{tgt}", f"{src}-*", "*-*"}
        return self.pairs is None or not wanted.isdisjoint(self.pairs)


@dataclass(frozen=True, slots=True, repr=False)
class SessionKeys:
    """The keys that sign sessions' tokens, by their ids. The first one signs, all are good."""

    keys: Mapping[str, str]

    @property
    def signing(self) -> str | None:
        """The id of the key that signs; None where there is no key at all."""
        return next(iter(self.keys), None)


def session_keys(text: str) -> SessionKeys:
    """Read "kid1:secret,kid2:secret"; raises ValueError with a sentence that tells no secret."""
    keys: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        key_id, colon, secret = entry.partition(":")
        if not colon or _KEY_ID.fullmatch(key_id) is None or key_id in keys:
            raise ValueError(
                f"SCHED_SESSION_KEYS, entry {len(keys) + 1}: an entry is KEY_ID:SECRET, the id of"
                " 1 to 64 letters, digits, '.', '_' or '-', each id once, with commas between"
            )
        if len(secret.encode()) < SHORTEST_KEY:
            raise ValueError(
                f"SCHED_SESSION_KEYS: the secret of '{key_id}' is shorter than {SHORTEST_KEY}"
                ' bytes; make one with: python -c "import secrets;'
                ' print(secrets.token_urlsafe(48))"'
            )
        keys[key_id] = secret
    return SessionKeys(keys)
