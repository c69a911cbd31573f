"""Who gets in where, over real sockets of two instances that want credentials from everyone."""

import asyncio
import itertools
import time

import jwt
import pytest

from tests.sockets.access import credential, token
from tests.sockets.conftest import SESSION_KEYS, Instances
from tests.support.agents import Frame, Node, Peer, Session, registration, translating
from tests.support.cluster import Instance
from tests.support.malformed import is_a_sentence
from tests.support.waiting import eventually

INIT: Frame = {
    "type": "session_init",
    "client_version": "1",
    "platform": "web",
    "src_lang": "zh",
    "tgt_lang": "en",
}


async def is_put_out(peer: Peer) -> Frame:
    """UNAUTHORIZED in words, then 4401."""
    error = await peer.expect("error", code="UNAUTHORIZED")
    assert is_a_sentence(error)
    assert await peer.closed() == 4401
    return error


def bearing(url: str, secret: str | None, *, subprotocols: tuple[str, ...] = ()) -> Peer:
    peer = Peer(url)
    peer.credential, peer.subprotocols = secret, list(subprotocols)
    return peer


# Nodes.


async def test_a_node_comes_in_by_its_credential(instances: Instances, node_id: str) -> None:
    secret = await credential(instances.cluster, node_id)
    async with Node.bearing(secret, instances.locked.node_url, node_id, "zh-en") as node:
        assert node.close_code is None


async def test_a_node_may_present_it_as_a_subprotocol(instances: Instances, node_id: str) -> None:
    secret = await credential(instances.cluster, node_id)
    for offered, chosen in (
        ([f"bearer.{secret}"], f"bearer.{secret}"),
        (["scheduler.v1", f"bearer.{secret}"], "scheduler.v1"),
    ):
        peer = bearing(instances.locked.node_url, None, subprotocols=tuple(offered))
        async with peer:
            assert peer.subprotocol == chosen
            await peer.send(registration(node_id, "zh-en"))
            await peer.expect("node_register_ack")


async def test_a_node_without_an_id_is_given_its_credentials(
    instances: Instances, node_id: str
) -> None:
    secret = await credential(instances.cluster, node_id)
    async with bearing(instances.locked.node_url, secret) as peer:
        await peer.send(registration(None, "zh-en"))
        assert (await peer.expect("node_register_ack"))["node_id"] == node_id


async def test_a_node_can_only_speak_as_itself(instances: Instances, node_id: str) -> None:
    secret = await credential(instances.cluster, node_id)
    async with bearing(instances.locked.node_url, secret) as peer:
        await peer.send(registration(f"{node_id}-other", "zh-en"))
        error = await is_put_out(peer)
        assert node_id in error["message"]
    assert f"{node_id}-other" not in instances.locked.log


async def test_a_credential_for_any_node_is_not_good_for_one_that_has_its_own(
    instances: Instances, node_id: str
) -> None:
    cluster = instances.cluster
    secret = await credential(cluster, "--any", "--name=fleet")
    await credential(cluster, node_id)
    async with Node.bearing(secret, instances.locked.node_url, f"{node_id}-new", "zh-en"):
        pass
    async with bearing(instances.locked.node_url, secret) as peer:
        await peer.send(registration(node_id, "zh-en"))
        await is_put_out(peer)


@pytest.mark.parametrize(
    "secret",
    ["node_" + "A" * 43, "node_", "sched_" + "A" * 43, "x" * 3000, "Bearer", "\N{SNOWMAN}"],
)
async def test_a_forged_node_credential_is_refused(instances: Instances, secret: str) -> None:
    if not secret.isascii():
        secret = secret.encode().decode("latin-1")
    async with bearing(instances.locked.node_url, secret) as peer:
        await is_put_out(peer)


async def test_a_credential_in_the_address_is_refused(instances: Instances, node_id: str) -> None:
    secret = await credential(instances.cluster, node_id)
    url = f"{instances.locked.node_url}?token={secret}"
    async with bearing(url, secret) as peer:
        error = await is_put_out(peer)
        assert "logs" in error["message"]
    assert secret not in instances.locked.log


async def test_a_session_token_is_no_node_credential_and_the_other_way_round(
    instances: Instances, node_id: str
) -> None:
    async with bearing(instances.locked.node_url, token(SESSION_KEYS)) as peer:
        await is_put_out(peer)
    secret = await credential(instances.cluster, node_id)
    async with bearing(instances.locked.session_url, secret) as peer:
        await is_put_out(peer)


async def test_a_revoked_credential_closes_the_live_socket_on_whichever_instance(
    instances: Instances, node_id: str
) -> None:
    cluster = instances.cluster
    old = await credential(cluster, node_id, "--name=old")
    new = await credential(cluster, node_id, "--name=new")
    here = Node.bearing(old, instances.locked.node_url, f"{node_id}", "zh-en")
    async with here:
        done = await asyncio.to_thread(
            cluster.run, "revoke_node_credential", old[:13], SCHED_REDIS_KEY_PREFIX="locked"
        )
        revoked_s = time.monotonic()
        assert done.returncode == 0, done.stderr
        assert await here.closed() == 4401
        assert time.monotonic() - revoked_s < 1
        assert (await here.expect("error"))["code"] == "UNAUTHORIZED"
    async with bearing(instances.locked.node_url, old) as again:
        await is_put_out(again)
    # Rotation: the other credential of the same node is good still.
    async with Node.bearing(new, instances.locked.node_url, node_id, "zh-en"):
        pass


# Sessions.


