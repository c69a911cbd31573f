"""Clients for tests: a node agent and a session that speak the contract over real sockets."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

SERVICES = ("asr", "nmt", "tts", "semantic")
TIMEOUT_S = 15.0
HEARTBEAT_S = 0.5
Frame = dict[str, Any]
Answer = Callable[[Frame], list[Frame]]


def capabilities(*pairs: str) -> Frame:
    """Capability fields of a node that is ready for pairs such as "zh-en"."""
    split = [pair.split("-") for pair in pairs]
    return {
        "capability_by_type": [{"type": service, "ready": True} for service in SERVICES],
        "language_capabilities": {
            "supported_language_pairs": [{"src": src, "tgt": tgt} for src, tgt in split]
        },
    }


def registration(node_id: str | None, *pairs: str, slots: int | None = 4, **more: Any) -> Frame:
    frame = {
        "type": "node_register",
        "node_id": node_id,
        "version": "1.0.0",
        "capability_schema_version": "2.0",
        "platform": "linux",
        "hardware": {"cpu_cores": 8, "memory_gb": 32, "gpus": [{"name": "A", "memory_gb": 12}]},
        "installed_models": [],
        "installed_services": [],
        "features_supported": {},
        "accept_public_jobs": True,
        **capabilities(*pairs),
        **more,
    }
    return frame if slots is None else frame | {"max_concurrent_jobs": slots}


def heartbeat(node_id: str, *pairs: str, **more: Any) -> Frame:
    return {
        "type": "node_heartbeat",
        "node_id": node_id,
        "timestamp": 0,
        "resource_usage": {"cpu_percent": 5.0, "mem_percent": 5.0, "running_jobs": 0},
        "installed_services": [],
        **capabilities(*pairs),
        **more,
    }


def result(job: Frame, node_id: str, **more: Any) -> Frame:
    return {
        "type": "job_result",
        "job_id": job["job_id"],
        "attempt_id": job["attempt_id"],
        "node_id": node_id,
        "session_id": job["session_id"],
        "utterance_index": job["utterance_index"],
        "success": True,
        "text_asr": "heard",
        "text_translated": "translated",
        "tts_audio": job["audio"],
        "tts_format": "wav",
        "trace_id": job["trace_id"],
        **more,
    }


OPENED: "list[Peer]" = []
"""Peers of the test that runs, to be closed after it whatever it did with them."""


async def close_peers() -> None:
    while OPENED:
        await OPENED.pop().close()


class Peer:
    """One socket and all frames that came over it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.credential: str | None = None
        self.subprotocols: list[str] = []
        self.frames: list[Frame] = []
        self.close_code: int | None = None
        self._came = asyncio.Condition()
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Peer":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        OPENED.append(self)
        headers = {"Authorization": f"Bearer {self.credential}"} if self.credential else {}
        self._socket = await connect(
            self.url,
            max_size=None,
            additional_headers=headers,
            subprotocols=[Subprotocol(word) for word in self.subprotocols] or None,
        )
        self._reader = asyncio.create_task(self._read(self._socket))

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await self._reader

    @property
    def subprotocol(self) -> str | None:
        """The one that the server chose."""
        return None if self._socket is None else self._socket.subprotocol

    def break_off(self) -> None:
        """Lose the connection without a word."""
        assert self._socket is not None
        self._socket.transport.abort()

    async def send(self, frame: Frame | str | bytes) -> None:
        assert self._socket is not None
        await self._socket.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def expect(self, kind: str, *, nth: int = 1, **fields: Any) -> Frame:
        """The nth frame of this type with these fields, as soon as it is there."""

        def fits(frame: Frame) -> bool:
            return frame["type"] == kind and all(frame.get(k) == v for k, v in fields.items())

        def found() -> list[Frame]:
            return list(itertools.islice(filter(fits, self.frames), nth))

        async with self._came:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._came.wait_for(lambda: len(found()) == nth)
            except TimeoutError:
                raise AssertionError(
                    f"no {kind} {fields} (number {nth}) came over {self.url};"
                    f" close code {self.close_code}, frames {self.frames[-5:]}"
                ) from None
        return found()[-1]

    async def closed(self) -> int:
        """The close code, as soon as the socket is closed."""
        assert self._reader is not None
        await asyncio.wait_for(asyncio.shield(self._reader), TIMEOUT_S)
        assert self.close_code is not None
        return self.close_code

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                frame = json.loads(text)
                async with self._came:
                    self.frames.append(frame)
                    self._came.notify_all()
                await self.took(frame)
        except ConnectionClosed:
            pass
        self.close_code = socket.close_code

    async def took(self, frame: Frame) -> None:
        """For subclasses: a frame came."""


