"""Secrets are masked in logs by their field's name and by their look; ids are not."""

import logging
from typing import Any

import pytest

from registry.masking import MASK, MaskingFormatter, mask, mask_secrets

KEY = "node_" + "aB3_" * 10 + "xyz"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ0ZW5hbnQiOiJhIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "field",
    [
        "token",
        "resume_token",
        "token_hash",
        "password",
        "Authorization",
        "secret",
        "audio",
        "cookie",
    ],
)
def test_a_field_of_a_secrets_name_is_masked_whatever_it_holds(field: str) -> None:
    masked = mask_secrets(None, "info", {"event": "x", field: "plain"})
    assert masked == {"event": "x", field: MASK}


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY.replace("node_", "sched_"),
        JWT,
        f"Bearer {'a' * 20}",
        f"bearer.{'a' * 20}",
        "redis://user:hunter22@host:6379/0",
    ],
)
def test_what_looks_like_a_secret_is_masked_inside_a_sentence(text: str) -> None:
    masked = mask(f"before {text} after")
    assert MASK in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    for secret in (KEY, KEY[14:], JWT, "a" * 20, "hunter22"):
        assert secret not in masked


@pytest.mark.parametrize(
    "fields",
    [
        {"node_id": "node-0123456789abcdef0123456789abcdef"},
        {"session_id": "s-0123456789abcdef0123ab", "job_id": "s-0123456789abcdef0123ab:17"},
        {"credential": "node_aB3_aB3_", "connection_epoch": 4},
        {"event": "session opened", "tenant": "acme", "trace_id": "ab" * 16},
        {"reason": "redis://127.0.0.1:6379 refused the connection"},
    ],
)
def test_what_a_reader_needs_is_left(fields: dict[str, Any]) -> None:
    assert mask_secrets(None, "info", dict(fields)) == fields


def test_secrets_inside_other_values_are_masked_too() -> None:
    event = mask_secrets(
        None, "info", {"event": "x", "detail": {"a": [KEY]}, "error": ValueError(JWT)}
    )
    assert KEY not in str(event)
    assert JWT not in str(event)


def test_stacks_of_the_standard_library_are_masked() -> None:
    try:
        raise ValueError(KEY)
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "failed with %s", (JWT,), (type(error), error, None)
        )
    text = MaskingFormatter("%(message)s").format(record)
    assert "ValueError" in text
    assert KEY not in text
    assert JWT not in text
