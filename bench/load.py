"""The clients of `bench outage`: `python -m bench.load SPEC`, SPEC being JSON.

Nodes that answer after a time of work, and sessions that each wait for the end of one utterance
before they say the next. Every tenth of a second a line of JSON says how many have ended by then.
When standard input ends, the sessions stop, and the last line says what came of each utterance.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.support.agents import heartbeat, registration, result

PAIR = ("zh", "en")
TELL_S = 0.1
AGAIN_S = 0.1
UNANSWERED_S = 1.0
LAST_RESULTS_S = 60.0
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
Frame = dict[str, Any]


class Spec(msgspec.Struct):
    instances: list[str]
    nodes: int
    sessions: int
    slots: int
    work_ms: int
    heartbeat_ms: int


class Tally:
    """What all clients saw."""

    def __init__(self) -> None:
        self.accepted: set[tuple[str, int]] = set()
        self.ended: Counter[tuple[str, int]] = Counter()
        self.said_again = 0
        self.refusals: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.closed: list[str] = []
        self.stopping = False

    def summary(self) -> Frame:
        return {
            "ended": len(self.ended),
            "lost": len(self.accepted - self.ended.keys()),
            "doubled": sum(self.ended.values()) - len(self.ended),
            "said_again": self.said_again,
            "refusals": dict(self.refusals),
            "failures": dict(self.failures),
            "closed": self.closed,
        }


class Node:
    """One node; when its socket closes it is noted, and it connects again."""

    def __init__(self, url: str, node_id: str, spec: Spec, tally: Tally) -> None:
        self._url = url
        self._node_id = node_id
        self._spec = spec
        self._tally = tally
        self._work: set[asyncio.Task[None]] = set()
        self.ready = asyncio.Event()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                async with connect(self._url, max_size=None, compression=None) as socket:
                    await self._serve(socket)
            if not self._tally.stopping:
                self._tally.closed.append(self._node_id)
            await asyncio.sleep(0.2)

    async def _serve(self, socket: ClientConnection) -> None:
        pair = "-".join(PAIR)
        frame = registration(self._node_id, pair, slots=self._spec.slots)
        await socket.send(_encode(frame), text=True)
        beat = asyncio.create_task(self._beat(socket, pair))
        try:
            async for text in socket:
                frame = _decode(text)
                if frame["type"] == "node_register_ack":
                    self.ready.set()
                elif frame["type"] == "job_assign":
                    work = asyncio.create_task(self._answer(socket, frame))
                    self._work.add(work)
                    work.add_done_callback(self._work.discard)
        finally:
            beat.cancel()

    async def _answer(self, socket: ClientConnection, job: Frame) -> None:
        await asyncio.sleep(self._spec.work_ms / 1000)
        with contextlib.suppress(ConnectionClosed):
            await socket.send(_encode(result(job, self._node_id)), text=True)

    async def _beat(self, socket: ClientConnection, pair: str) -> None:
        while True:
            await asyncio.sleep(self._spec.heartbeat_ms / 1000)
            await socket.send(_encode(heartbeat(self._node_id, pair)), text=True)


class Session:
    """One client; resumes when its socket closes, which is noted."""

    def __init__(self, url: str, name: str, tally: Tally) -> None:
        self._url = url
        self._name = name
        self._tally = tally
        self._session_id = ""
        self._token = ""
        self._last_seq = 0
        self._index = 0
        self._acknowledged = False
        self._answered = asyncio.Event()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                async with connect(self._url, max_size=None, compression=None) as socket:
                    await self._begin(socket)
                    reading = asyncio.create_task(self._read(socket))
                    try:
                        await self._talk(socket)
                        return
                    finally:
                        reading.cancel()
            self._tally.closed.append(self._name)
            await asyncio.sleep(0.2)

    async def _begin(self, socket: ClientConnection) -> None:
        frame: Frame = {
            "type": "session_init",
            "client_version": "bench",
            "platform": "web",
            "src_lang": PAIR[0],
            "tgt_lang": PAIR[1],
        }
        if self._session_id:
            frame["resume"] = {
                "session_id": self._session_id,
                "token": self._token,
                "last_seq": self._last_seq,
            }
        await socket.send(_encode(frame), text=True)
        ack = _decode(await asyncio.wait_for(socket.recv(), 10))
        if ack["type"] != "session_init_ack":
            raise OSError(ack.get("message"))
        self._session_id, self._token = ack["session_id"], ack["resume_token"]

    async def _talk(self, socket: ClientConnection) -> None:
        while not self._tally.stopping:
            await self._utter(socket)
            self._index += 1
            self._acknowledged = False

    async def _utter(self, socket: ClientConnection) -> None:
        """Say one utterance, again whenever it was refused or not answered, until it ended."""
        self._ended.clear()
        while not self._ended.is_set():
            if not self._acknowledged:
                self._answered.clear()
                await socket.send(self._utterance(), text=True)
            try:
                async with asyncio.timeout(UNANSWERED_S):
                    await (self._ended if self._acknowledged else self._answered).wait()
            except TimeoutError:
                self._tally.said_again += not self._acknowledged
                continue
            if not self._acknowledged and not self._ended.is_set():
                self._tally.said_again += 1
                await asyncio.sleep(AGAIN_S)

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                self._take(_decode(text))
        except ConnectionClosed:
            pass

    def _take(self, frame: Frame) -> None:
        kind, index = frame["type"], frame.get("utterance_index", self._index)
        if "seq" in frame:
            self._last_seq = max(self._last_seq, frame["seq"])
            self._tally.ended[self._session_id, index] += 1
            if kind == "error":
                self._tally.failures[frame["code"]] += 1
            if index == self._index:
                self._acknowledged = True
                self._ended.set()
                self._answered.set()
        elif kind == "utterance_ack":
            self._tally.accepted.add((self._session_id, index))
            if index == self._index:
                self._acknowledged = True
                self._answered.set()
        elif kind == "error":
            self._tally.refusals[frame["code"]] += 1
            self._answered.set()

    def _utterance(self) -> bytes:
        return _encode(
            {
                "type": "utterance",
                "session_id": self._session_id,
                "utterance_index": self._index,
                "manual_cut": False,
                "src_lang": PAIR[0],
                "tgt_lang": PAIR[1],
                "audio": "UklGRg==" * 100,
                "audio_format": "wav",
                "sample_rate": 16000,
            }
        )


async def main(spec: Spec) -> None:
    tally = Tally()
    hosts = spec.instances
    nodes = [
        Node(f"{hosts[n % len(hosts)]}/ws/node", f"node-{n}", spec, tally)
        for n in range(spec.nodes)
    ]
    node_tasks = [asyncio.create_task(node.run()) for node in nodes]
    await asyncio.gather(*(node.ready.wait() for node in nodes))
    await asyncio.sleep(2)
    sessions = [
        asyncio.create_task(Session(f"{hosts[n % len(hosts)]}/ws/session", f"s-{n}", tally).run())
        for n in range(spec.sessions)
    ]
    telling = asyncio.create_task(_tell(tally))
    await asyncio.to_thread(sys.stdin.read)
    tally.stopping = True
    _, unfinished = await asyncio.wait(sessions, timeout=LAST_RESULTS_S)
    telling.cancel()
    _say({"final": tally.summary() | {"unfinished": len(unfinished)}})
    for task in [*node_tasks, *unfinished]:
        task.cancel()
    await asyncio.gather(*node_tasks, *unfinished, return_exceptions=True)


async def _tell(tally: Tally) -> None:
    while True:
        _say({"at": time.monotonic(), "ended": len(tally.ended), "closed": len(tally.closed)})
        await asyncio.sleep(TELL_S)


def _say(line: Frame) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Spec)))