class Node(Peer):
    """A node agent; answers jobs with `answer`, or leaves them be when that is None.

    It sends heartbeats until `silent` is set.
    """

    def __init__(
        self,
        url: str,
        node_id: str,
        *pairs: str,
        slots: int | None = 4,
        answer: Answer | None = None,
        **more: Any,
    ) -> None:
        super().__init__(url)
        self.node_id = node_id
        self.pairs = pairs
        self._slots = slots
        self._answer = answer
        self._more = more
        self._beating: asyncio.Task[None] | None = None
        self.silent = False

    @classmethod
    def bearing(cls, credential: str, *arguments: Any, **more: Any) -> "Node":
        """A node that presents a credential."""
        node = cls(*arguments, **more)
        node.credential = credential
        return node

    @property
    def jobs(self) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == "job_assign"]

    async def open(self) -> None:
        await super().open()
        await self.send(registration(self.node_id, *self.pairs, slots=self._slots, **self._more))
        await self.expect("node_register_ack")
        self._beating = asyncio.create_task(self._keep_beating())

    async def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        await super().close()

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not self.silent:
                with contextlib.suppress(ConnectionClosed):
                    await self.beat()

    async def beat(self, *pairs: str, **more: Any) -> None:
        self.pairs = pairs or self.pairs
        await self.send(heartbeat(self.node_id, *self.pairs, **more))

    async def finish(self, job: Frame, **more: Any) -> None:
        await self.send(result(job, self.node_id, **more))

    async def took(self, frame: Frame) -> None:
        if frame["type"] == "job_assign" and self._answer is not None:
            for reply in self._answer(frame):
                await self.send(reply)


def translating(node_id: str) -> Answer:
    """Answers every job at once."""
    return lambda job: [result(job, node_id)]


class Session(Peer):
    """A client session in one language pair."""

    def __init__(self, url: str, src_lang: str, tgt_lang: str, **more: Any) -> None:
        super().__init__(url)
        self.src_lang = src_lang
        self.tgt_lang = tgt_lang
        self.session_id = ""
        self.resume_token = ""
        self._more = more

    @classmethod
    def bearing(cls, credential: str, *arguments: Any, **more: Any) -> "Session":
        """A session that presents a token."""
        session = cls(*arguments, **more)
        session.credential = credential
        return session

    @property
    def last_seq(self) -> int:
        return max((frame["seq"] for frame in self.frames if "seq" in frame), default=0)

    @property
    def terminals(self) -> list[Frame]:
        return [frame for frame in self.frames if "seq" in frame]

    async def open(self) -> None:
        await super().open()
        await self.send(
            {
                "type": "session_init",
                "client_version": "1.0.0",
                "platform": "web",
                "src_lang": self.src_lang,
                "tgt_lang": self.tgt_lang,
                **self._more,
            }
        )
        ack = await self.expect("session_init_ack")
        self.session_id, self.resume_token = ack["session_id"], ack["resume_token"]

    async def resume_at(self, url: str, *, last_seq: int | None = None) -> "Session":
        """The same session on a new socket."""
        last_seq = self.last_seq if last_seq is None else last_seq
        resume = {"session_id": self.session_id, "token": self.resume_token, "last_seq": last_seq}
        session = Session(url, self.src_lang, self.tgt_lang, resume=resume)
        session.credential, session.subprotocols = self.credential, self.subprotocols
        await session.open()
        return session

    async def say(self, index: int, **more: Any) -> None:
        await self.send(
            {
                "type": "utterance",
                "session_id": self.session_id,
                "utterance_index": index,
                "manual_cut": False,
                "src_lang": self.src_lang,
                "tgt_lang": self.tgt_lang,
                "audio": "UklGRg==",
                "audio_format": "wav",
                "sample_rate": 16000,
                **more,
            }
        )

    async def terminal(self, index: int) -> Frame:
        """The terminal message of an utterance, as soon as it is there."""

        async def either() -> Frame:
            async with self._came:
                await self._came.wait_for(lambda: self._terminals_of(index))
            return self._terminals_of(index)[0]

        try:
            return await asyncio.wait_for(either(), TIMEOUT_S)
        except TimeoutError:
            raise AssertionError(
                f"utterance {index} has not ended; frames {self.frames[-5:]}"
            ) from None

    async def answered(self, index: int) -> Frame:
        """The first word on an utterance: its acknowledgement, or why it was refused."""
        async with asyncio.timeout(TIMEOUT_S), self._came:
            await self._came.wait_for(lambda: self._words_on(index))
        return self._words_on(index)[0]

    def _words_on(self, index: int) -> list[Frame]:
        return [frame for frame in self.frames if frame.get("utterance_index") == index]

    async def translated(self, index: int) -> Frame:
        """The same, which must be a success."""
        terminal = await self.terminal(index)
        assert terminal["type"] == "translation_result", terminal
        return terminal

    def _terminals_of(self, index: int) -> list[Frame]:
        return [f for f in self.terminals if f["utterance_index"] == index]
