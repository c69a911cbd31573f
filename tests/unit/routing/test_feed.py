"""The feed: one look and one text for all viewers, and nothing where nobody watches."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from registry.domain.errors import StoreUnavailable
from routing.services.feed import Content, Feed
from tests.support.waiting import eventually


class Counter:
    """A topic that counts how often it is looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.changes = True
        self.failure: Exception | None = None

    async def refresh(self) -> None:
        self.looks += 1
        if self.failure is not None:
            raise self.failure

    def whole(self) -> Content:
        return {"looks": self.looks, "all": True}

    def news(self) -> Content | None:
        return {"looks": self.looks} if self.changes else None


class Screen:
    """A viewer that keeps what it is shown, unless it is behind."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.behind = False

    def show(self, text: str) -> bool:
        if not self.behind:
            self.texts.append(text)
        return not self.behind

    @property
    def frames(self) -> list[Any]:
        return [msgspec.json.decode(text) for text in self.texts]


class Stage:
    def __init__(self, *, tick_ms: int = 1_000) -> None:
        self.topics: dict[str, Counter] = {}
        self.tasks: list[asyncio.Task[object]] = []
        self.feed = Feed(self._open, spawn=self._spawn, tick_ms=tick_ms)

    def _open(self, name: str) -> Counter | None:
        if name == "unknown":
            return None
        return self.topics.setdefault(name, Counter())

    def _spawn(self, work: Coroutine[Any, Any, object]) -> object:
        work.close()  # the tests take the turns
        return None


async def test_fifty_viewers_cost_one_look_and_get_the_same_text() -> None:
    stage = Stage()
    screens = [Screen() for _ in range(50)]
    for screen in screens:
        stage.feed.watch(screen, ["cluster"])
    await stage.feed.turn()
    await stage.feed.turn()
    assert stage.topics["cluster"].looks == 2
    for place in (0, 1):
        assert len({id(screen.texts[place]) for screen in screens}) == 1
    assert stage.feed.viewers == 50


async def test_who_comes_gets_the_whole_then_what_is_new() -> None:
    stage, early, late = Stage(), Screen(), Screen()
    stage.feed.watch(early, ["cluster"])
    await stage.feed.turn()
    stage.feed.watch(late, ["cluster"])
    await stage.feed.turn()
    assert [frame.get("whole", False) for frame in early.frames] == [True, False]
    assert [frame.get("whole", False) for frame in late.frames] == [True]


async def test_nothing_is_sent_while_nothing_changes() -> None:
    stage, screen = Stage(), Screen()
    stage.feed.watch(screen, ["cluster"])
    await stage.feed.turn()
    stage.topics["cluster"].changes = False
    await stage.feed.turn()
    assert len(screen.texts) == 1


async def test_who_was_behind_gets_the_whole_again() -> None:
    stage, screen = Stage(), Screen()
    stage.feed.watch(screen, ["cluster"])
    await stage.feed.turn()
    screen.behind = True
    await stage.feed.turn()
    screen.behind = False
    await stage.feed.turn()
    assert [frame.get("whole", False) for frame in screen.frames] == [True, True]


async def test_a_topic_that_nobody_watches_is_not_looked_at() -> None:
    stage, screen = Stage(), Screen()
    stage.feed.watch(screen, ["cluster", "unknown"])
    await stage.feed.turn()
    stage.feed.watch(screen, ["pools"])
    await stage.feed.turn()
    stage.feed.leave(screen)
    await stage.feed.turn()
    assert {name: topic.looks for name, topic in stage.topics.items()} == {"cluster": 1, "pools": 1}
    assert stage.feed.viewers == 0


async def test_a_topic_whose_store_is_away_leaves_the_others_alone() -> None:
    stage, screen = Stage(), Screen()
    stage.feed.watch(screen, ["cluster", "pools"])
    stage.topics["cluster"].failure = StoreUnavailable("away")
    await stage.feed.turn()
    assert [frame["topic"] for frame in screen.frames] == ["pools"]


async def test_turns_are_taken_while_someone_watches_and_end_with_the_last() -> None:
    tasks: list[asyncio.Task[object]] = []
    feed = Feed(
        lambda _: Counter(),
        spawn=lambda work: tasks.append(asyncio.create_task(work)),
        tick_ms=260,
    )
    screen = Screen()
    feed.watch(screen, ["cluster"])
    await eventually(lambda: len(screen.texts) >= 2)
    feed.leave(screen)
    await asyncio.wait_for(tasks[0], 5)
    turns = feed.turns
    feed.watch(screen, ["cluster"])
    await eventually(lambda: feed.turns > turns)
    feed.leave(screen)
    await asyncio.wait_for(tasks[1], 5)
