"""Nodes' credentials as instances use them: looked up once a handshake, ended when revoked.

A good answer is kept for a minute, a bad one for a few seconds, both under the secret's hash.
While the database is away a known one stays good for `GRACE_MS`; an unknown one cannot be judged.
Whoever revokes tells every instance through its inbox; what got lost on the way is found by
`recheck`, which asks the database about those that are in use here.

Not promised: that a socket ends with its credential while the database is away and the word of it
was lost.
"""

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from registry.domain.errors import StoreUnavailable
from registry.services.ports import Clock
from routing.domain.credentials import LONGEST_SECRET, NodeGrant
from routing.domain.outcome import Envelope, EnvelopeKind
from routing.services.delivery import Delivery
from routing.services.ports import NodeCredentials

log = structlog.get_logger(__name__)

GOOD_MS, BAD_MS, GRACE_MS = 60_000, 5_000, 600_000
RECHECK_MS = 5_000
MOST_KEPT = 20_000


class Expellable(Protocol):
    """A socket that can be put out."""

    def expel(self, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Answer:
    grant: NodeGrant | None
    at_ms: int


class NodeKeys:
    """The credentials of the nodes that come to this instance."""

    def __init__(
        self, store: NodeCredentials, delivery: Delivery, *, clock: Clock, wall: Clock
    ) -> None:
        self._store = store
        self._clock = clock
        self._wall = wall
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._bound: OrderedDict[str, tuple[bool, int]] = OrderedDict()
        self._links: defaultdict[int, set[Expellable]] = defaultdict(set)
        self._grants: dict[int, NodeGrant] = {}
        delivery.on(EnvelopeKind.REVOKED, self._on_revoked)

    async def grant(self, secret: str) -> NodeGrant | None:
        """What a secret is good for now; None when for nothing. Raises StoreUnavailable."""
        if len(secret) > LONGEST_SECRET:
            return None
        name = hashlib.sha256(secret.encode()).hexdigest()
        known = self._answers.get(name)
        if known is None or self._is_old(known):
            known = await self._look_up(name, secret, known)
        grant = known.grant
        return None if grant is None or grant.has_ended(self._wall()) else grant

    async def speaks_as(self, grant: NodeGrant, node_id: str) -> bool:
        """Whether a node may register under this id. Raises StoreUnavailable.

        A credential for any id is not good for one that has a credential of its own.
        """
        if grant.node_id is not None:
            return grant.node_id == node_id
        known = self._bound.get(node_id)
        if known is None or self._clock() - known[1] >= GOOD_MS:
            try:
                known = (await self._store.bound(node_id), self._clock())
            except StoreUnavailable:
                if known is None or self._clock() - known[1] >= GRACE_MS:
                    raise
            _keep(self._bound, node_id, known)
        return not known[0]

    def attach(self, grant: NodeGrant, link: Expellable) -> None:
        """A socket came in by this credential."""
        self._grants[grant.key_id] = grant
        self._links[grant.key_id].add(link)

    def detach(self, grant: NodeGrant, link: Expellable) -> None:
        links = self._links[grant.key_id]
        links.discard(link)
        if not links:
            del self._links[grant.key_id]
            self._grants.pop(grant.key_id, None)

    def end(self, key_ids: Iterable[int], *, why: str = "the credential was revoked") -> None:
        """These are good for nothing from now on: forget them, and close their sockets."""
        ended = set(key_ids)
        for name, answer in list(self._answers.items()):
            if answer.grant is not None and answer.grant.key_id in ended:
                del self._answers[name]
        for link in [link for key_id in ended for link in self._links.get(key_id, ())]:
            link.expel(why)

    async def recheck(self) -> None:
        """Ask the database which of the credentials in use here are good still."""
        now_ms = self._wall()
        self.end(
            [key_id for key_id, grant in self._grants.items() if grant.has_ended(now_ms)],
            why="the credential has expired",
        )
        kept = {a.grant.key_id for a in self._answers.values() if a.grant is not None}
        asked = kept | set(self._grants)
        if asked:
            self.end(asked - await self._store.good(asked))

    async def _on_revoked(self, envelope: Envelope) -> None:
        self.end([envelope.number])

    def _is_old(self, answer: _Answer) -> bool:
        life_ms = BAD_MS if answer.grant is None else GOOD_MS
        return self._clock() - answer.at_ms >= life_ms

    async def _look_up(self, name: str, secret: str, known: _Answer | None) -> _Answer:
        try:
            found = _Answer(await self._store.find(secret), self._clock())
        except StoreUnavailable as error:
            if known is None or known.grant is None or self._clock() - known.at_ms >= GRACE_MS:
                raise
            log.warning("node let in by memory", credential=known.grant.name, reason=str(error))
            return known
        _keep(self._answers, name, found)
        return found


def _keep(kept: OrderedDict[str, Any], name: str, value: Any) -> None:
    """Keep an answer, and forget the oldest: whoever guesses must not fill our memory."""
    kept[name] = value
    kept.move_to_end(name)
    if len(kept) > MOST_KEPT:
        kept.popitem(last=False)
