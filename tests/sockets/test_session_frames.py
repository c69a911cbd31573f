"""What sessions may send and what they are told when they should not have, over a real daphne."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.sockets.conftest import LARGEST_FRAME
from tests.support.agents import Frame, Node, Peer, Session, translating
from tests.support.cluster import Instance
from tests.support.malformed import MALFORMED, is_a_sentence
from tests.support.waiting import eventually

HUGE = 10**400
INIT: Frame = {
    "type": "session_init",
    "client_version": "1.0.0",
    "platform": "web",
    "src_lang": "zh",
    "tgt_lang": "en",
}


async def is_refused(peer: Peer, code: str, *, nth: int = 1) -> Frame:
    """The nth error, which must have this code and a sentence, and is no job's end."""
    error = await peer.expect("error", nth=nth)
    assert error["code"] == code, error
    assert is_a_sentence(error), error
    assert "seq" not in error
    return error


async def still_opens(peer: Peer) -> Frame:
    await peer.send(INIT)
    ack = await peer.expect("session_init_ack")
    assert ack["resumed"] is False
    assert ack["session_id"]
    return ack


async def still_beats(session: Session) -> None:
    before = sum(frame["type"] == "server_heartbeat" for frame in session.frames)
    await session.send(of(session, "client_heartbeat", timestamp=0))
    await session.expect("server_heartbeat", nth=before + 1, session_id=session.session_id)


def of(session: Session, kind: str, **fields: Any) -> Frame:
    return {"type": kind, "session_id": session.session_id, **fields}


def errors(peer: Peer) -> list[Frame]:
    return [frame for frame in peer.frames if frame["type"] == "error"]


def speaking(instance: Instance, pair: str, **more: Any) -> Session:
    return Session(instance.session_url, *pair.split("-"), **more)


async def serves(instance: Instance, pair: str) -> None:
    def members() -> bool:
        return any(p["name"] == pair and p["nodes"] for p in instance.state().get("pools", []))

    await eventually(members, what=f"a node in {pair}")


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_frame_is_answered_and_the_socket_works_on(
    instance: Instance, name: str
) -> None:
    async with Peer(instance.session_url) as peer:
        await peer.send(MALFORMED[name])
        await is_refused(peer, "INVALID_MESSAGE")
        await still_opens(peer)
        assert len(errors(peer)) == 1


UTTERANCE: Frame = {
    "utterance_index": 0,
    "manual_cut": False,
    "src_lang": "zh",
    "tgt_lang": "en",
    "audio": "UklGRg==",
    "audio_format": "wav",
    "sample_rate": 16000,
}
GOOD: dict[str, Frame] = {
    "utterance": UTTERANCE,
    "utterance_cancel": {"utterance_index": 0},
    "result_ack": {"seq": 1},
    "client_heartbeat": {"timestamp": 0},
    "session_close": {"reason": "done"},
}
ID = (None, 7, "", [], {}, True)
COUNT = ("1", -1, 1.5, None, HUGE, 2**53)
LANGUAGE = (None, 1, "", "z h", "*", "zh\n", "中文", "x" * 100, [])
WRONG: dict[str, dict[str, tuple[Any, ...]]] = {
    "session_init": {
        "client_version": (None, 1, "v" * 1000),
        "platform": (None, [], {}),
        "src_lang": LANGUAGE,
        "tgt_lang": LANGUAGE,
        "tenant_id": (1, "t" * 1000),
        "mode": (1,),
        "features": ([], "x"),
        "trace_id": (1, "t" * 1000),
        "resume": (
            "s-1",
            [],
            {},
            {"session_id": "s-1"},
            {"session_id": "s-1", "token": "", "last_seq": 0},
            {"session_id": "s-1", "token": "t", "last_seq": -1},
            {"session_id": 1, "token": "t", "last_seq": 0},
        ),
    },
    "utterance": {
        "session_id": ID,
        "utterance_index": COUNT,
        "manual_cut": (None, "no", 0),
        "src_lang": LANGUAGE,
        "tgt_lang": LANGUAGE,
        "audio": (None, 1, [], {}, True),
        "audio_format": (None, 1),
        "sample_rate": ("16000", 0, -1, None, HUGE),
        "priority": (-1, 10, "5", 1.5, HUGE),
        "deadline_ms": (0, -1, "100", 10**9),
        "trace_id": (1, []),
    },
    "utterance_cancel": {"session_id": ID, "utterance_index": COUNT},
    "result_ack": {"session_id": ID, "seq": COUNT},
    "client_heartbeat": {"session_id": ID, "timestamp": ("now", None, 1.5)},
    "session_close": {"session_id": ID, "reason": (1, [], "r" * 1000)},
}
OPTIONAL = {"tenant_id", "mode", "features", "trace_id", "resume", "priority", "deadline_ms"}
OPTIONAL |= {"reason"}


