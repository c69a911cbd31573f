"""What nodes may send and what they are told when they should not have, over a real daphne."""

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.sockets.conftest import DEFAULT_LARGEST, LARGEST_FRAME
from tests.support.agents import Frame, Node, Peer, Session, heartbeat, registration, result
from tests.support.cluster import Instance
from tests.support.malformed import MALFORMED, is_a_sentence
from tests.support.waiting import eventually

HUGE = 10**400


async def is_refused(peer: Peer, code: str, *, nth: int = 1) -> Frame:
    """The nth error, which must have this code and a sentence."""
    error = await peer.expect("error", nth=nth)
    assert error["code"] == code, error
    assert is_a_sentence(error), error
    return error


async def still_registers(peer: Peer, node_id: str, pair: str) -> None:
    before = sum(frame["type"] == "node_register_ack" for frame in peer.frames)
    await peer.send(registration(node_id, pair))
    ack = await peer.expect("node_register_ack", nth=before + 1)
    assert (ack["node_id"], ack["status"]) == (node_id, "ready")


def errors(peer: Peer) -> list[Frame]:
    return [frame for frame in peer.frames if frame["type"] == "error"]


async def serves(instance: Instance, pair: str, nodes: int = 1) -> None:
    def members() -> bool:
        found = {pool["name"]: pool["nodes"] for pool in instance.state().get("pools", [])}
        return found.get(pair, 0) == nodes

    await eventually(members, what=f"{nodes} nodes in {pair}")


def speaking(instance: Instance, pair: str, **more: Any) -> Session:
    return Session(instance.session_url, *pair.split("-"), **more)


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_frame_is_answered_and_the_socket_works_on(
    instance: Instance, node_id: str, pair: str, name: str
) -> None:
    async with Peer(instance.node_url) as peer:
        await peer.send(MALFORMED[name])
        await is_refused(peer, "INVALID_MESSAGE")
        await still_registers(peer, node_id, pair)
        assert len(errors(peer)) == 1


JOB = {"job_id": "s-1:0", "session_id": "s-1"}
GOOD: dict[str, Frame] = {
    "node_register": registration("n", "zh-en"),
    "node_heartbeat": heartbeat("n", "zh-en"),
    "job_ack": {"node_id": "n", **JOB, "attempt_id": 1, "trace_id": "t"},
    "job_started": {"node_id": "n", **JOB, "attempt_id": 1, "trace_id": "t"},
    "asr_partial": {"node_id": "n", **JOB, "utterance_index": 0, "text": "a", "is_final": False},
    "job_result": {"node_id": "n", **JOB, "attempt_id": 1, "utterance_index": 0, "success": True},
    "node_error": {"node_id": "n", "code": "X", "message": "broke"},
}
ID = (None, 7, "", [], {}, True)
COUNT = ("1", -1, 1.5, None, HUGE, 2**53)
WRONG: dict[str, dict[str, tuple[Any, ...]]] = {
    "node_register": {
        "node_id": (7, [], {}, True),
        "version": (1, None, "v" * 1000),
        "platform": ([], None),
        "hardware": (
            "big",
            None,
            [],
            {},
            {"cpu_cores": "8", "memory_gb": 1},
            {"cpu_cores": 8},
            {"cpu_cores": 8, "memory_gb": 1, "gpus": "A"},
            {"cpu_cores": 8, "memory_gb": 1, "gpus": [{"name": "A"}]},
        ),
        "installed_models": ({}, None, "x"),
        "installed_services": ({}, "x"),
        "features_supported": ([], None, "x"),
        "accept_public_jobs": ("yes", 1, None),
        "max_concurrent_jobs": (0, -1, "4", 1.5, HUGE),
        "labels": ([], {"zone": 1}, {"zone": None}, {str(n): "" for n in range(65)}),
        "running_jobs": ("x", [{}], [{"job_id": "j", "attempt_id": 0}], [1]),
    },
    "node_heartbeat": {
        "node_id": ID,
        "timestamp": ("now", None, 1.5),
        "resource_usage": (
            None,
            [],
            {},
            {"cpu_percent": "5", "mem_percent": 5, "running_jobs": 0},
            {"cpu_percent": -1, "mem_percent": 5, "running_jobs": 0},
            {"cpu_percent": 5, "mem_percent": 5, "running_jobs": HUGE},
        ),
        "installed_services": ({}, "x"),
    },
    "job_ack": {"node_id": ID, "job_id": ID, "session_id": ID, "attempt_id": (*COUNT, 0)},
    "job_started": {"node_id": ID, "job_id": ID, "session_id": ID, "attempt_id": (*COUNT, 0)},
    "asr_partial": {
        "node_id": ID,
        "job_id": ID,
        "session_id": ID,
        "utterance_index": COUNT,
        "text": (None, 1, []),
        "is_final": (None, "no", 0),
        "trace_id": (1, []),
    },
    "job_result": {
        "node_id": ID,
        "job_id": ID,
        "session_id": ID,
        "attempt_id": (*COUNT, 0),
        "utterance_index": COUNT,
        "success": (None, "yes", 1),
        "text_asr": (1, []),
        "text_translated": (1, {}),
        "tts_audio": (1, [], {}, True),
        "tts_format": (1, []),
        "error": ("x", [], {}, {"code": "X"}, {"code": 1, "message": "m"}),
        "trace_id": (1, []),
    },
    "node_error": {"node_id": ID, "code": (None, 1), "message": (None, [])},
}
OPTIONAL = {
    "installed_services",
    "max_concurrent_jobs",
    "labels",
    "running_jobs",
    "trace_id",
    "text_asr",
    "text_translated",
    "tts_audio",
    "tts_format",
    "error",
}


