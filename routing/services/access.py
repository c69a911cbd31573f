"""Who may open a socket, and who may open another one.

`Access` judges credentials, once a handshake. `Gate` counts open sockets, and closes those that
say nothing. Not promised: a limit on handshakes a second; the proxy in front has that.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from routing.domain.credentials import NodeGrant, Presented, SessionGrant
from routing.domain.errors import NotAuthorized
from routing.domain.limits import Limits
from routing.services.node_keys import NodeKeys
from routing.services.session_tokens import SessionTokens

OPEN = "open"


@dataclass(frozen=True, slots=True)
class Access:
    """`open` lets everyone in, and looks at nothing; `required` asks for credentials."""

    node_auth: str
    session_auth: str
    node_keys: NodeKeys
    session_tokens: SessionTokens

    async def admit_node(self, shown: Presented) -> NodeGrant | None:
        """What a node may do; None for anything. Raises NotAuthorized, StoreUnavailable."""
        if self.node_auth == OPEN:
            return None
        grant = await self.node_keys.grant(_secret(shown, "SCHED_NODE_AUTH"))
        if grant is None:
            raise NotAuthorized(
                "the credential is unknown, expired or revoked; an operator issues another one"
            )
        return grant

    def admit_session(self, shown: Presented) -> SessionGrant | None:
        """What a session may do; None for anything. Raises NotAuthorized."""
        if self.session_auth == OPEN:
            return None
        return self.session_tokens.verify(_secret(shown, "SCHED_SESSION_AUTH"))


def _secret(shown: Presented, setting: str) -> str:
    if shown.in_address:
        raise NotAuthorized(
            "credentials in an address end up in logs: revoke this one, and send the next one as"
            " 'Authorization: Bearer ...' or as the subprotocol 'bearer....'"
        )
    if shown.secret is None:
        raise NotAuthorized(
            f"this scheduler requires credentials ({setting} is 'required') and none were given;"
            " send 'Authorization: Bearer ...', or the subprotocol 'bearer....'"
        )
    return shown.secret


class Gated(Protocol):
    """An open socket."""

    def silence(self, now_ms: int, limits: Limits) -> str | None:
        """Why it has been silent for too long; None when it has not."""

    def close(self, code: int, reason: str) -> None: ...


SILENT = 4408
"""`routing.domain.errors.CloseCode` has them all."""


class Gate:
    """Counts the open sockets of this process, by address."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._sockets: set[Gated] = set()
        self._by_address: Counter[str] = Counter()
        self.refused = 0
        self.hasty = 0

    def enter(self, socket: Gated, address: str) -> str | None:
        """Let a socket in; why not, where it may not. `leave` is to be called either way."""
        limits = self.limits
        self._sockets.add(socket)
        self._by_address[address] += 1
        if 0 < limits.sockets_per_process < len(self._sockets):
            return "this instance has as many sockets as it may have; try another one, or later"
        if 0 < limits.sockets_per_address < self._by_address[address]:
            return "your address has as many sockets open here as it may have; close some"
        return None

    def leave(self, socket: Gated, address: str) -> None:
        self._sockets.discard(socket)
        self._by_address[address] -= 1
        if self._by_address[address] <= 0:
            del self._by_address[address]

    def sweep(self, now_ms: int) -> None:
        """Close what has been silent for too long."""
        for socket in list(self._sockets):
            why = socket.silence(now_ms, self.limits)
            if why is not None:
                socket.close(SILENT, why)
