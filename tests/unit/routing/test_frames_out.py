"""Frames going out: what a sender gave comes out untouched, what is ours only we can set."""

import json
import sys
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from routing.domain import wire
from routing.domain.errors import ErrorCode, InvalidMessage
from routing.domain.wire import NODE_FRAMES, SESSION_FRAMES

UTTERANCE = (
    '{"type":"utterance","session_id":"s-1","utterance_index":3,"manual_cut":true,'
    '"src_lang":"zh","tgt_lang":"en","audio":"AAAA","audio_format":"pcm16","sample_rate":16000'
)
RESULT = (
    '{"type":"job_result","job_id":"s-1:3","attempt_id":2,"node_id":"n-1","session_id":"s-1",'
    '"utterance_index":3,"success":true'
)
# Each a value that decoding and encoding again would spell another way.
ODD_SPELLINGS = [
    '"\\u0041\\/\\u00e9"',
    "[ 1 , 2.50,\t1e2 ]",
    '{"b" :1,\n"a": {"a":null }}',
    "123456789012345678901234567890.12345678901234567890",
    "-0.0",
    '"' + "QUJD" * 50_000 + '"',
    "[" * 500 + "]" * 500,
]


def once(text: bytes) -> dict[str, object]:
    """The frame as an object, in which no key stands twice: readers differ on which one counts."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len({key for key, _ in pairs}) == len(pairs), pairs
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def assigned(more: str = "", *, trace_id: str = "t-9") -> bytes:
    _, fields = SESSION_FRAMES.decode(UTTERANCE + more + "}")
    payload = wire.job_payload(fields, trace_id=trace_id)
    return wire.job_assign(payload, job_id="s-1:3", attempt_id=2)


def resulted(more: str = "", *, seq: int = 5) -> bytes:
    _, fields = NODE_FRAMES.decode(RESULT + more + "}")
    return wire.with_seq(wire.translation_result(fields), seq)


def test_a_job_assign_has_what_the_contract_says():
    assert once(assigned()) == {
        "type": "job_assign",
        "job_id": "s-1:3",
        "attempt_id": 2,
        "session_id": "s-1",
        "utterance_index": 3,
        "manual_cut": True,
        "src_lang": "zh",
        "tgt_lang": "en",
        "audio": "AAAA",
        "audio_format": "pcm16",
        "sample_rate": 16_000,
        "pipeline": {"use_asr": True, "use_nmt": True, "use_tts": True},
        "trace_id": "t-9",
    }


def test_a_translation_result_has_what_the_contract_says():
    more = ',"text_asr":"a","text_translated":"b","tts_audio":"QQ==","tts_format":"wav"'
    assert once(resulted(more + ',"trace_id":"t-9"')) == {
        "type": "translation_result",
        "seq": 5,
        "session_id": "s-1",
        "utterance_index": 3,
        "job_id": "s-1:3",
        "text_asr": "a",
        "text_translated": "b",
        "tts_audio": "QQ==",
        "tts_format": "wav",
        "trace_id": "t-9",
    }


def test_texts_that_a_node_leaves_out_are_empty_in_the_result():
    result = once(resulted())
    assert [
        result[name] for name in ("text_asr", "text_translated", "tts_audio", "tts_format")
    ] == [""] * 4


@pytest.mark.parametrize("name", ["text_asr", "text_translated", "tts_audio", "tts_format"])
def test_a_text_that_a_node_gives_as_null_is_empty_in_the_result(name: str):
    assert once(resulted(f',"{name}":null'))[name] == ""


@pytest.mark.parametrize("value", ODD_SPELLINGS, ids=lambda value: value[:12])
def test_unknown_fields_come_out_byte_by_byte_as_they_came_in(value: str):
    more = f',"x_vendor":{value}'
    assert f'"x_vendor":{value}'.encode() in assigned(more)
    assert f'"x_vendor":{value}'.encode() in resulted(more)
    once(assigned(more))
    once(resulted(more))


def test_audio_comes_out_byte_by_byte_as_it_came_in():
    audio = '"\\u0041' + "UklGRg\\/+" * 20_000 + '=="'
    given = UTTERANCE.replace('"AAAA"', audio)
    _, fields = SESSION_FRAMES.decode(given + "}")
    assert f'"audio":{audio}'.encode() in wire.job_payload(fields, trace_id="t")
    assert f'"tts_audio":{audio}'.encode() in resulted(f',"tts_audio":{audio}')


def test_a_replayed_utterance_is_the_same_but_for_whose_it_is():
    odd = "".join(f',"x_{number}":{value}' for number, value in enumerate(ODD_SPELLINGS))
    _, fields = SESSION_FRAMES.decode(UTTERANCE + odd + ',"priority":7,"deadline_ms":5}')
    payload = wire.job_payload(fields, trace_id="t-9")
    message, replayed = wire.replayed_utterance(payload, session_id="replay-1")
    again = wire.job_payload(replayed, trace_id="t-9")
    told = payload.replace(b'"session_id":"s-1"', b'"session_id":"replay-1"', 1)
    assert again == told.replace(b'"utterance_index":3', b'"utterance_index":0', 1)
    assert (message.session_id, message.utterance_index) == ("replay-1", 0)
    assert (message.priority, message.trace_id, message.deadline_ms) == (7, "t-9", None)


def _values(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(st.none() | st.booleans() | numbers | st.text(max_size=10), _values)
carried = st.dictionaries(st.text(max_size=8).map(lambda name: f"x_{name}"), anything, max_size=4)


@settings(deadline=None, max_examples=150)
@given(carried, st.booleans(), st.sampled_from([None, 1]))
@example({"x_\U0001f600": "\u2028\x00"}, False, None)
def test_whatever_else_a_frame_carries_is_carried_through(more, ascii_only: bool, indent):
    text = json.dumps(more, ensure_ascii=ascii_only, indent=indent)[1:-1].strip()
    text = f",{text}" if text else ""
    for out in (once(assigned(text)), once(resulted(text))):
        assert {name: value for name, value in out.items() if name.startswith("x_")} == more


SMUGGLED_TO_A_NODE = [
    ("type", '"node_control"', "job_assign"),
    ("job_id", '"s-2:1"', "s-1:3"),
    ("attempt_id", "99", 2),
    ("trace_id", '"forged"', "t-9"),
]
SMUGGLED_TO_A_SESSION = [("seq", "1", 5), ("type", '"error"', "translation_result")]


@pytest.mark.parametrize(("name", "value", "ours"), SMUGGLED_TO_A_NODE[1:])
def test_an_utterance_cannot_set_what_is_the_schedulers(name: str, value: str, ours: object):
    escaped = name[:-1] + f"\\u{ord(name[-1]):04x}"
    for spelling in (name, escaped):
        out = once(assigned(f',"{spelling}":{value}'))
        assert out[name] == ours
    both = once(assigned(f',"{name}":{value},"{escaped}":{value}'))
    assert both[name] == ours


@pytest.mark.parametrize(("name", "value", "ours"), SMUGGLED_TO_A_SESSION[:1])
def test_a_result_cannot_set_its_place_in_the_sequence(name: str, value: str, ours: object):
    for spelling in (name, "se\\u0071"):
        assert once(resulted(f',"{spelling}":{value}'))[name] == ours


def test_the_type_of_what_goes_out_is_ours_even_if_the_type_that_came_in_stands_twice():
    assert once(assigned(',"typ\\u0065":"utterance"'))["type"] == "job_assign"
    assert once(resulted(',"typ\\u0065":"job_result"'))["type"] == "translation_result"


def test_a_result_shows_a_session_no_node_no_attempt_and_no_leftover_of_failure():
    out = once(resulted(',"error":{"code":"x","message":"y"}'))
    assert not {"node_id", "attempt_id", "success", "error"} & out.keys()


def test_a_partial_goes_to_the_session_without_its_node():
    text = (
        '{"type":"asr_partial","job_id":"s-1:3","node_id":"n-1","session_id":"s-1",'
        '"utterance_index":3,"text":"hel","is_final":false,"trace_id":"t","x_more":[ 1 ]}'
    )
    _, fields = NODE_FRAMES.decode(text)
    out = wire.asr_partial(fields)
    assert once(out) == {
        "type": "asr_partial",
        "job_id": "s-1:3",
        "session_id": "s-1",
        "utterance_index": 3,
        "text": "hel",
        "is_final": False,
        "trace_id": "t",
        "x_more": [1],
    }
    assert b'"x_more":[ 1 ]' in out


def test_a_partial_cannot_carry_a_place_in_the_sequence():
    _, fields = NODE_FRAMES.decode(
        '{"type":"asr_partial","job_id":"s-1:3","node_id":"n-1","session_id":"s-1",'
        '"utterance_index":3,"text":"hel","is_final":false,"seq":900}'
    )
    assert "seq" not in once(wire.asr_partial(fields))


def test_a_pipeline_that_the_utterance_names_is_kept():
    pipeline = '{"use_asr":true, "use_nmt":true,"use_tts":false}'
    assert f'"pipeline":{pipeline}'.encode() in assigned(f',"pipeline":{pipeline}')


def test_attempts_of_a_job_differ_in_their_number_only():
    _, fields = SESSION_FRAMES.decode(UTTERANCE + "}")
    payload = wire.job_payload(fields, trace_id="t")
    frames = [once(wire.job_assign(payload, job_id="s:1", attempt_id=n)) for n in (1, 2, 3)]
    assert [frame.pop("attempt_id") for frame in frames] == [1, 2, 3]
    assert all(one == two for one, two in pairwise(frames))


def test_a_job_id_with_quotes_cannot_break_out_of_its_place():
    out = wire.job_assign(b'{"audio":"A"}', job_id='s","type":"x', attempt_id=1)
    assert once(out) == {
        "type": "job_assign",
        "job_id": 's","type":"x',
        "attempt_id": 1,
        "audio": "A",
    }


@pytest.mark.parametrize("seq", [1, 2**53])
def test_a_terminal_message_of_either_kind_takes_its_seq(seq: int):
    failure = wire.job_failure(
        ErrorCode.JOB_TIMEOUT, "its deadline passed", session_id="s-1", job_id="s-1:3"
    )
    assert once(wire.with_seq(failure, seq)) == {
        "seq": seq,
        "type": "error",
        "code": "JOB_TIMEOUT",
        "message": "its deadline passed",
        "session_id": "s-1",
        "utterance_index": 3,
        "job_id": "s-1:3",
    }
    assert once(resulted(seq=seq))["seq"] == seq


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=50), anything)
def test_a_failure_carries_what_the_node_said_of_it(message: str, details: object):
    given = json.dumps({"code": "X", "message": message, "details": details})
    fault = NODE_FRAMES.decode(RESULT + f',"error":{given}}}').message.error
    body = wire.job_failure(
        ErrorCode.NODE_FAILED,
        fault.message,
        session_id="s-1",
        job_id="s-1:3",
        details={"code": fault.code, "details": fault.details},
    )
    out = once(wire.with_seq(body, 1))
    assert out["message"] == message
    assert out["details"] == {"code": "X", "details": details}


def test_a_failure_can_be_told_however_deep_its_details_are():
    text = RESULT + ',"error":{"code":"X","message":"y","details":%s%s}}'
    for depth in range(sys.getrecursionlimit(), 0, -1):
        with suppress(InvalidMessage):
            deepest = NODE_FRAMES.decode(text % ("[" * depth, "]" * depth)).message.error
            break

    def tell(frames_below: int) -> bytes:
        if frames_below:
            return tell(frames_below - 1)
        details = {"code": deepest.code, "details": deepest.details}
        return wire.job_failure(
            ErrorCode.NODE_FAILED, "x", session_id="s", job_id="s:1", details=details
        )

    assert tell(3)  # the consumer, the use-case and its helper


def test_a_failure_without_details_has_no_field_for_them():
    body = wire.job_failure(ErrorCode.JOB_CANCELLED, "by you", session_id="a:b", job_id="a:b:12")
    out = once(body)
    assert "details" not in out
    assert (out["session_id"], out["utterance_index"]) == ("a:b", 12)


PLAIN = {
    "node_register_ack": (
        wire.node_register_ack("n-1", message="registered", status="ready"),
        {"node_id": "n-1", "message": "registered", "status": "ready"},
    ),
    "job_cancel": (
        wire.job_cancel("s-1:3", reason="by the session"),
        {"job_id": "s-1:3", "reason": "by the session"},
    ),
    "node_control": (
        wire.node_control("drain", reason="update"),
        {"command": "drain", "reason": "update"},
    ),
    "error": (
        wire.error(ErrorCode.RATE_LIMITED, "slow down", details={"retry_after_ms": 5}),
        {"code": "RATE_LIMITED", "message": "slow down", "details": {"retry_after_ms": 5}},
    ),
    "session_init_ack": (
        wire.session_init_ack("s-1", message="open", trace_id="t", resume_token="k", resumed=False),
        {
            "session_id": "s-1",
            "message": "open",
            "trace_id": "t",
            "assigned_node_id": None,
            "protocol_version": "1.0",
            "resume_token": "k",
            "resumed": False,
        },
    ),
    "utterance_ack": (
        wire.utterance_ack("s-1", 3, job_id="s-1:3", status="queued"),
        {"session_id": "s-1", "utterance_index": 3, "job_id": "s-1:3", "status": "queued"},
    ),
    "server_heartbeat": (
        wire.server_heartbeat("s-1", timestamp_ms=7),
        {"session_id": "s-1", "timestamp": 7},
    ),
    "session_close_ack": (wire.session_close_ack("s-1"), {"session_id": "s-1"}),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_frame_of_ours_has_what_the_contract_says(kind: str):
    frame, expected = PLAIN[kind]
    assert once(frame) == {"type": kind, **expected}