@pytest.mark.parametrize("kind", WRONG)
async def test_a_missing_or_wrong_field_is_named_and_the_socket_works_on(
    instance: Instance, kind: str
) -> None:
    async with speaking(instance, "zh-en") as session:
        good = INIT if kind == "session_init" else of(session, kind, **GOOD[kind])
        bad = [
            (field, {k: v for k, v in good.items() if k != field})
            for field in set(WRONG[kind]) - OPTIONAL
        ]
        bad += [(field, good | {field: v}) for field, values in WRONG[kind].items() for v in values]
        for number, (field, frame) in enumerate(bad, start=1):
            await session.send(frame)
            error = await is_refused(session, "INVALID_MESSAGE", nth=number)
            assert field in error["message"], (frame, error)
        await still_beats(session)
        assert len(errors(session)) == len(bad)


@pytest.mark.parametrize("kind", GOOD)
async def test_nothing_is_taken_before_session_init(instance: Instance, kind: str) -> None:
    async with Peer(instance.session_url) as peer:
        await peer.send({"type": kind, "session_id": "s-1", **GOOD[kind]})
        error = await is_refused(peer, "INVALID_SESSION")
        assert "session_init" in error["message"]
        await still_opens(peer)


@pytest.mark.parametrize("kind", GOOD)
async def test_a_frame_for_another_session_is_refused(instance: Instance, kind: str) -> None:
    async with speaking(instance, "zh-en") as other, speaking(instance, "zh-en") as session:
        await session.send(of(other, kind, **GOOD[kind]))
        error = await is_refused(session, "INVALID_SESSION")
        assert other.session_id in error["message"]
        await still_beats(session)
        await still_beats(other)
        assert errors(other) == []


async def test_a_socket_holds_one_session(instance: Instance) -> None:
    async with speaking(instance, "zh-en") as session:
        await session.send(INIT)
        error = await is_refused(session, "INVALID_SESSION")
        assert session.session_id in error["message"]
        await still_beats(session)


async def test_unknown_fields_null_bytes_and_repeated_keys_do_no_harm(
    instance: Instance, node_id: str, pair: str
) -> None:
    odd = {"nested": [{"a": None}], "nul": "\x00", "big": 10**40, "é": "語"}
    async with (
        Node(instance.node_url, node_id, pair) as node,
        speaking(instance, pair, tenant_id="a\x00b", odd=odd) as session,
    ):
        await serves(instance, pair)
        src, tgt = pair.split("-")
        await session.send(
            f'{{"type": "utterance", "session_id": "{session.session_id}", "utterance_index": 9,'
            f' "manual_cut": false, "src_lang": "{src}", "tgt_lang": "{tgt}", "audio": "a\\u0000b",'
            f' "audio_format": "wav", "sample_rate": 8000, "trace_id": "\\u0000", "x": {HUGE},'
            f' "utterance_index": 3, "job_id": "mine", "attempt_id": 77, "seq": 5, "y": 1e999}}'
        )
        ack = await session.expect("utterance_ack", utterance_index=3)
        job = await node.expect("job_assign", job_id=ack["job_id"])
        assert (job["attempt_id"], job["utterance_index"]) == (1, 3)
        assert (job["audio"], job["trace_id"], job["x"]) == ("a\x00b", "\x00", HUGE)
        await node.finish(job)
        terminal = await session.translated(3)
        assert (terminal["seq"], terminal["tts_audio"]) == (1, "a\x00b")


