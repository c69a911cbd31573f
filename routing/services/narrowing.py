"""Which members of a large pool may take a rare kind of job, found once and kept for a moment.

Looking through a pool of 10,000 costs milliseconds; doing so for every job would stop an instance.
What was found is dropped as soon as a node comes, goes or changes, and after a time, as loads
change too. So the cost is that of one look through the pool for each change or KEPT_MS, however
many jobs there are.
"""

from collections.abc import Callable, Sequence

from registry.domain.node import NodeSnapshot
from registry.services.ports import Clock
from registry.services.views import NodeViews

KEPT_MS = 250
"""How long nodes that are fit stay known as the only ones."""

MOST = 256
"""Kinds of jobs kept; with one more, all are dropped."""

Key = tuple[str, str, str, str]
"""Pool, pair and labels."""

Find = Callable[[], list[str]]


class Narrowed:
    """Lists of nodes by kind of job."""

    def __init__(self, views: NodeViews, clock: Clock) -> None:
        self._clock = clock
        self._found: dict[tuple[str, Key], tuple[int, list[str]]] = {}
        views.subscribe(self._changed)

    def members(self, key: Key, find: Find) -> Sequence[str]:
        """The members of a pool that have what such jobs need."""
        return self._get("members", key, find)

    def fit(self, key: Key, find: Find) -> Sequence[str]:
        """Those of them that may be given work now."""
        return self._get("fit", key, find)

    def _get(self, what: str, key: Key, find: Find) -> Sequence[str]:
        now_ms, known = self._clock(), self._found.get((what, key))
        if known is not None and now_ms < known[0]:
            return known[1]
        if len(self._found) >= MOST:
            self._found.clear()
        found = find()
        self._found[what, key] = (now_ms + KEPT_MS, found)
        return found

    def _changed(self, before: NodeSnapshot | None, after: NodeSnapshot | None) -> None:
        self._found.clear()
