"""How an instance uses nodes' credentials: seldom asked, never forgotten, ended when revoked."""

from collections.abc import Iterable
from typing import Any

import pytest

from registry.domain.errors import StoreUnavailable
from routing.domain.credentials import NodeGrant
from routing.domain.outcome import Envelope, EnvelopeKind
from routing.services import node_keys
from routing.services.delivery import Delivery
from routing.services.node_keys import BAD_MS, GOOD_MS, GRACE_MS, NodeKeys

SECRET = "node_secret"


class Database:
    """Credentials by their secrets, and how often it was asked."""

    def __init__(self) -> None:
        self.rows = {SECRET: NodeGrant(1, "gpu", "n1")}
        self.away = False
        self.asked = 0

    async def find(self, secret: str) -> NodeGrant | None:
        self._ask()
        return self.rows.get(secret)

    async def bound(self, node_id: str) -> bool:
        self._ask()
        return any(grant.node_id == node_id for grant in self.rows.values())

    async def good(self, key_ids: Iterable[int]) -> set[int]:
        self._ask()
        return {grant.key_id for grant in self.rows.values()} & set(key_ids)

    async def issue(self, **_: Any) -> str:
        raise NotImplementedError

    async def revoke(self, begins_with: str) -> list[tuple[int, str]]:
        raise NotImplementedError

    def _ask(self) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.asked += 1


class Link:
    def __init__(self) -> None:
        self.why = ""

    def expel(self, why: str) -> None:
        self.why = why


class Post:
    """The inbox store: only what is sent to oneself is used."""


class World:
    def __init__(self) -> None:
        self.now_ms = 0
        self.wall_ms = 10**12
        self.database = Database()
        self.delivery = Delivery(Post(), instance_id="me")  # type: ignore[arg-type]
        self.keys = NodeKeys(
            self.database, self.delivery, clock=lambda: self.now_ms, wall=lambda: self.wall_ms
        )

    async def admitted(self) -> tuple[NodeGrant, Link]:
        grant, link = await self.keys.grant(SECRET), Link()
        assert grant is not None
        self.keys.attach(grant, link)
        return grant, link


@pytest.fixture
def world() -> World:
    return World()


async def test_the_database_is_asked_once_a_minute(world: World) -> None:
    for _ in range(5):
        assert await world.keys.grant(SECRET) == NodeGrant(1, "gpu", "n1")
    assert world.database.asked == 1
    world.now_ms = GOOD_MS
    await world.keys.grant(SECRET)
    assert world.database.asked == 2


async def test_a_bad_one_is_remembered_too_but_not_for_long(world: World) -> None:
    for _ in range(5):
        assert await world.keys.grant("node_new") is None
    assert world.database.asked == 1
    world.database.rows["node_new"] = NodeGrant(2, "new", None)
    world.now_ms = BAD_MS
    assert await world.keys.grant("node_new") is not None


async def test_while_the_database_is_away_a_known_one_is_good_for_the_grace(world: World) -> None:
    await world.keys.grant(SECRET)
    world.database.away = True
    world.now_ms = GRACE_MS - 1
    assert await world.keys.grant(SECRET) is not None
    world.now_ms = GRACE_MS
    with pytest.raises(StoreUnavailable):
        await world.keys.grant(SECRET)


async def test_while_the_database_is_away_an_unknown_one_is_neither_good_nor_bad(
    world: World,
) -> None:
    assert await world.keys.grant("node_bad") is None
    world.database.away = True
    world.now_ms = BAD_MS
    for secret in ("node_bad", SECRET):
        with pytest.raises(StoreUnavailable):
            await world.keys.grant(secret)
    world.database.away = False
    assert await world.keys.grant(SECRET) is not None


async def test_one_that_expires_is_not_good_from_memory_either(world: World) -> None:
    world.database.rows[SECRET] = NodeGrant(1, "gpu", "n1", expires_at_ms=world.wall_ms + 10)
    _, link = await world.admitted()
    world.wall_ms += 10
    assert await world.keys.grant(SECRET) is None
    await world.keys.recheck()
    assert "expired" in link.why


async def test_the_word_that_it_is_revoked_closes_its_sockets_and_is_remembered(
    world: World,
) -> None:
    _, link = await world.admitted()
    other = Link()
    world.keys.attach(NodeGrant(2, "other", "n2"), other)
    del world.database.rows[SECRET]
    for _ in range(2):  # an envelope may come twice
        await world.delivery.send("me", Envelope(EnvelopeKind.REVOKED, "1", number=1))
        assert "revoked" in link.why
        assert await world.keys.grant(SECRET) is None
    assert other.why == ""


async def test_without_the_word_it_is_found_by_asking(world: World) -> None:
    _, link = await world.admitted()
    await world.keys.recheck()
    assert link.why == ""
    del world.database.rows[SECRET]
    await world.keys.recheck()
    assert "revoked" in link.why
    assert await world.keys.grant(SECRET) is None


async def test_a_look_up_that_was_overtaken_by_the_revocation_is_found_by_asking(
    world: World,
) -> None:
    """The word comes between the look-up and its answer: the answer is remembered after it."""
    grant = world.database.rows[SECRET]
    await world.delivery.send("me", Envelope(EnvelopeKind.REVOKED, "1", number=1))
    assert await world.keys.grant(SECRET) == grant
    link = Link()
    world.keys.attach(grant, link)
    del world.database.rows[SECRET]
    await world.keys.recheck()
    assert link.why


async def test_nothing_is_asked_when_nothing_is_in_use(world: World) -> None:
    await world.keys.recheck()
    assert world.database.asked == 0


async def test_a_socket_that_left_is_not_put_out(world: World) -> None:
    grant, link = await world.admitted()
    world.keys.detach(grant, link)
    world.keys.end([1])
    assert link.why == ""
    assert not world.keys._links
    assert not world.keys._grants


async def test_a_bound_one_speaks_as_its_node_only(world: World) -> None:
    bound = NodeGrant(1, "gpu", "n1")
    assert await world.keys.speaks_as(bound, "n1")
    assert not await world.keys.speaks_as(bound, "n2")


async def test_one_for_any_node_does_not_speak_as_one_that_has_its_own(world: World) -> None:
    fleet = NodeGrant(2, "fleet", None)
    assert await world.keys.speaks_as(fleet, "n2")
    assert not await world.keys.speaks_as(fleet, "n1")
    world.database.away = True
    world.now_ms = GRACE_MS - 1
    assert await world.keys.speaks_as(fleet, "n2")
    world.now_ms = GRACE_MS
    with pytest.raises(StoreUnavailable):
        await world.keys.speaks_as(fleet, "n2")


async def test_whoever_guesses_does_not_fill_the_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_keys, "MOST_KEPT", 100)
    for number in range(500):
        await world.keys.grant(f"node_{number}")
    assert len(world.keys._answers) == 100
    asked = world.database.asked
    assert await world.keys.grant("x" * 5_000) is None
    assert world.database.asked == asked


async def test_no_secret_is_kept_in_clear(world: World) -> None:
    await world.keys.grant(SECRET)
    assert SECRET not in repr(vars(world.keys))
