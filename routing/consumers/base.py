"""A lean Channels consumer: one receive loop, one writer on demand.

`AsyncConsumer.dispatch` costs a thread hop and a task per message; the sockets of nodes and
sessions are the hot path, so frames come straight from `receive` here and leave through a bounded
outbox that a task empties only while there is something to send.

Not promised: that a frame handed to `send` arrives. What must arrive is in a session's outbox, or
held by a reservation.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from channels.consumer import AsyncConsumer

from registry.domain.errors import StoreUnavailable
from routing.domain import wire
from routing.domain.errors import CloseCode, ErrorCode, FrameRefused
from routing.instance import Routing

log = structlog.get_logger(__name__)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

OUTBOX_FRAMES = 10_000
"""Frames waiting for one socket; a peer further behind is disconnected, and may resume."""


class SocketConsumer(AsyncConsumer):
    """One WebSocket. Subclasses say what a frame means."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self.max_frame_bytes = routing.max_frame_bytes

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve the socket from its handshake to its end."""
        self.scope = scope
        self._asgi_send = send
        self._outgoing: deque[dict[str, Any]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._closing = False
        self.sent_away = False
        if (await receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept"})
        self.routing.connections.add(self)
        try:
            self._open()
            await self._receive_frames(receive)
        finally:
            self._closing = True
            await self.closed()
            self.routing.connections.remove(self)

    def refusal(self) -> str | None:
        """Why the peer may not come in; None when it may."""
        raise NotImplementedError

    async def frame(self, data: str | bytes) -> None:
        """Act on one frame; raises FrameRefused when it cannot be acted on."""
        raise NotImplementedError

    async def closed(self) -> None:
        """The socket is gone."""

    def send(self, frame: bytes) -> bool:  # type: ignore[override]
        """Hand a frame to the socket; False when it is closing or too far behind."""
        if self._closing:
            return False
        if len(self._outgoing) >= OUTBOX_FRAMES:
            self.close(CloseCode.TOO_SLOW, "the peer reads too slowly")
            return False
        self._put({"type": "websocket.send", "text": frame.decode()})
        return True

    def close(self, code: int, reason: str) -> None:
        """Close the socket after what is on its way."""
        if not self._closing:
            self._closing = True
            self.sent_away = code == CloseCode.GOING_DOWN
            self._put({"type": "websocket.close", "code": code, "reason": reason})

    def turned_away(self) -> bool:
        """Close the socket if this instance takes nobody any more; True then."""
        if self.routing.draining:
            self.close(CloseCode.GOING_DOWN, "the instance is going down")
        return self.routing.draining

    def _open(self) -> None:
        refusal = self.refusal()
        if self.routing.draining:
            self.close(CloseCode.GOING_DOWN, "the instance is going down")
        elif refusal is not None:
            self.refuse(ErrorCode.UNAUTHORIZED, refusal)
            self.close(CloseCode.UNAUTHORIZED, "not authorised")

    async def _receive_frames(self, receive: Receive) -> None:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            if self._closing:
                continue
            data = event.get("text")
            await self._handle(data if data is not None else event["bytes"])

    async def _handle(self, data: str | bytes) -> None:
        if _size(data) > self.max_frame_bytes:
            limit = self.max_frame_bytes
            self.refuse(ErrorCode.MESSAGE_TOO_LARGE, f"a frame may have at most {limit} bytes")
            self.close(CloseCode.TOO_LARGE, "message too large")
            return
        try:
            if isinstance(data, bytes):
                raise FrameRefused("frames are JSON text; this one was binary")
            await self.frame(data)
        except FrameRefused as refused:
            self.refuse(refused.code, str(refused))
        except StoreUnavailable:
            self.refuse(
                ErrorCode.INTERNAL_ERROR,
                "the scheduler's store is not available; send it again later",
                details={"retry_after_ms": 1000},
            )
        except Exception:
            log.exception("frame failed", path=self.scope.get("path"))
            self.refuse(ErrorCode.INTERNAL_ERROR, "the scheduler failed on this frame")

    def refuse(self, code: ErrorCode, message: str, **more: Any) -> None:
        """Answer with an `error` frame."""
        self.send(wire.error(code, message, **more))

    def _put(self, event: dict[str, Any]) -> None:
        self._outgoing.append(event)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._outgoing:
                await self._asgi_send(self._outgoing.popleft())
        except Exception as error:
            # The peer is gone: the receive loop hears of it too.
            log.debug("socket write failed", reason=str(error))
            self._closing = True
            self._outgoing.clear()
        finally:
            self._writer = None


def _size(data: str | bytes) -> int:
    """Bytes of a frame; text that is ASCII, like audio in base64, is not encoded to be counted."""
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())
