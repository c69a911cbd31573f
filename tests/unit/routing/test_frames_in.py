"""Frames coming in: each type of the contract is taken, and all else refused with a sentence."""

import json
import re
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.domain.capability import Capabilities, ServiceCapability, ServiceType
from routing.domain import wire
from routing.domain.errors import ErrorCode, FrameRefused, InvalidCapability, InvalidMessage
from routing.domain.wire import NODE_FRAMES, SESSION_FRAMES, FrameDecoder

ASR = {"type": "asr", "ready": True}
JOB = {"job_id": "s-1:3", "attempt_id": 1, "node_id": "n-1", "session_id": "s-1", "trace_id": "t"}

NODE_EXAMPLES = {
    "node_register": {
        "node_id": None,
        "version": "2.1.0",
        "capability_schema_version": "2.0",
        "platform": "linux",
        "hardware": {
            "cpu_cores": 8,
            "memory_gb": 31.5,
            "gpus": [{"name": "RTX 4090", "memory_gb": 24}],
        },
        "installed_models": [{"model_id": "m2m", "kind": "nmt"}],
        "installed_services": [{"service_id": "asr-1"}],
        "capability_by_type": [ASR],
        "features_supported": {"emotion": False},
        "accept_public_jobs": True,
        "language_capabilities": {"supported_language_pairs": [{"src": "zh", "tgt": "en"}]},
        "max_concurrent_jobs": 4,
        "labels": {"zone": "a"},
        "running_jobs": [{"job_id": "s-1:3", "attempt_id": 2}],
    },
    "node_heartbeat": {
        "node_id": "n-1",
        "timestamp": 1_790_000_000_000,
        "resource_usage": {
            "cpu_percent": 12.5,
            "gpu_percent": 40,
            "gpu_mem_percent": None,
            "mem_percent": 30,
            "running_jobs": 1,
        },
        "installed_services": [],
        "capability_by_type": [ASR],
        "language_capabilities": {},
    },
    "job_ack": JOB,
    "job_started": JOB,
    "asr_partial": {
        "job_id": "s-1:3",
        "node_id": "n-1",
        "session_id": "s-1",
        "utterance_index": 3,
        "text": "hel",
        "is_final": False,
        "trace_id": "t",
    },
    "job_result": {
        **JOB,
        "utterance_index": 3,
        "success": True,
        "text_asr": "你好",
        "text_translated": "hello",
        "tts_audio": "UklGRg==",
        "tts_format": "wav",
        "error": {"code": "OOM", "message": "no memory", "details": {"gpu": 0}},
    },
    "node_error": {"node_id": "n-1", "code": "GPU", "message": "lost", "details": [1]},
}
SESSION_EXAMPLES = {
    "session_init": {
        "client_version": "1.0",
        "platform": "web",
        "src_lang": "auto",
        "tgt_lang": "en",
        "tenant_id": "acme",
        "mode": "two_way_auto",
        "lang_a": "zh",
        "lang_b": "en",
        "features": {"emotion": True},
        "trace_id": "t",
        "resume": {"session_id": "s-1", "token": "k", "last_seq": 4},
    },
    "utterance": {
        "session_id": "s-1",
        "utterance_index": 3,
        "manual_cut": False,
        "src_lang": "zh",
        "tgt_lang": "en",
        "audio": "AAAA",
        "audio_format": "pcm16",
        "sample_rate": 16_000,
        "trace_id": "t",
        "priority": 9,
        "deadline_ms": 20_000,
    },
    "utterance_cancel": {"session_id": "s-1", "utterance_index": 3},
    "result_ack": {"session_id": "s-1", "seq": 7},
    "client_heartbeat": {"session_id": "s-1", "timestamp": 1_790_000_000_000},
    "session_close": {"session_id": "s-1", "reason": "bye"},
}
EXAMPLES = {**NODE_EXAMPLES, **SESSION_EXAMPLES}