@pytest.mark.parametrize("kind", GOOD)
async def test_a_missing_or_wrong_field_is_named_and_the_socket_works_on(
    instance: Instance, node_id: str, pair: str, kind: str
) -> None:
    good = GOOD[kind] | {"type": kind, "node_id": node_id}
    lacking = {f: {k: v for k, v in good.items() if k != f} for f in set(WRONG[kind]) - OPTIONAL}
    bad = [*lacking.items()]
    bad += [(field, good | {field: v}) for field, values in WRONG[kind].items() for v in values]
    async with Node(instance.node_url, node_id, pair) as node:
        for number, (field, frame) in enumerate(bad, start=1):
            await node.send(frame)
            error = await is_refused(node, "INVALID_MESSAGE", nth=number)
            assert field in error["message"], (frame, error)
        await still_registers(node, node_id, pair)
        assert len(errors(node)) == len(bad)


@pytest.mark.parametrize("kind", sorted(set(GOOD) - {"node_register"}))
async def test_nothing_is_taken_before_node_register(
    instance: Instance, node_id: str, pair: str, kind: str
) -> None:
    async with Peer(instance.node_url) as peer:
        await peer.send(GOOD[kind] | {"type": kind, "node_id": node_id})
        error = await is_refused(peer, "INVALID_MESSAGE")
        assert "node_register" in error["message"]
        await still_registers(peer, node_id, pair)