# Resuming.


@asynccontextmanager
async def resumed(session: Session, *, last_seq: int | None = None) -> AsyncIterator[Session]:
    again = await session.resume_at(session.url, last_seq=last_seq)
    try:
        yield again
    finally:
        await again.close()


def resuming(session_id: str, token: str, last_seq: int = 0) -> Frame:
    resume = {"session_id": session_id, "token": token, "last_seq": last_seq}
    return INIT | {"resume": resume}


async def test_a_wrong_token_is_refused_and_the_session_stays_where_it_is(
    instance: Instance,
) -> None:
    async with speaking(instance, "zh-en") as session, Peer(instance.session_url) as thief:
        await thief.send(resuming(session.session_id, "not the token"))
        await is_refused(thief, "UNAUTHORIZED")
        await still_beats(session)
        await still_opens(thief)
        assert session.close_code is None


@pytest.mark.parametrize("session_id", ["s-never-was", "{s}", "s 1", "s\x00", "é", "s" * 200])
async def test_an_unknown_session_is_not_resumed(instance: Instance, session_id: str) -> None:
    async with Peer(instance.session_url) as peer:
        await peer.send(resuming(session_id, "token"))
        await is_refused(peer, "INVALID_SESSION")
        await still_opens(peer)


async def test_resuming_sends_again_what_was_missed_and_closes_the_old_socket(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with (
        Node(instance.node_url, node_id, pair, answer=translating(node_id)),
        speaking(instance, pair) as session,
    ):
        await serves(instance, pair)
        for index in range(3):
            await session.say(index)
            await session.translated(index)
        async with resumed(session, last_seq=1) as again:
            assert await session.closed() == 4409
            await again.translated(2)
            assert [frame["seq"] for frame in again.terminals] == [2, 3]
            await still_beats(again)


@pytest.mark.parametrize("last_seq", [0, 1, 999])
async def test_after_resuming_on_the_same_instance_results_come_to_the_new_socket(
    instance: Instance, node_id: str, pair: str, last_seq: int
) -> None:
    async with (
        Node(instance.node_url, node_id, pair, answer=translating(node_id)),
        speaking(instance, pair) as session,
    ):
        await serves(instance, pair)
        await session.say(0)
        await session.translated(0)
        async with resumed(session, last_seq=last_seq) as again, asyncio.timeout(3):
            assert await session.closed() == 4409
            await again.say(1)
            assert (await again.translated(1))["seq"] == 2


# Acknowledging.


async def test_a_result_ack_beyond_what_was_sent_loses_nothing(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with (
        Node(instance.node_url, node_id, pair, answer=translating(node_id)),
        speaking(instance, pair) as session,
    ):
        await serves(instance, pair)
        await session.say(0)
        await session.translated(0)
        for seq in (999, 2**53 - 1, 0):
            await session.send(of(session, "result_ack", seq=seq))
        await still_beats(session)
        await session.say(1)
        assert (await session.translated(1))["seq"] == 2
        async with resumed(session, last_seq=1) as again:
            assert (await again.translated(1))["seq"] == 2
        assert errors(session) == []


# Cancelling and closing.


async def test_a_cancelled_utterance_ends_once_and_its_late_result_changes_nothing(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with (
        Node(instance.node_url, node_id, pair, slots=1) as node,
        speaking(instance, pair) as session,
    ):
        await serves(instance, pair)
        await session.say(0)
        job = await node.expect("job_assign")
        await session.send(of(session, "utterance_cancel", utterance_index=0))
        terminal = await session.terminal(0)
        assert (terminal["type"], terminal["code"], terminal["seq"]) == (
            "error",
            "JOB_CANCELLED",
            1,
        )
        assert terminal["job_id"] == job["job_id"]
        assert is_a_sentence(terminal)
        await node.expect("job_cancel", job_id=job["job_id"])
        await session.send(of(session, "utterance_cancel", utterance_index=0))
        await node.finish(job)
        # The slot is free again, and the sequence goes on.
        await session.say(1)
        await node.finish(await node.expect("job_assign", utterance_index=1))
        assert (await session.translated(1))["seq"] == 2
        assert len(session.terminals) == 2


async def test_a_waiting_utterance_can_be_cancelled(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with (
        Node(instance.node_url, node_id, pair, slots=1) as node,
        speaking(instance, pair) as session,
    ):
        await serves(instance, pair)
        for index in range(3):
            await session.say(index)
            await session.expect("utterance_ack", utterance_index=index)
        await session.send(of(session, "utterance_cancel", utterance_index=1))
        assert (await session.terminal(1))["code"] == "JOB_CANCELLED"
        for index in (0, 2):
            await node.finish(await node.expect("job_assign", utterance_index=index))
            await session.translated(index)
        assert [job["utterance_index"] for job in node.jobs] == [0, 2]
        assert [frame["seq"] for frame in session.terminals] == [1, 2, 3]


async def test_cancelling_what_never_was_or_has_ended_says_nothing(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with (
        Node(instance.node_url, node_id, pair, answer=translating(node_id)),
        speaking(instance, pair) as session,
    ):
        await serves(instance, pair)
        await session.say(0)
        await session.translated(0)
        for index in (0, 7, 2**53 - 1):
            await session.send(of(session, "utterance_cancel", utterance_index=index))
        await still_beats(session)
        assert len(session.terminals) == 1
        assert errors(session) == []


async def test_session_close_is_acknowledged_and_cancels_what_is_open(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with (
        Node(instance.node_url, node_id, pair, slots=1) as node,
        speaking(instance, pair) as session,
    ):
        await serves(instance, pair)
        for index in range(2):
            await session.say(index)
            await session.expect("utterance_ack", utterance_index=index)
        job = await node.expect("job_assign")
        await session.send(of(session, "session_close", reason="done"))
        await session.expect("session_close_ack", session_id=session.session_id)
        assert await session.closed() == 1000
        await node.expect("job_cancel", job_id=job["job_id"])
        assert [frame["code"] for frame in session.terminals] == ["JOB_CANCELLED"] * 2
        async with Peer(instance.session_url) as peer:
            await peer.send(resuming(session.session_id, session.resume_token))
            await is_refused(peer, "INVALID_SESSION")
        async with speaking(instance, pair) as other:
            await other.say(0)
            other_job = await node.expect("job_assign", session_id=other.session_id)
            await node.finish(other_job)
            await other.translated(0)
        assert len(node.jobs) == 2


# What cannot go on.


async def test_a_frame_that_is_too_large_closes_the_socket_and_the_session_may_resume(
    instance: Instance,
) -> None:
    async with speaking(instance, "zh-en") as session:
        await session.send(of(session, "utterance", **UTTERANCE | {"audio": "x" * LARGEST_FRAME}))
        error = await is_refused(session, "MESSAGE_TOO_LARGE")
        assert str(LARGEST_FRAME) in error["message"]
        assert await session.closed() == 1009
        async with resumed(session) as again:
            await still_beats(again)


async def test_broken_utf8_ends_that_socket_only(instance: Instance) -> None:
    async with speaking(instance, "zh-en") as session, Peer(instance.session_url) as peer:
        assert peer._socket is not None
        await peer._socket.send(b'"\xc3\x28"', text=True)
        await peer.closed()
        assert peer.frames == []
        await still_beats(session)


async def test_a_session_without_credentials_is_refused_and_closed(locked: Instance) -> None:
    async with Peer(locked.session_url) as peer:
        error = await is_refused(peer, "UNAUTHORIZED")
        assert "SCHED_SESSION_AUTH" in error["message"]
        assert await peer.closed() == 4401
        assert len(peer.frames) == 1
