"""Labels that a job asks of its node."""

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode


def encode(labels: Mapping[str, str]) -> str:
    """Labels as part of a name: in order, without a character that means something in keys."""
    return urlencode(sorted(labels.items())) if labels else ""


def decode(text: str) -> dict[str, str]:
    """What `encode` was given."""
    return dict(parse_qsl(text, keep_blank_values=True))


def has_labels(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these `labels` has all that is wanted."""
    return wanted.items() <= labels.items()


def in_words(labels: Mapping[str, str]) -> str:
    """The labels for a sentence, by name."""
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
