"""A simulated session: sends utterances, counts what comes back, resumes when its socket breaks."""

import asyncio
import json
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

AUDIO = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAgD4AAAB9AAACABAAZGF0YQAAAAA=" * 8


@dataclass(slots=True)
class Tally:
    """What the sessions of one run saw, all together."""

    submitted: int = 0
    terminal: Counter[tuple[str, int]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    crossed: int = 0
    out_of_order: int = 0
    latency_ms: "deque[float]" = field(default_factory=lambda: deque(maxlen=1000))

    @property
    def done(self) -> int:
        return len(self.terminal)

    @property
    def in_flight(self) -> int:
        return self.submitted - self.done

    @property
    def doubled(self) -> int:
        return sum(count - 1 for count in self.terminal.values())

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


class SimulatedSession:
    """One client that talks in one language pair."""

    def __init__(
        self,
        urls: list[str],
        src_lang: str,
        tgt_lang: str,
        *,
        tally: Tally,
    ) -> None:
        self._urls = urls
        self._src_lang = src_lang
        self._tgt_lang = tgt_lang
        self._tally = tally
        self._session_id = ""
        self._token = ""
        self._last_seq = 0
        self._open: dict[int, float] = {}
        self._unacknowledged: set[int] = set()
        self._url = urls[0]
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, pause_s: float, stop: asyncio.Event) -> None:
        """Say one utterance after the other until `stop`, then wait for the last results."""
        index = 0
        while not (stop.is_set() and not self._open):
            self._url = self._urls[0]
            self._urls.append(self._urls.pop(0))
            try:
                async with connect(self._url, max_size=None) as socket:
                    await self._begin(socket)
                    reading = asyncio.create_task(self._read(socket))
                    try:
                        index = await self._speak(socket, index, pause_s, stop, reading)
                    finally:
                        reading.cancel()
            except (OSError, WebSocketException, TimeoutError):
                await asyncio.sleep(0.2)

    async def _begin(self, socket: ClientConnection) -> None:
        init: dict[str, Any] = {
            "type": "session_init",
            "client_version": "demo",
            "platform": "simulated",
            "src_lang": self._src_lang,
            "tgt_lang": self._tgt_lang,
        }
        if self._session_id:
            init["resume"] = {
                "session_id": self._session_id,
                "token": self._token,
                "last_seq": self._last_seq,
            }
        await socket.send(json.dumps(init))
        answer = json.loads(await asyncio.wait_for(socket.recv(), 10))
        if answer["type"] != "session_init_ack":
            raise OSError(answer.get("message", "session_init was not acknowledged"))
        self._session_id, self._token = answer["session_id"], answer["resume_token"]
        for index in sorted(self._unacknowledged):
            await socket.send(self._utterance(index))

    async def _speak(
        self,
        socket: ClientConnection,
        index: int,
        pause_s: float,
        stop: asyncio.Event,
        reading: "asyncio.Task[None]",
    ) -> int:
        while not stop.is_set() and not reading.done():
            self._tally.submitted += 1
            self._open[index] = time.perf_counter()
            self._unacknowledged.add(index)
            self._idle.clear()
            await socket.send(self._utterance(index))
            index += 1
            try:
                async with asyncio.timeout(pause_s):
                    await stop.wait()
            except TimeoutError:
                pass
        idle = asyncio.create_task(self._idle.wait())
        await asyncio.wait({reading, idle}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        return index

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                self._take(json.loads(text))
        except ConnectionClosed:
            pass

    def _take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "utterance_ack":
            self._unacknowledged.discard(frame["utterance_index"])
            return
        if "utterance_index" not in frame or frame["type"] == "asr_partial":
            return
        if "seq" in frame:
            self._tally.out_of_order += frame["seq"] != self._last_seq + 1
            self._last_seq = frame["seq"]
        index = frame["utterance_index"]
        self._tally.terminal[self._session_id, index] += 1
        self._unacknowledged.discard(index)
        began = self._open.pop(index, None)
        if began is not None:
            self._tally.latency_ms.append((time.perf_counter() - began) * 1000)
        if frame["type"] == "error":
            self._tally.errors[frame["code"]] += 1
        elif frame["served_at"] != self._url.rpartition("/ws/")[0]:
            self._tally.crossed += 1
        if not self._open:
            self._idle.set()

    def _utterance(self, index: int) -> str:
        return json.dumps(
            {
                "type": "utterance",
                "session_id": self._session_id,
                "utterance_index": index,
                "manual_cut": False,
                "src_lang": self._src_lang,
                "tgt_lang": self._tgt_lang,
                "audio": AUDIO,
                "audio_format": "wav",
                "sample_rate": 16000,
            }
        )
