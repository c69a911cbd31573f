"""Whatever comes over the sockets, the instance serves on and logs no stack.

`make fuzz` does the same for 100,000 frames and more, others at each run.
"""

import json
import os
import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.agents import Frame, heartbeat, registration, result
from tests.support.cluster import Instance
from tests.support.malformed import MALFORMED

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""For a long run; 0: a short one, the same each time."""

NODE, SESSION, JOB = "fuzzed", "$session", "$session:0"
INIT = {"client_version": "1", "platform": "web", "src_lang": "zz", "tgt_lang": "yy"}
HELD = {"job_id": JOB, "session_id": SESSION, "utterance_index": 0, "node_id": NODE}
GOOD: dict[str, list[Frame]] = {
    "node": [
        registration(NODE, "zz-yy"),
        heartbeat(NODE, "zz-yy"),
        {"type": "job_ack", **HELD, "attempt_id": 1},
        {"type": "job_started", **HELD, "attempt_id": 1},
        {"type": "asr_partial", **HELD, "text": "a", "is_final": True},
        result(HELD | {"attempt_id": 1, "audio": "", "trace_id": "t"}, NODE),
        {"type": "node_error", "node_id": NODE, "code": "X", "message": "broke"},
    ],
    "session": [
        {"type": "session_init", **INIT, "resume": None},
        {"type": "session_init", **INIT, "resume": {"session_id": "s-1", "token": "t"}},
        {
            "type": "utterance",
            "session_id": SESSION,
            "utterance_index": 0,
            "manual_cut": False,
            "src_lang": "zz",
            "tgt_lang": "yy",
            "audio": "UklGRg==",
            "audio_format": "wav",
            "sample_rate": 16000,
        },
        {"type": "utterance_cancel", "session_id": SESSION, "utterance_index": 0},
        {"type": "result_ack", "session_id": SESSION, "seq": 1},
        {"type": "client_heartbeat", "session_id": SESSION, "timestamp": 0},
        {"type": "session_close", "session_id": SESSION, "reason": "done"},
    ],
}

words = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["{x}", "*", "\x00", "2.0", "s-1:0", SESSION, JOB, NODE, "en", "\u2028", "x" * 600]
)
numbers = (
    st.integers()
    | st.sampled_from([0, 1, -1, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400, -(10**4000)])
    | st.floats()
)
values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def near_misses(draw: st.DrawFn, side: str) -> str:
    """A good frame of this side with some fields, at any depth, changed, lost or added."""
    frame = json.loads(json.dumps(draw(st.sampled_from(GOOD[side]))))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = frame
        while isinstance(place, dict | list) and place:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(list(keys)))
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            if draw(st.booleans()):
                place[key] = draw(values)
            else:
                del place[key]
            break
    if draw(st.booleans()):
        frame[draw(words)] = draw(values)
    return json.dumps(frame)


@st.composite
def torn(draw: st.DrawFn, side: str) -> str:
    """A good frame's text with a piece cut out, doubled or replaced."""
    text = json.dumps(draw(st.sampled_from(GOOD[side])))
    begin, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    return text[:begin] + draw(words | st.just(text[begin:end] * 2)) + text[end:]


@st.composite
def nested(draw: st.DrawFn, side: str) -> str:
    """A good frame with one value replaced by a pit of brackets."""
    frame = dict(draw(st.sampled_from(GOOD[side])))
    key = draw(st.sampled_from(sorted(frame)))
    text = json.dumps(frame | {key: "PIT"})
    depth, (begin, end) = (
        draw(st.integers(1, 3_000)),
        draw(st.sampled_from([("[", "]"), ('{"a":', "}")])),
    )
    return text.replace('"PIT"', begin * depth + draw(st.sampled_from(["", "1"])) + end * depth)