async def test_a_session_comes_in_by_a_token_and_works(
    instances: Instances, node_id: str, pair: str
) -> None:
    secret = await credential(instances.cluster, node_id)
    node = Node.bearing(
        secret, instances.locked.node_url, node_id, pair, answer=translating(node_id)
    )
    session = Session.bearing(
        token(SESSION_KEYS), instances.locked_too.session_url, *pair.split("-")
    )
    async with node, session:
        said = itertools.count()
        await eventually(lambda: _is_taken(session, next(said)), what="a pool of the pair")
        assert [frame["type"] for frame in session.terminals] == ["translation_result"]


async def _is_taken(session: Session, index: int) -> bool:
    await session.say(index)
    if (await session.answered(index))["type"] == "error":
        return False
    await session.translated(index)
    return True


@pytest.mark.parametrize("key_id", ["k1", "k2"])
async def test_a_token_of_any_key_is_good(instances: Instances, key_id: str) -> None:
    async with Session.bearing(
        token(SESSION_KEYS, key_id=key_id), instances.locked.session_url, "zh", "en"
    ):
        pass


async def test_a_browser_presents_its_token_as_a_subprotocol(instances: Instances) -> None:
    offered = ("scheduler.v1", f"bearer.{token(SESSION_KEYS)}")
    async with bearing(instances.locked.session_url, None, subprotocols=offered) as peer:
        assert peer.subprotocol == "scheduler.v1"
        await peer.send(INIT)
        await peer.expect("session_init_ack")


def unsigned(**header: str) -> str:
    body = {"tenant": "acme", "aud": "scheduler-session", "exp": int(time.time()) + 60}
    return jwt.encode(body, "", algorithm="none", headers={"kid": "k1", **header})


BAD_TOKENS = {
    "expired": lambda: token(SESSION_KEYS, exp=int(time.time()) - 60),
    "of another audience": lambda: token(SESSION_KEYS, aud="somebody-else"),
    "without audience": lambda: token(SESSION_KEYS, aud=None),
    "without end": lambda: token(SESSION_KEYS, exp=None),
    "good for years": lambda: token(SESSION_KEYS, exp=int(time.time()) + 10**8),
    "end beyond all time": lambda: token(SESSION_KEYS, exp=10**30),
    "without tenant": lambda: token(SESSION_KEYS, tenant=None),
    "tenant no text": lambda: token(SESSION_KEYS, tenant=["acme"]),
    "tenant half a character": lambda: token(SESSION_KEYS, tenant="a\ud800"),
    "tenant empty": lambda: token(SESSION_KEYS, tenant=""),
    "pairs no list": lambda: token(SESSION_KEYS, pairs="zh-en"),
    "limits no object": lambda: token(SESSION_KEYS, limits=[1]),
    "rate no number": lambda: token(SESSION_KEYS, limits={"rate": "9"}),
    "of another key": lambda: token("k1:" + "x" * 40),
    "of an unknown key": lambda: token("k9:" + "x" * 40),
    "unsigned": unsigned,
    "cut": lambda: token(SESSION_KEYS)[:-4],
    "no token": lambda: "a.b.c",
    "empty parts": lambda: "..",
    "very long": lambda: "e" * 5_000,
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_bad_session_token_is_refused(instances: Instances, name: str) -> None:
    async with bearing(instances.locked.session_url, BAD_TOKENS[name]()) as peer:
        await is_put_out(peer)


async def test_the_tenant_of_the_token_wins(instances: Instances) -> None:
    url = instances.locked.session_url
    async with Session.bearing(token(SESSION_KEYS, "acme"), url, "zh", "en", tenant_id="acme"):
        pass
    async with bearing(url, token(SESSION_KEYS, "acme")) as peer:
        await peer.send(INIT | {"tenant_id": "umbrella"})
        await is_put_out(peer)


async def test_a_session_is_resumed_only_by_its_own_tenant(instances: Instances) -> None:
    url = instances.locked.session_url
    async with Session.bearing(token(SESSION_KEYS, "acme"), url, "zh", "en") as session:
        resume = {"session_id": session.session_id, "token": session.resume_token, "last_seq": 0}
        async with bearing(url, token(SESSION_KEYS, "umbrella")) as thief:
            await thief.send(INIT | {"resume": resume})
            await thief.expect("error", code="UNAUTHORIZED")
        assert session.close_code is None
        async with bearing(instances.locked_too.session_url, token(SESSION_KEYS, "acme")) as peer:
            await peer.send(INIT | {"resume": resume})
            assert (await peer.expect("session_init_ack"))["resumed"] is True
            assert await session.closed() == 4409


async def test_a_token_allows_only_its_pairs(instances: Instances) -> None:
    allowed = token(SESSION_KEYS, pairs=["zh-en", "*-de"])
    async with Session.bearing(allowed, instances.locked.session_url, "zh", "en") as session:
        await session.say(0, src_lang="zh", tgt_lang="fr")
        error = await session.expect("error", code="UNAUTHORIZED", utterance_index=0)
        assert "seq" not in error
        await session.say(1, src_lang="fr", tgt_lang="de")
        await session.expect("error", code="NO_AVAILABLE_NODE", utterance_index=1)
        assert session.close_code is None


async def test_a_tokens_rate_holds_for_its_socket(instances: Instances) -> None:
    slow = token(SESSION_KEYS, limits={"rate": 2})
    async with Session.bearing(slow, instances.locked.session_url, "zh", "en") as session:
        beat = {"type": "client_heartbeat", "session_id": session.session_id, "timestamp": 0}
        for _ in range(6):
            await session.send(beat)
        error = await session.expect("error", code="RATE_LIMITED")
        assert 0 < error["details"]["retry_after_ms"] <= 500
        assert session.close_code is None
        for _ in range(20):
            await session.send(beat)
        assert await session.closed() == 4429


# The open instance.


async def test_where_everyone_may_come_in_a_credential_does_no_harm(instance: Instance) -> None:
    async with Session.bearing("whatever", instance.session_url, "zh", "en"):
        pass