# What each field may be; with "?" also null or left out. `session_close.reason`, the trace ids and
# a heartbeat's `installed_services` are required by the contract, but we take frames without them.
FIELDS = {
    "node_register": {
        "version": "text",
        "platform": "text",
        "hardware": "object",
        "installed_models": "list",
        "features_supported": "object",
        "accept_public_jobs": "flag",
        "installed_services": "list?",
        "max_concurrent_jobs": "integer?",
        "labels": "object?",
        "running_jobs": "list?",
    },
    "node_heartbeat": {
        "node_id": "text",
        "timestamp": "integer",
        "resource_usage": "object",
        "installed_services": "list?",
    },
    "job_ack": {
        "job_id": "text",
        "attempt_id": "integer",
        "node_id": "text",
        "session_id": "text",
        "trace_id": "text?",
    },
    "asr_partial": {
        "job_id": "text",
        "node_id": "text",
        "session_id": "text",
        "utterance_index": "integer",
        "text": "text",
        "is_final": "flag",
        "trace_id": "text?",
    },
    "job_result": {
        "job_id": "text",
        "attempt_id": "integer",
        "node_id": "text",
        "session_id": "text",
        "utterance_index": "integer",
        "success": "flag",
        "text_asr": "text?",
        "text_translated": "text?",
        "tts_audio": "text?",
        "tts_format": "text?",
        "error": "object?",
        "trace_id": "text?",
    },
    "node_error": {"node_id": "text", "code": "text", "message": "text"},
    "session_init": {
        "client_version": "text",
        "platform": "text",
        "src_lang": "text",
        "tgt_lang": "text",
        "tenant_id": "text?",
        "mode": "text?",
        "lang_a": "text?",
        "lang_b": "text?",
        "features": "object?",
        "trace_id": "text?",
        "resume": "object?",
    },
    "utterance": {
        "session_id": "text",
        "utterance_index": "integer",
        "manual_cut": "flag",
        "src_lang": "text",
        "tgt_lang": "text",
        "audio": "text",
        "audio_format": "text",
        "sample_rate": "integer",
        "trace_id": "text?",
        "priority": "integer?",
        "deadline_ms": "integer?",
    },
    "utterance_cancel": {"session_id": "text", "utterance_index": "integer"},
    "result_ack": {"session_id": "text", "seq": "integer"},
    "client_heartbeat": {"session_id": "text", "timestamp": "integer"},
    "session_close": {"session_id": "text", "reason": "text?"},
}
FIELDS["job_started"] = FIELDS["job_ack"]
VALUES = {
    "text": "x",
    "integer": 5,
    "fraction": 1.5,
    "flag": True,
    "list": [],
    "object": {},
    "null": None,
}
REQUIRED = [
    (kind, name) for kind, fields in FIELDS.items() for name, it in fields.items() if it[-1] != "?"
] + [
    ("node_register", "node_id"),
    ("node_register", "capability_schema_version"),
    ("node_register", "capability_by_type"),
    ("node_heartbeat", "capability_by_type"),
]
OPTIONAL = [
    (kind, name) for kind, fields in FIELDS.items() for name, it in fields.items() if it[-1] == "?"
] + [("node_register", "language_capabilities"), ("node_heartbeat", "language_capabilities")]
WRONG = [
    (kind, name, value)
    for kind, fields in FIELDS.items()
    for name, it in fields.items()
    for value in VALUES
    if value != it.rstrip("?") and not (value == "null" and it[-1] == "?")
]


def decoder_of(kind: str) -> FrameDecoder:
    return NODE_FRAMES if kind in NODE_EXAMPLES else SESSION_FRAMES


def frame(kind: str, **changes: object) -> str:
    return json.dumps({"type": kind, **EXAMPLES[kind], **changes})


def refused(decoder: FrameDecoder, data: str | bytes) -> str:
    """The sentence that the sender of this frame gets; it must be fit to be sent."""
    with pytest.raises(InvalidMessage) as error:
        decoder.decode(data)
    assert error.value.code is ErrorCode.INVALID_MESSAGE
    text = str(error.value)
    assert 10 < len(text) < 700
    assert json.loads(wire.error(error.value.code, text))["message"] == text
    return text


