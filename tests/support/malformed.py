"""Frames that no message can be read from, for either socket."""

from tests.support.agents import Frame

DEPTH = 100_000

MALFORMED: dict[str, str | bytes] = {
    "words": "hello, is this the scheduler?",
    "empty text": "",
    "blanks": "  \n ",
    "array": "[]",
    "number": "7",
    "text": '"node_register"',
    "null": "null",
    "true": "true",
    "cut off": '{"type": "node_heart',
    "trailing comma": '{"type": "node_error",}',
    "single quotes": "{'type': 'node_error'}",
    "two objects": '{"type": "node_error"}{"type": "node_error"}',
    "byte order mark": '\ufeff{"type": "node_error"}',
    "raw null byte": '{"type": "node_error", "code": "a\x00b"}',
    "no type": '{"node_id": "n1", "session_id": "s-1"}',
    "empty object": "{}",
    "type null": '{"type": null}',
    "type number": '{"type": 3}',
    "type array": '{"type": ["node_register"]}',
    "type object": '{"type": {"type": "node_register"}}',
    "type empty": '{"type": ""}',
    "type unknown": '{"type": "make_coffee"}',
    "type in capitals": '{"type": "NODE_REGISTER"}',
    "type from the scheduler": '{"type": "job_assign"}',
    "type with a null byte": '{"type": "node_register\\u0000"}',
    "type very long": '{"type": "' + "x" * 100_000 + '"}',
    "type a lone surrogate": '{"type": "\\ud800"}',
    "type twice, the last unknown": '{"type": "node_register", "type": "make_coffee"}',
    "lone surrogate": '{"type": "node_error", "message": "\\udfff"}',
    "lone surrogate as key": '{"type": "node_error", "\\ud800": 1}',
    "NaN": '{"type": "node_error", "code": NaN}',
    "Infinity": '{"type": "node_error", "code": Infinity}',
    "-Infinity": '{"type": "node_error", "code": -Infinity}',
    "leading zero": '{"type": "node_error", "code": 007}',
    "deep arrays": '{"type": "node_error", "code": ' + "[" * DEPTH + "]" * DEPTH + "}",
    "deep objects": '{"a":' * DEPTH + "1" + "}" * DEPTH,
    "binary": b'{"type": "node_register"}',
    "binary, not text": b"\xff\x00\xfe",
    "empty binary": b"",
}


def is_a_sentence(error: Frame) -> bool:
    """Whether an `error` frame tells a person something, and nothing of our inside."""
    message = error["message"]
    return 10 < len(message) < 1_000 and " " in message and "Traceback" not in message