@st.composite
def numerals(draw: st.DrawFn, side: str) -> str:
    """A good frame with one value replaced by a number as no language writes it."""
    frame = dict(draw(st.sampled_from(GOOD[side])))
    key = draw(st.sampled_from(sorted(frame)))
    number = draw(
        st.sampled_from(
            ["1e999", "-1e999", "1e-999", "0.0e+0", "9" * 5_000, "1" + "0" * 400 + ".5"]
        )
    )
    return json.dumps(frame | {key: "NUMBER"}).replace('"NUMBER"', number)


class Raw(bytes):
    """Bytes to be sent as a text frame, whether they are UTF-8 or not."""


@st.composite
def garbled(draw: st.DrawFn, side: str) -> bytes:
    """A good frame's bytes with one of them replaced."""
    text = bytearray(json.dumps(draw(st.sampled_from(GOOD[side]))).encode())
    text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
    return Raw(text)


def frames(side: str) -> st.SearchStrategy[list[str | bytes]]:
    anything = (
        near_misses(side)
        | near_misses(side)
        | torn(side)
        | nested(side)
        | numerals(side)
        | garbled(side)
        | values.map(json.dumps)
        | st.text(st.characters(codec="utf-8"), max_size=60)
        | st.binary(max_size=30)
        | st.sampled_from([frame for frame in MALFORMED.values() if len(frame) < 1000])
    )
    return st.lists(anything, max_size=6)


def send_all(socket: ClientConnection, frames: list[str | bytes], session_id: str) -> None:
    try:
        for frame in frames:
            if isinstance(frame, str):
                socket.send(frame.replace(SESSION, session_id))
            else:
                socket.send(bytes(frame), text=isinstance(frame, Raw))
    except ConnectionClosed:
        pass


def asks(socket: ClientConnection, question: Frame, kind: str) -> Frame:
    """Send a good frame, and read until its answer."""
    socket.send(json.dumps(question))
    while True:
        answer: Frame = json.loads(socket.recv(timeout=10))
        if answer["type"] == kind:
            return answer


def read_until_answered(socket: ClientConnection) -> None:
    """Every frame was acted on, or the socket was closed in order."""
    try:
        socket.send('{"type": "the last one"}')
        while "the last one" not in json.loads(socket.recv(timeout=10)).get("message", ""):
            pass
    except ConnectionClosed:
        assert socket.protocol.close_code in (1000, 1007, 4409), socket.protocol.close_code


def test_whatever_comes_the_instance_serves_on_and_logs_no_stack(instance: Instance) -> None:
    seen = len(instance.log)

    @settings(
        max_examples=EXAMPLES or 300,
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(frames("node"), frames("session"), st.booleans(), st.integers())
    def run(
        node_frames: list[str | bytes],
        session_frames: list[str | bytes],
        greeted: bool,
        seed: int,
    ) -> None:
        nonlocal seen
        with connect(instance.node_url) as node, connect(instance.session_url) as session:
            session_id = "s-none"
            if greeted:
                asks(node, registration(NODE, "zz-yy"), "node_register_ack")
                init = {"type": "session_init", **INIT}
                session_id = asks(session, init, "session_init_ack")["session_id"]
            sides = [(node, node_frames), (session, session_frames)]
            random.Random(seed).shuffle(sides)
            for socket, some in sides:
                send_all(socket, some, session_id)
            for socket, _ in sides:
                read_until_answered(socket)
        news, seen = instance.log[seen:], len(instance.log)
        assert "Traceback" not in news, news

    run()
    assert instance.get("/healthz")[0] == 200
    with connect(instance.node_url) as node, connect(instance.session_url) as session:
        asks(node, registration("sane", "zz-xx"), "node_register_ack")
        init = {"type": "session_init", **INIT}
        session_id = asks(session, init, "session_init_ack")["session_id"]
        beat = {"type": "client_heartbeat", "session_id": session_id, "timestamp": 0}
        assert asks(session, beat, "server_heartbeat")["session_id"] == session_id