def test_the_examples_name_every_type_that_the_decoders_know():
    for decoder, examples in ((NODE_FRAMES, NODE_EXAMPLES), (SESSION_FRAMES, SESSION_EXAMPLES)):
        known = refused(decoder, '{"type":"?"}').partition("known are: ")[2]
        assert known.split(", ") == list(examples)
    assert set(FIELDS) == set(EXAMPLES)


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("binary", [False, True])
def test_a_valid_frame_is_decoded_into_its_message_and_its_raw_fields(kind: str, binary: bool):
    text = frame(kind, unknown_to_us={"kept": [1, None]})
    message, fields = decoder_of(kind).decode(text.encode() if binary else text)
    assert message.__struct_config__.tag == kind
    assert {name: json.loads(bytes(raw)) for name, raw in fields.items()} == json.loads(text)
    for name in FIELDS[kind].keys() & set(message.__struct_fields__):
        given = EXAMPLES[kind][name]
        if not isinstance(given, dict | list):
            assert getattr(message, name) == given


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_frame_with_required_fields_only_is_taken(kind: str):
    left_out = {name for optional_kind, name in OPTIONAL if optional_kind == kind}
    given = {name: value for name, value in EXAMPLES[kind].items() if name not in left_out}
    assert decoder_of(kind).decode(json.dumps({"type": kind, **given})).message


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k, n in OPTIONAL if n != "language_capabilities"]
)
def test_an_optional_field_may_be_null(kind: str, name: str):
    message = decoder_of(kind).decode(frame(kind, **{name: None})).message
    assert getattr(message, name, None) is None


@pytest.mark.parametrize(("kind", "name"), REQUIRED)
def test_a_frame_without_a_required_field_is_refused_by_its_name(kind: str, name: str):
    given = {"type": kind, **EXAMPLES[kind]}
    del given[name]
    text = refused(decoder_of(kind), json.dumps(given))
    assert text == f"{kind}: Object missing required field `{name}`"


@pytest.mark.parametrize(("kind", "name", "value"), WRONG)
def test_a_field_of_the_wrong_type_is_refused_by_its_name(kind: str, name: str, value: str):
    if (value, FIELDS[kind][name].rstrip("?")) == ("object", "object"):
        return
    text = refused(decoder_of(kind), frame(kind, **{name: VALUES[value]}))
    assert text.startswith(f"{kind}: Expected `")
    assert text.endswith(f"`$.{name}`")


