"""Clients that outlive their sockets: they go on at the next instance, as real ones do.

A node works on while it has no socket, and names what it works on when it is back. A session says
again what was not acknowledged, and resumes behind the last message that it got.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.agents import Frame, heartbeat, registration, result

RETRY_S = 0.05
SAY_AGAIN_S = 1.0
BEAT_S = 0.5
OPEN_TIMEOUT_S = 5.0
GONE = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, EOFError)


class RoamingNode:
    """A node agent over several instances. `work_s` is what a job takes it.

    With `names` it tells at its return what it works on; else it has forgotten. `began` is every
    attempt that it began, with the moment; `run` never returns.
    """

    def __init__(
        self,
        urls: Sequence[str],
        node_id: str,
        *pairs: str,
        slots: int = 4,
        work_s: float = 0.2,
        names: bool = True,
        acknowledges: bool = True,
    ) -> None:
        self.node_id = node_id
        self.began: list[tuple[str, int, float]] = []
        self.cancelled: list[str] = []
        self.connected = asyncio.Event()
        self.held: dict[str, Frame] = {}
        self.at = ""
        self._urls = itertools.cycle(urls)
        self._pairs = pairs
        self._slots = slots
        self._work_s = work_s
        self._names = names
        self._acknowledges = acknowledges
        self._works: dict[str, asyncio.Task[None]] = {}
        self._socket: ClientConnection | None = None
        self.released = asyncio.Event()
        """Set, it lets go of what it works on at once."""

    async def run(self) -> None:
        try:
            while True:
                with contextlib.suppress(*GONE):
                    await self._serve(next(self._urls))
                self._socket, self.at = None, ""
                self.connected.clear()
                await asyncio.sleep(RETRY_S)
        finally:
            for work in self._works.values():
                work.cancel()

    def break_off(self) -> None:
        """Lose the connection without a word."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def _serve(self, url: str) -> None:
        async with connect(
            url, max_size=None, open_timeout=OPEN_TIMEOUT_S, close_timeout=0.1
        ) as socket:
            if not self._names:
                for work in self._works.values():
                    work.cancel()
                self.held.clear()
            running = [
                {"job_id": job["job_id"], "attempt_id": job["attempt_id"]}
                for job in self.held.values()
            ]
            more = {"running_jobs": running}
            await socket.send(
                json.dumps(registration(self.node_id, *self._pairs, slots=self._slots, **more))
            )
            self._socket, self.at = socket, url
            beating = asyncio.create_task(self._beat(socket))
            try:
                async for text in socket:
                    await self._took(json.loads(text))
            finally:
                beating.cancel()

    async def _beat(self, socket: ClientConnection) -> None:
        with contextlib.suppress(*GONE):
            while True:
                await asyncio.sleep(BEAT_S)
                await socket.send(json.dumps(heartbeat(self.node_id, *self._pairs)))

    async def _took(self, frame: Frame) -> None:
        if frame["type"] == "node_register_ack":
            self.connected.set()
        elif frame["type"] == "job_assign":
            job_id = frame["job_id"]
            self.began.append((job_id, frame["attempt_id"], time.monotonic()))
            self.held[job_id] = frame
            if self._acknowledges:
                await self._say({"type": "job_ack", **self._of(frame)})
            self._works[job_id] = asyncio.create_task(self._work(frame))
        elif frame["type"] == "job_cancel":
            self.cancelled.append(frame["job_id"])
            self.held.pop(frame["job_id"], None)
            work = self._works.pop(frame["job_id"], None)
            if work is not None:
                work.cancel()

    async def _work(self, job: Frame) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.released.wait(), self._work_s)
        while self.held.get(job["job_id"]) is job:
            await self.connected.wait()
            if await self._say(result(job, self.node_id)):
                self.held.pop(job["job_id"], None)
                return
            await asyncio.sleep(RETRY_S)

    async def _say(self, frame: Frame) -> bool:
        if self._socket is None:
            return False
        try:
            await self._socket.send(json.dumps(frame))
        except GONE:
            return False
        return True

    def _of(self, job: Frame) -> Frame:
        names = ("job_id", "attempt_id", "session_id", "trace_id")
        return {name: job[name] for name in names} | {"node_id": self.node_id}


class RoamingSession:
    """A client over several instances, which says `count` utterances at once."""

    def __init__(self, urls: Sequence[str], src_lang: str, tgt_lang: str, *, count: int) -> None:
        self.acknowledged: set[int] = set()
        self.terminals: dict[int, list[Frame]] = {}
        self.ended_at: dict[int, float] = {}
        self.session_id = ""
        self._urls = itertools.cycle(urls)
        self._init = {
            "type": "session_init",
            "client_version": "1",
            "platform": "web",
            "src_lang": src_lang,
            "tgt_lang": tgt_lang,
        }
        self._token = ""
        self._last_seq = 0
        self._count = count
        self.done = asyncio.Event()

    @property
    def lost(self) -> list[int]:
        """What was acknowledged and has not ended."""
        return sorted(self.acknowledged - set(self.terminals))

    @property
    def doubled(self) -> list[int]:
        """What ended more than once."""
        return sorted(index for index, frames in self.terminals.items() if len(frames) > 1)

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(frames[0].get("code", "success") for frames in self.terminals.values())

    async def run(self) -> None:
        """Until all has ended."""
        while not self.done.is_set():
            with contextlib.suppress(*GONE):
                await self._serve(next(self._urls))
            if not self.done.is_set():
                await asyncio.sleep(RETRY_S)

    async def _serve(self, url: str) -> None:
        async with connect(
            url, max_size=None, open_timeout=OPEN_TIMEOUT_S, close_timeout=0.1
        ) as socket:
            resume = {
                "session_id": self.session_id,
                "token": self._token,
                "last_seq": self._last_seq,
            }
            await socket.send(
                json.dumps(self._init | ({"resume": resume} if self.session_id else {}))
            )
            saying: asyncio.Task[None] | None = None
            try:
                async for text in socket:
                    frame = json.loads(text)
                    if frame["type"] == "session_init_ack":
                        self.session_id = frame["session_id"]
                        self._token = frame["resume_token"]
                        saying = asyncio.create_task(self._say(socket))
                    elif frame["type"] == "utterance_ack":
                        self.acknowledged.add(frame["utterance_index"])
                    elif "seq" in frame:
                        self._ended(frame)
                        if self.done.is_set():
                            return
                    elif frame["type"] == "error" and saying is None:
                        return  # Not opened, or not resumed, here and now.
            finally:
                if saying is not None:
                    saying.cancel()

    async def _say(self, socket: ClientConnection) -> None:
        with contextlib.suppress(*GONE):
            while missing := set(range(self._count)) - self.acknowledged - set(self.terminals):
                for index in sorted(missing):
                    await socket.send(json.dumps(self._utterance(index)))
                await asyncio.sleep(SAY_AGAIN_S)

    def _ended(self, frame: Frame) -> None:
        index = frame["utterance_index"]
        self._last_seq = max(self._last_seq, frame["seq"])
        self.terminals.setdefault(index, []).append(frame)
        self.ended_at.setdefault(index, time.monotonic())
        if len(self.terminals) == self._count:
            self.done.set()

    def _utterance(self, index: int) -> Frame:
        return {
            "type": "utterance",
            "session_id": self.session_id,
            "utterance_index": index,
            "manual_cut": False,
            "src_lang": self._init["src_lang"],
            "tgt_lang": self._init["tgt_lang"],
            "audio": "UklGRg==",
            "audio_format": "wav",
            "sample_rate": 16000,
        }