@pytest.mark.parametrize("kind", sorted(set(GOOD) - {"node_register"}))
async def test_a_frame_under_another_nodes_id_is_refused(
    instance: Instance, node_id: str, pair: str, kind: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as node:
        await node.send(GOOD[kind] | {"type": kind, "node_id": "somebody-else"})
        error = await is_refused(node, "INVALID_MESSAGE")
        assert "somebody-else" in error["message"]
        assert node_id in error["message"]
        await still_registers(node, node_id, pair)


async def test_unknown_fields_null_bytes_and_repeated_keys_do_no_harm(
    instance: Instance, node_id: str, pair: str
) -> None:
    frame = registration(node_id, pair, labels={"zone": "a\x00b"}, more={"deep": [[[1e300]]]})
    text = json.dumps(frame)[:-1] + f', "version": "1.0.1", "huge": {HUGE}}}'
    async with Peer(instance.node_url) as peer:
        await peer.send(text)
        await peer.expect("node_register_ack", node_id=node_id)
        known = json.loads(instance.get(f"/api/v1/nodes/{node_id}")[1])
        assert known["version"] == "1.0.1"
        assert known["labels"] == {"zone": "a\x00b"}


# Registration.


SCHEMAS = ["1.0", "2.1", "", 2.0, 2, None, True, [], {"major": 2}, ["2.0"]]
SERVICE = {"type": "asr", "ready": True}
BROKEN_CAPABILITIES: list[Frame] = [
    *({"capability_schema_version": version} for version in SCHEMAS),
    *(
        {"capability_by_type": services}
        for services in (
            [],
            None,
            "asr",
            {},
            [{}],
            ["asr"],
            [{"type": "asr"}],
            [{"ready": True}],
            [{"type": "video", "ready": True}],
            [{"type": "asr", "ready": "yes"}],
            [SERVICE | {"ready_impl_ids": [1]}],
            [SERVICE | {"reason": 1}],
            [SERVICE] * 300,
        )
    ),
    *(
        {"language_capabilities": languages}
        for languages in (
            "zh",
            [],
            7,
            {"supported_language_pairs": [{"src": "zh"}]},
            {"supported_language_pairs": [["zh", "en"]]},
            {"supported_language_pairs": [{"src": "*", "tgt": "en"}]},
            {"supported_language_pairs": [{"src": "zh", "tgt": "e n"}]},
            {"asr_languages": "zh"},
            {"asr_languages": [1]},
            {"asr_languages": [""]},
            {"tts_languages": ["x" * 100]},
            {"semantic_languages": [f"l{n}" for n in range(300)]},
            {"nmt_capabilities": [{"model_id": "m", "languages": ["zh"], "rule": "all"}]},
            {"nmt_capabilities": [{"languages": ["zh"], "rule": "any_to_any"}]},
        )
    ),
]


async def test_broken_capabilities_are_refused_under_a_code_of_their_own(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Peer(instance.node_url) as peer:
        for number, broken in enumerate(BROKEN_CAPABILITIES, start=1):
            await peer.send(registration(node_id, pair) | broken)
            error = await is_refused(peer, "INVALID_CAPABILITY_SCHEMA", nth=number)
            if "capability_schema_version" in broken:
                assert "'2.0'" in error["message"], broken
        assert instance.get(f"/api/v1/nodes/{node_id}")[0] == 404
        await still_registers(peer, node_id, pair)


@pytest.mark.parametrize("version", ["1e400", "9" * 5000])
async def test_a_schema_version_beyond_numbers_is_refused_without_a_stack(
    spare: Instance, node_id: str, pair: str, version: str
) -> None:
    text = json.dumps(registration(node_id, pair))
    async with Peer(spare.node_url) as peer:
        await peer.send(text.replace('version": "2.0"', f'version": {version}'))
        await is_refused(peer, "INVALID_CAPABILITY_SCHEMA")
        await still_registers(peer, node_id, pair)
    assert "Traceback" not in spare.log


BAD_IDS = ["{n}", "a{b", "n 1", " ", "n\n", "n\x00", "-n", "n/1", "é", "n" * 129, "n" * 200]


async def test_a_node_id_that_could_harm_a_key_is_refused(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Peer(instance.node_url) as peer:
        for number, bad in enumerate(BAD_IDS, start=1):
            await peer.send(registration(bad, pair))
            error = await is_refused(peer, "INVALID_MESSAGE", nth=number)
            assert "node_id must be" in error["message"], bad
        await still_registers(peer, "n" * 128, pair)


async def test_a_node_without_an_id_is_given_one_and_works_under_it(
    instance: Instance, pair: str
) -> None:
    async with Peer(instance.node_url) as one, Peer(instance.node_url) as other:
        for peer in (one, other):
            await peer.send(registration(None, pair))
        ids = [(await peer.expect("node_register_ack"))["node_id"] for peer in (one, other)]
        assert ids[0] != ids[1]
        await serves(instance, pair, 2)
        async with speaking(instance, pair) as session:
            await session.say(0)
            await session.expect("utterance_ack")
            await eventually(
                lambda: any(p.frames[-1]["type"] == "job_assign" for p in (one, other))
            )
            peer, given = (one, ids[0]) if len(one.frames) > 1 else (other, ids[1])
            await peer.send(result(peer.frames[-1], given))
            await session.translated(0)


async def test_registering_again_on_the_same_socket_renews_what_the_node_can_do(
    instance: Instance, node_id: str, pair: str
) -> None:
    other = pair + "x"
    async with Node(instance.node_url, node_id, pair) as node:
        await serves(instance, pair)
        node.pairs = (other,)
        await still_registers(node, node_id, other)
        await serves(instance, other)
        await serves(instance, pair, 0)
        assert errors(node) == []


async def test_a_socket_is_one_nodes(instance: Instance, node_id: str, pair: str) -> None:
    async with Node(instance.node_url, node_id, pair) as node:
        await node.send(registration(node_id + "b", pair))
        error = await is_refused(node, "NODE_ID_CONFLICT")
        assert node_id in error["message"]
        await still_registers(node, node_id, pair)
        assert instance.get(f"/api/v1/nodes/{node_id}b")[0] == 404


async def test_other_hardware_under_a_living_nodes_id_is_a_conflict(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as first, Peer(instance.node_url) as second:
        await serves(instance, pair)
        other = registration(node_id, pair, hardware={"cpu_cores": 2, "memory_gb": 1})
        await second.send(other)
        error = await is_refused(second, "NODE_ID_CONFLICT")
        assert node_id in error["message"]
        await still_registers(second, node_id + "b", pair)
        async with speaking(instance, pair) as session:
            await second.close()
            await serves(instance, pair)
            await session.say(0)
            await first.finish(await first.expect("job_assign"))
            await session.translated(0)
        assert first.close_code is None


async def test_the_same_node_on_a_new_socket_replaces_the_old_one(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as old:
        await serves(instance, pair)
        async with Node(instance.node_url, node_id, pair) as new:
            assert await old.closed() == 4409
            await serves(instance, pair)
            async with speaking(instance, pair) as session:
                await session.say(0)
                await new.finish(await new.expect("job_assign"))
                await session.translated(0)
            assert old.jobs == []


# Jobs.


async def test_news_of_a_job_that_never_was_changes_nothing(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with (
        Node(instance.node_url, node_id, pair, slots=1) as node,
        speaking(instance, pair) as session,
    ):
        await serves(instance, pair)
        for index in range(3):
            job = {"job_id": f"s-none:{index}", "session_id": "s-none", "utterance_index": index}
            job |= {"attempt_id": 1, "audio": "", "trace_id": "t"}
            await node.send(GOOD["job_started"] | {"type": "job_started", "node_id": node_id} | job)
            await node.finish(job)
        for index in range(2):
            await session.say(index)
        await session.expect("utterance_ack", utterance_index=0, status="accepted")
        # The one slot is held by utterance 0: what never was has freed nothing.
        await session.expect("utterance_ack", utterance_index=1, status="queued")
        for number in (1, 2):
            await node.finish(await node.expect("job_assign", nth=number))
        for index in range(2):
            await session.translated(index)
        assert len(session.terminals) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"session_id": "s-other"},
        {"utterance_index": 1},
        {"job_id": "no colon"},
        {"job_id": "s-other:0"},
        {"job_id": "{s}:0", "session_id": "{s}"},
        {"job_id": "s-x:" + "9" * 30, "session_id": "s-x"},
        {"job_id": "s-x:-1", "session_id": "s-x"},
    ],
    ids=str,
)
async def test_a_result_whose_ids_do_not_belong_together_is_refused(
    instance: Instance, node_id: str, pair: str, wrong: Frame
) -> None:
    async with Node(instance.node_url, node_id, pair) as node, speaking(instance, pair) as session:
        await serves(instance, pair)
        await session.say(0)
        job = await node.expect("job_assign")
        await node.finish(job, **wrong)
        error = await is_refused(node, "INVALID_MESSAGE")
        assert "job" in error["message"]
        await node.finish(job)
        await session.translated(0)
        assert len(session.terminals) == 1


async def test_another_nodes_result_is_not_taken(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with (
        Node(instance.node_url, node_id, pair) as node,
        Node(instance.node_url, node_id + "b", pair + "x") as other,
        speaking(instance, pair) as session,
    ):
        await serves(instance, pair)
        await session.say(0)
        job = await node.expect("job_assign")
        await other.finish(job, text_translated="stolen")
        await still_registers(other, other.node_id, pair + "x")
        await node.finish(job, text_translated="earned")
        assert (await session.translated(0))["text_translated"] == "earned"
        assert len(session.terminals) == 1


async def test_the_result_of_an_older_attempt_is_not_taken(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with (
        Node(instance.node_url, node_id, pair) as first,
        speaking(instance, pair) as session,
    ):
        await serves(instance, pair)
        await session.say(0)
        job = await first.expect("job_assign", attempt_id=1)
        async with Node(instance.node_url, node_id + "b", pair) as second:
            await serves(instance, pair, 2)
            # It comes back without the job: the job is tried on the other one.
            await still_registers(first, node_id, pair)
            again = await second.expect("job_assign", job_id=job["job_id"], attempt_id=2)
            await first.finish(job, text_translated="late")
            await still_registers(first, node_id, pair)
            await second.finish(again, text_translated="in time")
            assert (await session.translated(0))["text_translated"] == "in time"
            assert len(session.terminals) == 1


async def test_a_node_that_comes_back_with_its_job_keeps_it(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as node, speaking(instance, pair) as session:
        await serves(instance, pair)
        await session.say(0)
        job = await node.expect("job_assign")
        running = [{"job_id": job["job_id"], "attempt_id": 1}]
        async with Node(instance.node_url, node_id, pair, running_jobs=running) as again:
            assert await node.closed() == 4409
            await again.finish(job)
            await session.translated(0)
            assert again.jobs == []


async def test_a_failed_job_ends_with_what_the_node_said(
    instance: Instance, node_id: str, pair: str
) -> None:
    fault = {"code": "OOM", "message": "out of memory", "details": {"big": 10**30}}
    async with Node(instance.node_url, node_id, pair) as node, speaking(instance, pair) as session:
        await serves(instance, pair)
        await session.say(0)
        await node.finish(await node.expect("job_assign"), success=False, error=fault)
        terminal = await session.terminal(0)
        assert (terminal["type"], terminal["code"]) == ("error", "NODE_FAILED")
        assert terminal["message"] == "out of memory"
        assert terminal["details"]["code"] == "OOM"


async def test_unknown_fields_of_job_and_result_are_carried_through(
    instance: Instance, node_id: str, pair: str
) -> None:
    odd = {"nested": [{"a": None}], "nul": "\x00", "big": 10**40, "tiny": 1e-300, "": "no name"}
    async with Node(instance.node_url, node_id, pair) as node, speaking(instance, pair) as session:
        await serves(instance, pair)
        await session.say(0, odd=odd)
        job = await node.expect("job_assign")
        assert job["odd"] == odd
        await node.finish(job, odd_result=odd)
        terminal = await session.translated(0)
        assert terminal["odd_result"] == odd
        assert "node_id" not in terminal
        assert "attempt_id" not in terminal


async def test_a_partial_result_passes_through_without_the_node(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as node, speaking(instance, pair) as session:
        await serves(instance, pair)
        await session.say(0)
        job = await node.expect("job_assign")
        partial = {"type": "asr_partial", "job_id": job["job_id"], "session_id": job["session_id"]}
        partial |= {"utterance_index": 0, "text": "hel", "is_final": False, "trace_id": "t"}
        await node.send(partial | {"node_id": node_id, "extra": [1]})
        assert await session.expect("asr_partial") == partial | {"extra": [1]}
        await node.finish(job)
        await session.translated(0)
        # The job is over: what still comes of it is dropped.
        await node.send(partial | {"node_id": node_id})
        await still_registers(node, node_id, pair)
        await session.send(
            {"type": "client_heartbeat", "session_id": session.session_id, "timestamp": 0}
        )
        await session.expect("server_heartbeat")
        assert sum(frame["type"] == "asr_partial" for frame in session.frames) == 1


async def test_a_partial_result_for_a_session_that_is_gone_is_dropped(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as node:
        await serves(instance, pair)
        session = speaking(instance, pair)
        await session.open()
        await session.say(0)
        job = await node.expect("job_assign")
        session.break_off()
        await session.closed()
        partial = GOOD["asr_partial"] | {"type": "asr_partial", "node_id": node_id}
        await node.send(partial | {k: job[k] for k in ("job_id", "session_id", "utterance_index")})
        await node.finish(job)
        await still_registers(node, node_id, pair)
        resumed = await session.resume_at(instance.session_url)
        await resumed.translated(0)
        assert [frame["type"] for frame in resumed.frames] == [
            "session_init_ack",
            "translation_result",
        ]
        await resumed.close()


# Liveness.


async def test_a_heartbeat_changes_what_the_node_can_do(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as node:
        await serves(instance, pair)
        await node.beat(pair + "x")
        await serves(instance, pair + "x")
        await serves(instance, pair, 0)
        await node.beat(pair + "x", capability_by_type=[SERVICE | {"ready": False}])
        await serves(instance, pair + "x", 0)


async def test_a_broken_heartbeat_changes_nothing(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as node:
        await serves(instance, pair)
        await node.send(heartbeat(node_id, pair) | {"capability_by_type": []})
        await is_refused(node, "INVALID_CAPABILITY_SCHEMA")
        await node.send(heartbeat(node_id, pair) | {"language_capabilities": "zh"})
        await is_refused(node, "INVALID_CAPABILITY_SCHEMA", nth=2)
        await still_registers(node, node_id, pair)
        await serves(instance, pair)


async def test_a_silent_node_is_closed_and_forgotten(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as node:
        await serves(instance, pair)
        node.silent = True
        assert await node.closed() == 4408
        await eventually(lambda: instance.get(f"/api/v1/nodes/{node_id}")[0] == 404)


# What cannot go on.


async def test_a_frame_of_the_largest_size_passes_and_a_larger_one_closes_the_socket(
    instance: Instance, node_id: str, pair: str
) -> None:
    text = json.dumps(registration(node_id, pair))[:-1] + ', "fill": "'
    largest = text + "x" * (LARGEST_FRAME - len(text) - 2) + '"}'
    async with Peer(instance.node_url) as peer:
        await peer.send(largest)
        await peer.expect("node_register_ack")
        await peer.send(largest[:-2] + 'x"}')
        error = await is_refused(peer, "MESSAGE_TOO_LARGE")
        assert str(LARGEST_FRAME) in error["message"]
        assert await peer.closed() == 1009


async def test_the_size_of_a_frame_is_counted_in_bytes(instance: Instance) -> None:
    async with Peer(instance.node_url) as peer, asyncio.timeout(5):
        await peer.send('{"type": "' + "語" * (LARGEST_FRAME // 3) + '"}')
        assert (await peer.expect("error"))["code"] == "MESSAGE_TOO_LARGE"
        assert await peer.closed() == 1009


async def test_a_job_nearly_as_large_as_a_frame_may_be_goes_there_and_back(
    spare: Instance, node_id: str, pair: str
) -> None:
    audio = "x" * (DEFAULT_LARGEST - 2_000)
    async with Node(spare.node_url, node_id, pair) as node, speaking(spare, pair) as session:
        await serves(spare, pair)
        async with asyncio.timeout(5):
            await session.say(0, audio=audio)
            job = await node.expect("job_assign")
            assert job["audio"] == audio
            await node.finish(job)
            assert (await session.translated(0))["tts_audio"] == audio
    assert "Traceback" not in spare.log


@pytest.mark.parametrize("size", [DEFAULT_LARGEST + 1, 3 * DEFAULT_LARGEST])
async def test_a_far_too_large_frame_closes_the_socket_with_1009(
    spare: Instance, size: int
) -> None:
    async with Peer(spare.node_url) as peer, asyncio.timeout(5):
        await peer.send("x" * size)
        assert await peer.closed() == 1009


async def test_broken_utf8_ends_that_socket_only(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Peer(instance.node_url) as other, Peer(instance.node_url) as peer:
        await send_broken_utf8(peer)
        await peer.closed()
        assert peer.frames == []
        await still_registers(other, node_id, pair)


async def test_broken_utf8_is_told_as_1007(instance: Instance) -> None:
    async with Peer(instance.node_url) as peer:
        await send_broken_utf8(peer)
        assert await peer.closed() == 1007


async def send_broken_utf8(peer: Peer) -> None:
    assert peer._socket is not None
    await peer._socket.send(b'{"type": "\xff\xfe"}', text=True)


@pytest.mark.parametrize("path", ["/ws/nowhere", "/ws", "/", "/ws/node/more", "/healthz"])
async def test_an_unknown_path_is_refused_at_the_handshake(instance: Instance, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(instance.url(path, "ws"))
    assert refused.value.response.status_code == 403


async def test_a_node_without_credentials_is_refused_and_closed(locked: Instance) -> None:
    async with Peer(locked.node_url) as peer:
        error = await is_refused(peer, "UNAUTHORIZED")
        assert "SCHED_NODE_AUTH" in error["message"]
        assert await peer.closed() == 4401
        assert len(peer.frames) == 1
