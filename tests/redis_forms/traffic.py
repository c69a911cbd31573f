"""Work that flows while a test breaks something: one session, one node, on two instances.

Servers replicate behind the reply, so a failover may take the last writes with it. The client
does what ours is meant to do: an utterance that has no terminal message after a while is sent
again under its index, which makes it the same one.
"""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

from tests.support.agents import Frame, Node, Session, translating
from tests.support.cluster import Cluster, Instance
from tests.support.waiting import eventually

AT_ONCE = 4
PAUSE_S = 0.02
SAID_AGAIN_S = 1.0
RECOVERED_WITHIN_S = 25.0
ALL_ENDED_WITHIN_S = 40.0


def took(what: str, seconds: float) -> None:
    """Tell a figure to whoever runs the tests with `-s`."""
    sys.stdout.write(f"\n{what}: a translation after {seconds:.2f} s\n")


class Talk(Session):
    """A session that counts how often each utterance ended."""

    def __init__(self, url: str, src_lang: str, tgt_lang: str) -> None:
        super().__init__(url, src_lang, tgt_lang)
        self.ended: Counter[int] = Counter()
        self.succeeded: set[int] = set()
        self._ends: dict[int, asyncio.Event] = {}

    async def took(self, frame: Frame) -> None:
        if "seq" not in frame:
            return
        index = frame["utterance_index"]
        self.ended[index] += 1
        if frame["type"] == "translation_result":
            self.succeeded.add(index)
        self._end(index).set()

    async def end_of(self, index: int, *, within_s: float) -> bool:
        """Whether an utterance ends in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._end(index).wait()
        except TimeoutError:
            return False
        return True

    def _end(self, index: int) -> asyncio.Event:
        return self._ends.setdefault(index, asyncio.Event())


class Traffic:
    """Utterances of one session, `AT_ONCE` under way at any time."""

    def __init__(self, instances: list[Instance], session: Talk) -> None:
        self.instances = instances
        self.session = session
        self.said = 0
        self._stopping = False

    def succeeded(self, *, since: int = 0) -> int:
        """How many utterances from this index on came back translated."""
        return sum(index >= since for index in self.session.succeeded)

    def refusals(self) -> Counter[str]:
        """Error codes of utterances that were not taken, to be sent again."""
        return Counter(
            frame["code"]
            for frame in self.session.frames
            if frame["type"] == "error" and "seq" not in frame
        )

    async def flows(self, count: int = 20, *, within_s: float = RECOVERED_WITHIN_S) -> float:
        """Wait for so many translations of what is said from now on; seconds until the first."""
        began, since = time.monotonic(), self.said
        await eventually(
            lambda: self.succeeded(since=since),
            within_ms=int(within_s * 1000),
            what="a translation",
        )
        first_s = time.monotonic() - began
        await eventually(
            lambda: self.succeeded(since=since) >= count,
            within_ms=int(within_s * 1000),
            what=f"{count} translations",
        )
        return first_s

    async def ready(self) -> float:
        """Wait until all instances say that they are ready; seconds that took."""
        began = time.monotonic()
        for instance in self.instances:
            await eventually(partial(_is_ready, instance), what=f"{instance.name} to be ready")
        return time.monotonic() - began

    async def speak(self) -> None:
        """Say one after the other until told to stop; return when all have ended."""
        async with asyncio.TaskGroup() as speakers:
            for _ in range(AT_ONCE):
                speakers.create_task(self._speak())

    def stop(self) -> None:
        self._stopping = True

    async def _speak(self) -> None:
        while not self._stopping:
            index, self.said = self.said, self.said + 1
            give_up_at = time.monotonic() + ALL_ENDED_WITHIN_S
            await self.session.say(index)
            while not await self.session.end_of(index, within_s=SAID_AGAIN_S):
                assert time.monotonic() < give_up_at, f"utterance {index} was never ended"
                await self.session.say(index)
            await asyncio.sleep(PAUSE_S)

    def check(self) -> None:
        """I1: exactly one terminal message for each utterance, in one sequence without gaps."""
        assert self.session.ended == Counter(range(self.said))
        assert [f["seq"] for f in self.session.terminals] == list(range(1, self.said + 1))
        for instance in self.instances:
            assert instance.alive, f"{instance.name} ended"


@contextlib.asynccontextmanager
async def traffic(cluster: Cluster) -> AsyncIterator[Traffic]:
    """A session at instance a, its node at instance b; checked when the test is through."""
    a, b = await cluster.start_instances("a", "b")
    node = Node(b.node_url, "n1", "zh-en", slots=8, answer=translating("n1"))
    session = Talk(a.session_url, "zh", "en")
    async with node, session:
        await eventually(lambda: _serves(a), what="a pool at a")
        flow = Traffic([a, b], session)
        speaking = asyncio.create_task(flow.speak())
        try:
            await flow.flows()
            yield flow
            await flow.flows()
            await flow.ready()
            flow.stop()
            await asyncio.wait_for(speaking, ALL_ENDED_WITHIN_S)
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
        assert node.close_code is None, "the node's socket was closed"
        assert session.close_code is None, "the session's socket was closed"
        flow.check()


async def _serves(instance: Instance) -> bool:
    # In a thread: the node's heartbeats go on meanwhile.
    state = await asyncio.to_thread(instance.state)
    return any(pool["nodes"] for pool in state.get("pools", []))


async def _is_ready(instance: Instance) -> bool:
    status, _ = await asyncio.to_thread(instance.get, "/readyz")
    return status == 200
