"""Labels that a job asks of its node, and the name of the queue that such jobs wait in.

A queue holds jobs that the same nodes may take: so the labels are part of its name, and whoever
pulls reads off it what is asked. Jobs whose labels no node has never come to a queue, which bounds
how many there are.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

MARK = "?"


def queue_name(base: str, labels: Mapping[str, str]) -> str:
    """The queue of jobs with these labels, of those that wait in `base` without."""
    return f"{base}{MARK}{urlencode(sorted(labels.items()))}" if labels else base


def split_queue(name: str) -> tuple[str, dict[str, str]]:
    """What `queue_name` was made of."""
    base, _, query = name.partition(MARK)
    return base, dict(parse_qsl(query, keep_blank_values=True))


def has_labels(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a node with these `labels` has all that is wanted."""
    return wanted.items() <= labels.items()


def in_words(labels: Mapping[str, str]) -> str:
    """The labels for a sentence, by name."""
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
