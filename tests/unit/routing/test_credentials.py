"""What is presented at a handshake, what it allows, and the keys that sign."""

import pytest

from routing.domain.credentials import (
    PROTOCOL,
    NodeGrant,
    SessionGrant,
    presented,
    session_keys,
)

GOOD = "x" * 32


@pytest.mark.parametrize(
    ("headers", "subprotocols", "secret", "answer"),
    [
        ([], [], None, None),
        ([(b"authorization", b"Bearer abc")], [], "abc", None),
        ([(b"Authorization", b"bearer  abc ")], [], "abc", None),
        ([(b"authorization", b"Basic abc")], [], None, None),
        ([(b"authorization", b"Bearer")], [], None, None),
        ([], ["bearer.abc"], "abc", "bearer.abc"),
        ([], [PROTOCOL, "bearer.abc"], "abc", PROTOCOL),
        ([], ["bearer.abc", PROTOCOL], "abc", PROTOCOL),
        ([], ["graphql-ws"], None, None),
        ([], ["bearer."], None, "bearer."),
        ([(b"authorization", b"Bearer one")], ["bearer.two"], "one", "bearer.two"),
        ([(b"authorization", b"Bearer \xff")], [], "\xff", None),
    ],
)
def test_a_secret_is_read_from_the_header_or_else_from_a_subprotocol(
    headers: list[tuple[bytes, bytes]],
    subprotocols: list[str],
    secret: str | None,
    answer: str | None,
) -> None:
    shown = presented(headers, subprotocols, b"")
    assert (shown.secret, shown.subprotocol) == (secret, answer)
    assert not shown.in_address


@pytest.mark.parametrize("query", [b"token=x", b"a=1&TOKEN=x", b"access_token=x", b"key="])
def test_a_secret_in_the_address_is_noticed(query: bytes) -> None:
    assert presented([], [], query).in_address


def test_other_words_in_the_address_are_not_taken_for_one() -> None:
    assert not presented([], [], b"room=token&mytoken=1&v=2").in_address


def test_what_was_presented_is_never_shown() -> None:
    assert "abc" not in repr(presented([], ["bearer.abc"], b""))
    assert GOOD not in repr(session_keys(f"k1:{GOOD}"))


@pytest.mark.parametrize(
    ("grant", "src", "tgt", "allowed"),
    [
        (SessionGrant("t"), "zh", "en", True),
        (SessionGrant("t", pairs=frozenset({"zh-en"})), "zh", "en", True),
        (SessionGrant("t", pairs=frozenset({"zh-en"})), "en", "zh", False),
        (SessionGrant("t", pairs=frozenset({"zh-en"})), "auto", "en", False),
        (SessionGrant("t", pairs=frozenset({"*-en"})), "auto", "en", True),
        (SessionGrant("t", pairs=frozenset({"zh-*"})), "zh", "de", True),
        (SessionGrant("t", pairs=frozenset()), "zh", "en", False),
        (SessionGrant("t", languages=frozenset({"zh", "en"})), "en", "zh", True),
        (SessionGrant("t", languages=frozenset({"zh", "en"})), "auto", "en", False),
        (SessionGrant("t", languages=frozenset({"zh", "en"})), "zh", "de", False),
    ],
)
def test_a_grant_allows_what_it_names(
    grant: SessionGrant, src: str, tgt: str, allowed: bool
) -> None:
    assert grant.allows(src, tgt) is allowed


def test_a_grant_ends_at_its_time() -> None:
    assert not NodeGrant(1, "n", None).has_ended(10**15)
    assert not NodeGrant(1, "n", None, expires_at_ms=1_000).has_ended(999)
    assert NodeGrant(1, "n", None, expires_at_ms=1_000).has_ended(1_000)


def test_the_first_key_signs_and_all_are_good() -> None:
    keys = session_keys(f" new:{GOOD}n , old:{GOOD}o,")
    assert keys.signing == "new"
    assert list(keys.keys) == ["new", "old"]
    assert session_keys("").signing is None


@pytest.mark.parametrize(
    "text", [GOOD, f":{GOOD}", "k1:short", f"k1:{GOOD},k1:{GOOD}", f"k 1:{GOOD}", f"k1:{GOOD},x"]
)
def test_keys_that_cannot_be_are_refused_without_telling_them(text: str) -> None:
    with pytest.raises(ValueError, match="SCHED_SESSION_KEYS") as refused:
        session_keys(text)
    assert GOOD not in str(refused.value)
    assert "short'" not in str(refused.value)