@pytest.mark.parametrize(
    ("kind", "changes", "where"),
    [
        ("node_register", {"hardware": {"memory_gb": 1}}, "`cpu_cores` - at `$.hardware`"),
        ("node_register", {"hardware": {"cpu_cores": 1, "memory_gb": "x"}}, "$.hardware.memory_gb"),
        ("node_register", {"labels": {"zone": 1}}, "$.labels[...]"),
        ("node_register", {"max_concurrent_jobs": 0}, "$.max_concurrent_jobs"),
        ("node_register", {"max_concurrent_jobs": 10_001}, "$.max_concurrent_jobs"),
        ("node_register", {"running_jobs": [{"job_id": "s:1"}]}, "$.running_jobs[0]"),
        ("node_register", {"version": "v" * 513}, "$.version"),
        ("node_heartbeat", {"resource_usage": {}}, "`$.resource_usage`"),
        (
            "node_heartbeat",
            {"resource_usage": {"cpu_percent": -1, "mem_percent": 0, "running_jobs": 0}},
            "$.resource_usage.cpu_percent",
        ),
        ("job_ack", {"attempt_id": 0}, "$.attempt_id"),
        ("job_ack", {"attempt_id": 2**31}, "$.attempt_id"),
        ("job_ack", {"job_id": ""}, "$.job_id"),
        ("job_result", {"error": {"code": "x"}}, "`message` - at `$.error`"),
        ("job_result", {"utterance_index": -1}, "$.utterance_index"),
        ("utterance", {"utterance_index": -1}, "$.utterance_index"),
        ("utterance", {"utterance_index": 2**53}, "$.utterance_index"),
        ("utterance", {"utterance_index": 10**30}, "$.utterance_index"),
        ("utterance", {"priority": 10}, "$.priority"),
        ("utterance", {"priority": -1}, "$.priority"),
        ("utterance", {"deadline_ms": 0}, "$.deadline_ms"),
        ("utterance", {"sample_rate": 0}, "$.sample_rate"),
        ("utterance", {"src_lang": "zh\n"}, "$.src_lang"),
        ("utterance", {"src_lang": "*"}, "$.src_lang"),
        ("utterance", {"tgt_lang": ""}, "$.tgt_lang"),
        ("utterance", {"session_id": "s" * 257}, "$.session_id"),
        ("session_init", {"resume": {"session_id": "s", "token": "k"}}, "`last_seq`"),
        ("result_ack", {"seq": -1}, "$.seq"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_its_place(kind: str, changes: dict, where: str):
    assert where in refused(decoder_of(kind), frame(kind, **changes))


NOT_FRAMES = {
    "nothing": "",
    "blank": "  ",
    "no JSON": "hello",
    "half": frame("utterance")[:-3],
    "something behind": frame("utterance") + "{}",
    "null": "null",
    "a number": "5",
    "a text": '"utterance"',
    "a list": '[{"type":"utterance"}]',
    "no type": "{}",
    "a type of null": '{"type":null}',
    "a type of list": '{"type":["utterance"]}',
    "a type of number": '{"type":1}',
    "NaN": '{"type":"utterance","x":NaN}',
    "a leading zero": '{"type":"utterance","x":01}',
    "a control character": '{"type":"utterance","x":"\n"}',
    "half a surrogate escaped": '{"type":"\\ud800"}',
    "half a surrogate": '{"type":"\ud800"}',
    "a byte order mark": "\ufeff" + frame("utterance"),
    "deep arrays": "[" * 100_000 + "]" * 100_000,
    "deep arrays never closed": "[" * 100_000,
    "deep arrays in a field": '{"type":"utterance","x":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects in a field": '{"type":"utterance","x":' + '{"x":' * 100_000 + "1" + "}" * 100_001,
    "binary": bytes(range(256)),
    "zeros": b"\0" * 64,
    "wrong UTF-8 in a key": b'{"type":"utterance","\xff":1}',
    "wrong UTF-8 in the type": b'{"type":"\xff"}',
    "wrong UTF-8 in a text": frame("utterance").encode().replace(b"pcm16", b"\xc3\x28"),
    "UTF-16": frame("utterance").encode("utf-16"),
}


@pytest.mark.parametrize("data", NOT_FRAMES.values(), ids=NOT_FRAMES.keys())
@pytest.mark.parametrize("decoder", [NODE_FRAMES, SESSION_FRAMES], ids=["node", "session"])
def test_what_is_no_frame_is_refused_with_a_sentence(decoder: FrameDecoder, data: str | bytes):
    refused(decoder, data)


@pytest.mark.parametrize("name", ["audio", "unknown_to_us"])
def test_wrong_utf8_in_a_field_that_is_carried_through_is_refused(name: str):
    data = frame("utterance", **{name: "HERE"}).encode().replace(b"HERE", b"\xff\xfe")
    refused(SESSION_FRAMES, data)


@pytest.mark.parametrize("kind", ["utterance", "node_heartbeat", "job_result"])
@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "9" * 9_000, "1e-999"])
def test_a_huge_number_never_breaks_the_decoder(kind: str, number: str):
    for name in EXAMPLES[kind]:
        data = re.sub(rf'("{name}": )"HERE"', rf"\g<1>{number}", frame(kind, **{name: "HERE"}))
        assert number in data
        try:
            decoder_of(kind).decode(data)
        except InvalidMessage as error:
            assert wire.error(error.code, str(error))  # noqa: PT017


def test_a_type_of_the_other_side_is_unknown_here():
    assert refused(SESSION_FRAMES, frame("job_result")).startswith("type 'job_result' is not known")
    assert refused(NODE_FRAMES, frame("utterance")).startswith("type 'utterance' is not known")


def test_a_type_that_is_a_book_is_quoted_in_part():
    text = refused(SESSION_FRAMES, json.dumps({"type": "x" * 100_000}))
    assert "x" * 64 in text
    assert "x" * 65 not in text


def test_of_a_key_given_twice_the_last_counts_for_the_message_and_for_what_is_carried():
    text = frame("utterance")[:-1] + ',"utter\\u0061nce_index":8}'
    message, fields = SESSION_FRAMES.decode(text)
    assert message.utterance_index == 8
    assert bytes(fields["utterance_index"]) == b"8"


def test_audio_is_never_decoded_but_must_be_text():
    assert not hasattr(SESSION_FRAMES.decode(frame("utterance")).message, "audio")
    assert not hasattr(NODE_FRAMES.decode(frame("job_result")).message, "tts_audio")


def _mangled(kind: str, name: str, value: object) -> str:
    return json.dumps({"type": kind, **EXAMPLES[kind], name: value})


def _values(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10), _values
)
names = sorted({"type", *(name for fields in EXAMPLES.values() for name in fields)})
mangled = st.builds(_mangled, st.sampled_from(sorted(EXAMPLES)), st.sampled_from(names), anything)
patched = st.builds(
    lambda text, at, junk: text.encode()[:at] + junk + text.encode()[at + len(junk) :],
    st.sampled_from(sorted(EXAMPLES)).map(frame),
    st.integers(0, 300),
    st.binary(min_size=1, max_size=4),
)


@settings(deadline=None, max_examples=600)
@given(
    st.binary(max_size=80)
    | st.text(max_size=80)
    | anything.map(json.dumps)
    | mangled
    | patched
    | mangled.map(str.encode),
    st.sampled_from([NODE_FRAMES, SESSION_FRAMES]),
)
@example(b"", NODE_FRAMES)
def test_whatever_comes_in_is_a_frame_or_an_invalid_message(data, decoder: FrameDecoder):
    try:
        message, fields = decoder.decode(data)
    except InvalidMessage as error:
        assert wire.error(error.code, str(error))  # noqa: PT017
        return
    assert json.loads(bytes(fields["type"])) == message.__struct_config__.tag
    if isinstance(message, wire.NodeRegister | wire.NodeHeartbeat):
        try:
            assert wire.capabilities_of(message).capability_by_type
        except InvalidCapability as error:
            assert wire.error(error.code, str(error))  # noqa: PT017


# Capabilities have an error code of their own.


def _register(**changes: object) -> wire.NodeRegister:
    message = NODE_FRAMES.decode(frame("node_register", **changes)).message
    assert isinstance(message, wire.NodeRegister)
    return message


def _heartbeat(*without: str, **changes: object) -> wire.NodeHeartbeat:
    given = json.loads(frame("node_heartbeat", **changes))
    kept = {name: value for name, value in given.items() if name not in without}
    message = NODE_FRAMES.decode(json.dumps(kept)).message
    assert isinstance(message, wire.NodeHeartbeat)
    return message


def test_the_schema_version_of_the_contract_is_taken():
    wire.check_schema_version(_register())


@pytest.mark.parametrize(
    "version", ["1.0", "2", "", 2.0, 2, None, ["2.0"], {"v": "2.0"}, "x" * 999]
)
def test_another_schema_version_is_refused_with_the_code_for_it(version: object):
    with pytest.raises(InvalidCapability, match=r"this scheduler speaks '2\.0'") as error:
        wire.check_schema_version(_register(capability_schema_version=version))
    assert error.value.code is ErrorCode.INVALID_CAPABILITY_SCHEMA
    assert isinstance(error.value, FrameRefused)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("number", ["1e999", "9" * 9_000], ids=["1e999", "digits"])
def test_a_schema_version_that_is_a_huge_number_is_refused_like_any_other(number: str):
    data = frame("node_register", capability_schema_version="HERE").replace('"HERE"', number)
    message = NODE_FRAMES.decode(data).message
    with pytest.raises(InvalidCapability):
        wire.check_schema_version(message)


@pytest.mark.parametrize(
    ("services", "words"),
    [
        ([], "name at least one service"),
        (None, "Expected `array`"),
        ({"asr": True}, "Expected `array`"),
        ([{"type": "asr"}], "missing required field `ready`"),
        ([{"type": "ocr", "ready": True}], "Invalid enum value"),
        ([{"type": "asr", "ready": 1}], "Expected `bool`"),
        ([{"type": "asr", "ready": True, "ready_impl_ids": "x"}], "ready_impl_ids"),
        ([ASR] * 257, "length"),
    ],
)
def test_services_that_do_not_fit_the_schema_are_refused(services: object, words: str):
    for message in (
        _register(capability_by_type=services),
        _heartbeat(capability_by_type=services),
    ):
        with pytest.raises(InvalidCapability, match=re.escape(words)):
            wire.capabilities_of(message)


@pytest.mark.parametrize(
    ("languages", "where"),
    [
        ([], "Expected `object | null`, got `array`"),
        ({"asr_languages": "en"}, "$.asr_languages"),
        ({"asr_languages": ["e n"]}, "$.asr_languages[0]"),
        ({"supported_language_pairs": [{"src": "zh"}]}, "`tgt`"),
        ({"supported_language_pairs": [["zh", "en"]]}, "$.supported_language_pairs[0]"),
        ({"nmt_capabilities": [{"model_id": "m", "languages": [], "rule": "all"}]}, "$.nmt_cap"),
    ],
)
def test_languages_that_do_not_fit_the_schema_are_refused(languages: object, where: str):
    with pytest.raises(InvalidCapability, match=re.escape(where)):
        wire.capabilities_of(_register(language_capabilities=languages))


@pytest.mark.parametrize("name", ["capability_by_type", "language_capabilities"])
def test_capabilities_nested_to_any_depth_are_refused_or_taken_and_nothing_else(name: str):
    outcomes = set()
    limit = sys.getrecursionlimit()  # Hypothesis may have raised it
    for depth in (1, 10, *range(limit // 2 - 150, limit // 2 + 5), limit, 100_000):
        text = frame("node_register", **{name: "HERE"})
        text = text.replace('"HERE"', '[{"x":' * depth + "1" + "}]" * depth)
        try:
            wire.capabilities_of(NODE_FRAMES.decode(text).message)
        except FrameRefused as error:
            outcomes.add(type(error))
    assert outcomes == {InvalidCapability, InvalidMessage}


def test_a_heartbeat_that_leaves_the_languages_out_keeps_those_from_before():
    before = wire.capabilities_of(_register())
    after = wire.capabilities_of(_heartbeat("language_capabilities"), before=before)
    assert after.language_capabilities == before.language_capabilities
    assert after.language_capabilities is not None
    unready = _heartbeat("language_capabilities", capability_by_type=[{**ASR, "ready": False}])
    changed = wire.capabilities_of(unready, before=before)
    assert changed == Capabilities(
        (ServiceCapability(ServiceType.ASR, ready=False),), before.language_capabilities
    )


def test_a_heartbeat_may_take_the_languages_back():
    before = wire.capabilities_of(_register())
    after = wire.capabilities_of(_heartbeat(language_capabilities=None), before=before)
    assert after.language_capabilities is None
    assert wire.capabilities_of(_heartbeat("language_capabilities")).language_capabilities is None
