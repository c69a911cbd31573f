"""No secret reaches a log, whoever puts it there: by the name of its field, or by its look.

Not promised: that a secret without a known look is masked inside a sentence.
"""

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any

MASK = "***"
SECRET_FIELDS = re.compile(
    r"(?i)(?:^|[_-])(?:secret|password|passwd|token|credential_key|authorization|cookie|sha256"
    r"|token_hash|api_key|private_key|audio|tts_audio)(?:$|[_-]?(?:hash|key)$)"
)
SECRET_LOOKS = re.compile(
    r"(?:(?:node|sched)_[A-Za-z0-9_-]{9})[A-Za-z0-9_-]{20,}"  # operators' tokens, credentials
    r"|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # RFC 7519
    r"|(?<=://)[^\s/@]*:[^\s/@]+(?=@)"  # user and password of an address
    r"|(?i:(?<=bearer )|(?<=bearer\.))[A-Za-z0-9._~+/=-]{8,}"
)


def mask(text: str) -> str:
    """The text, with what looks like a secret masked."""
    return SECRET_LOOKS.sub(MASK, text)


def mask_secrets(logger: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor; to be put after those that make texts of exceptions."""
    for name, value in event.items():
        if SECRET_FIELDS.search(name) is not None:
            event[name] = MASK
        elif isinstance(value, str):
            event[name] = mask(value)
        elif isinstance(value, Mapping | list | tuple | BaseException):
            event[name] = mask(str(value))
    return event


class MaskingFormatter(logging.Formatter):
    """The same for the standard library's logging, stacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))
