"""What many people look at, worked out once: topics, looked at while someone watches them.

A turn refreshes each watched topic, encodes what is new once, and hands the same text to all its
viewers. One who just came, or fell behind, gets the whole instead, encoded once a turn too. With
no viewer nothing runs.

Not promised: every state in between. A viewer sees the newest, at most one turn old.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec
import structlog

from registry.domain.errors import StoreUnavailable

log = structlog.get_logger(__name__)

TICK_MS = 1_000
SHORTEST_PAUSE_MS = 250
"""Between two turns when new viewers keep coming."""

TOPICS_OF_A_VIEWER = 8
LONGEST_TOPIC = 200

Content = dict[str, Any]


class Topic(Protocol):
    """Something to be watched."""

    async def refresh(self) -> None:
        """Look again; may raise StoreUnavailable."""

    def whole(self) -> Content:
        """All of it, as of the last refresh."""

    def news(self) -> Content | None:
        """What the last refresh changed; None when nothing."""


class Viewer(Protocol):
    """Someone who watches."""

    def show(self, text: str) -> bool:
        """Hand a frame over; False when the viewer is behind and did not get it."""


class Feed:
    """The topics of one instance, and who watches them."""

    def __init__(
        self,
        open_topic: Callable[[str], Topic | None],
        *,
        spawn: Callable[[Coroutine[Any, Any, object]], object],
        right_for: Callable[[str], str] = lambda _: "",
        tick_ms: int = TICK_MS,
    ) -> None:
        self._open_topic = open_topic
        self._spawn = spawn
        self.right_for = right_for
        self._tick_ms = tick_ms
        self._topics: dict[str, Topic] = {}
        self._viewers: dict[str, dict[Viewer, bool]] = {}  # topic to viewers: up to date?
        self._woken = asyncio.Event()
        self._running = False
        self.turns = 0
        self.encoded_bytes = 0

    @property
    def viewers(self) -> int:
        return len({viewer for some in self._viewers.values() for viewer in some})

    def watch(self, viewer: Viewer, names: list[str]) -> None:
        """Show the viewer these topics, and no others, from the next turn on, which is soon."""
        self.leave(viewer)
        for name in dict.fromkeys(names[:TOPICS_OF_A_VIEWER]):
            topic = self._topics.get(name)
            if topic is None and len(name) <= LONGEST_TOPIC:
                topic = self._open_topic(name)
            if topic is not None:
                self._topics[name] = topic
                self._viewers.setdefault(name, {})[viewer] = False
        self._woken.set()
        if self._viewers and not self._running:
            self._running = True
            self._spawn(self._run())

    def leave(self, viewer: Viewer) -> None:
        for name, viewers in list(self._viewers.items()):
            viewers.pop(viewer, None)
            if not viewers:
                del self._viewers[name]
                self._topics.pop(name, None)

    async def turn(self) -> None:
        """Refresh what is watched, and show it."""
        self.turns += 1
        for name, topic in list(self._topics.items()):
            try:
                await topic.refresh()
                self._show(name, topic)
            except StoreUnavailable:
                pass  # the pages say by themselves that the store is away
            except Exception:
                log.exception("topic failed", topic=name)

    def _show(self, name: str, topic: Topic) -> None:
        viewers = self._viewers.get(name, {})
        news, whole = topic.news(), None
        text = self._encode(name, news) if news is not None and any(viewers.values()) else None
        for viewer, current in list(viewers.items()):
            if not current:
                whole = whole or self._encode(name, topic.whole() | {"whole": True})
                viewers[viewer] = viewer.show(whole)
            elif text is not None:
                viewers[viewer] = viewer.show(text)

    def _encode(self, name: str, content: Content) -> str:
        encoded = msgspec.json.encode({"topic": name} | content)
        self.encoded_bytes += len(encoded)
        return encoded.decode()

    async def _run(self) -> None:
        try:
            while self._viewers:
                self._woken.clear()
                await self.turn()
                await asyncio.sleep(SHORTEST_PAUSE_MS / 1000)
                try:
                    async with asyncio.timeout((self._tick_ms - SHORTEST_PAUSE_MS) / 1000):
                        await self._woken.wait()
                except TimeoutError:
                    pass
        finally:
            self._running = False
