"""What each page shows, as parts: pieces of HTML that are drawn once and kept fresh by the feed.

A topic such as `pool:zh-en` has the parts of one page. The view draws them into the page, the
feed draws them again and sends those that differ: one template for both. Parts are the same for
every viewer, so nothing in them depends on who looks.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from django.template.loader import get_template

from registry.domain.errors import StoreUnavailable
from routing.ops import subjects, work
from routing.ops_wiring import Ops
from routing.services.deadletters import LetterMark
from routing.services.feed import Content, Topic
from routing.services.node_list import NodesTopic

VIEW_LETTERS = "routing.view_deadletters"

Context = dict[str, Any]
Parts = dict[str, str]
Drawn = dict[str, Context]
"""Template names under ops/parts/, each with its context."""

PAGES: dict[str, Callable[[Ops, str], Awaitable[Drawn]]] = {
    "bar": subjects.bar,
    "cluster": subjects.cluster,
    "node": subjects.node,
    "pools": subjects.pools,
    "pool": subjects.pool,
    "tasks": work.tasks,
    "task": work.task,
    "sessions": subjects.sessions,
    "session": subjects.session,
    "queues": work.queues,
    "letters": work.letters,
    "letter": work.letter,
    "alerts": subjects.alerts,
}


async def draw(ops: Ops, topic: str) -> Parts:
    """The parts of a topic; raises KeyError where there is no such kind of page."""
    kind, _, subject = topic.partition(":")
    try:
        drawn = await PAGES[kind](ops, subject)
    except StoreUnavailable as error:
        drawn = {"away": {"error": str(error)}}
    return {name: _render(name, context) for name, context in drawn.items()}


def open_topic(ops: Ops, name: str) -> Topic | None:
    """The topic of a name, for the feed; None where there is none."""
    if name == "nodes":
        return NodesTopic(ops.nodes)
    if name == "history":
        return HistoryTopic(ops)
    kind = name.partition(":")[0]
    if kind == "letters":
        return LettersTopic(ops, name)
    return PageTopic(ops, name) if kind in PAGES else None


def right_for(name: str) -> str:
    """The permission that one needs to watch a topic; empty where being staff is enough."""
    return VIEW_LETTERS if name.partition(":")[0] in ("letters", "letter") else ""


class PageTopic:
    """The parts of a page; news are those that look different now."""

    def __init__(self, ops: Ops, name: str) -> None:
        self._ops = ops
        self._name = name
        self._parts: Parts = {}
        self._changed: Parts = {}

    async def refresh(self) -> None:
        parts = await draw(self._ops, self._name)
        self._changed = {
            name: text for name, text in parts.items() if self._parts.get(name) != text
        }
        self._parts = parts

    def whole(self) -> Content:
        return {"parts": self._parts}

    def news(self) -> Content | None:
        return {"parts": self._changed} if self._changed else None


class LettersTopic(PageTopic):
    """A page of dead letters: read again only if some came or went, as a filter reads many."""

    def __init__(self, ops: Ops, name: str) -> None:
        super().__init__(ops, name)
        self._mark: LetterMark | None = None

    async def refresh(self) -> None:
        mark = await self._ops.routing.letters.mark()
        if mark == self._mark:
            self._changed = {}
            return
        await super().refresh()
        self._mark = None if "away" in self._parts else mark


class HistoryTopic:
    """The last 15 minutes; news is the last sample."""

    def __init__(self, ops: Ops) -> None:
        self._history = ops.pulse.history
        self._told_at_ms = 0
        self._fresh = False

    async def refresh(self) -> None:
        at_ms = self._history.samples[-1].at_ms if self._history.samples else 0
        self._fresh = at_ms != self._told_at_ms
        self._told_at_ms = at_ms

    def whole(self) -> Content:
        return {
            "samples": list(self._history.samples),
            "pools": {
                name: {"members": list(trail.members), "queued": list(trail.queued)}
                for name, trail in self._history.pools.items()
            },
        }

    def news(self) -> Content | None:
        if not self._fresh:
            return None
        return {
            "samples": [self._history.samples[-1]],
            "pools": {
                name: {"members": [trail.members[-1]], "queued": [trail.queued[-1]]}
                for name, trail in self._history.pools.items()
            },
        }


def _render(name: str, context: Context) -> str:
    """HTML, as plain text: what it says is escaped by the template."""
    return str.__str__(get_template(f"ops/parts/{name}.html").render(context)).strip()
