"""A lean Channels consumer: one receive loop, one writer on demand.

`AsyncConsumer.dispatch` costs a thread hop and a task per message; the sockets of nodes and
sessions are the hot path, so frames come straight from `receive` here and leave through a bounded
outbox that a task empties only while there is something to send.

Not promised: that a frame handed to `send` arrives. What must arrive is in a session's outbox, or
held by a reservation.
"""

import asyncio
import ipaddress
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from channels.consumer import AsyncConsumer

from registry.domain.errors import StoreUnavailable
from routing.domain import wire
from routing.domain.credentials import Presented, presented
from routing.domain.errors import CloseCode, ErrorCode, FrameRefused, NotAuthorized
from routing.domain.limits import Bucket, Limits
from routing.instance import Routing

log = structlog.get_logger(__name__)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

OUTBOX_FRAMES = 10_000
OUTBOX_BYTES = 64_000_000
"""What may wait for one socket; a peer further behind is disconnected, and may resume."""


BUSY_RETRY_MS = 1_000


class SocketConsumer(AsyncConsumer):
    """One WebSocket. Subclasses say what a frame means."""

    GREETING = ""
    """The frame that must come first, and soon."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing
        self.max_frame_bytes = routing.max_frame_bytes
        self.greeted = False

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve the socket from its handshake to its end."""
        self.scope = scope
        self._asgi_send = send
        self._outgoing: deque[dict[str, Any]] = deque()
        self._outgoing_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._closing = False
        self.sent_away = False
        self._busy = False
        if (await receive())["type"] != "websocket.connect":
            return
        shown = presented(scope["headers"], scope["subprotocols"], scope["query_string"])
        self._opened_ms = self.heard_ms = self.routing.registry.clock()
        self.pace = Bucket(self.frame_rate(self.routing.gate.limits), self._opened_ms)
        await send({"type": "websocket.accept", "subprotocol": shown.subprotocol})
        self.routing.connections.add(self)
        address = _address(scope)
        full = self.routing.gate.enter(self, address)
        try:
            await self._open(shown, full)
            await self._receive_frames(receive)
        finally:
            self._closing = True
            self.routing.gate.leave(self, address)
            await self.closed()
            self.routing.connections.remove(self)

    async def admit(self, shown: Presented) -> None:
        """Let the peer in; raises NotAuthorized when it may not, and StoreUnavailable."""
        raise NotImplementedError

    def frame_rate(self, limits: Limits) -> int:
        """Frames a second that this socket may send; 0 for any number."""
        raise NotImplementedError

    def idle(self, now_ms: int, limits: Limits) -> str | None:
        """Why a peer that has greeted has been silent for too long; None when it has not."""
        return None

    async def frame(self, data: str | bytes) -> None:
        """Act on one frame; raises FrameRefused when it cannot be acted on."""
        raise NotImplementedError

    async def closed(self) -> None:
        """The socket is gone."""

    def send(self, frame: bytes) -> bool:  # type: ignore[override]
        """Hand a frame to the socket; False when it is closing or too far behind."""
        if self._closing:
            return False
        if len(self._outgoing) >= OUTBOX_FRAMES or self._outgoing_bytes > OUTBOX_BYTES:
            # It would not read them in time, nor the close behind them; what must arrive is kept
            # elsewhere.
            self._outgoing.clear()
            if self._writer is not None:
                self._writer.cancel()
                self._writer = None
            self.close(CloseCode.TOO_SLOW, "the peer reads too slowly")
            return False
        self._outgoing_bytes += len(frame)
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

    def expel(self, why: str) -> None:
        """Put the peer out: it is, or has become, not authorised."""
        self.refuse(ErrorCode.UNAUTHORIZED, why)
        self.close(CloseCode.UNAUTHORIZED, "not authorised")

    def silence(self, now_ms: int, limits: Limits) -> str | None:
        """Why the peer has been silent for too long; None when it has not."""
        if self._busy:
            return None  # What it said waits for us, and not we for it.
        if self.greeted:
            return self.idle(now_ms, limits)
        if 0 < limits.greeting_ms <= now_ms - self._opened_ms:
            return f"no {self.GREETING} within {limits.greeting_ms} ms"
        return None

    async def _open(self, shown: Presented, full: str | None) -> None:
        if self.routing.draining:
            self.close(CloseCode.GOING_DOWN, "the instance is going down")
        elif full is not None:
            self.routing.gate.refused += 1
            self._too_much(full, retry_after_ms=BUSY_RETRY_MS)
        else:
            await self._admit(shown)

    async def _admit(self, shown: Presented) -> None:
        try:
            await self.admit(shown)
        except NotAuthorized as refused:
            self.routing.gate.refused += 1
            self.expel(str(refused))
        except StoreUnavailable:
            self._store_is_away()
            self.close(CloseCode.TRY_LATER, "credentials cannot be looked up now")

    async def _receive_frames(self, receive: Receive) -> None:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            if self._closing:
                continue
            self.heard_ms = self.routing.registry.clock()
            wait_ms = self.pace.take(self.heard_ms)
            if wait_ms:
                self._refuse_hasty(wait_ms)
                continue
            data = event.get("text")
            self._busy = True
            await self._handle(data if data is not None else event["bytes"])
            self._busy = False

    def _refuse_hasty(self, wait_ms: int) -> None:
        """One frame too many: it is not read. Who goes on all the same is put out."""
        self.routing.gate.hasty += 1
        if self.pace.overrun:
            self._too_much("more frames than the rate allows, on and on", retry_after_ms=wait_ms)
        else:
            self.refuse(
                ErrorCode.RATE_LIMITED,
                "more frames than the rate allows: this one was not read; send it again later",
                details={"retry_after_ms": wait_ms},
            )

    def _too_much(self, why: str, *, retry_after_ms: int) -> None:
        details = {"retry_after_ms": retry_after_ms}
        self.refuse(ErrorCode.RATE_LIMITED, why, details=details)
        self.close(CloseCode.TOO_MUCH, "too much")

    def _store_is_away(self) -> None:
        # No fault of the peer's: its time to greet begins anew.
        self._opened_ms = self.routing.registry.clock()
        self.refuse(
            ErrorCode.INTERNAL_ERROR,
            "the scheduler's store is not available; send it again later",
            details={"retry_after_ms": BUSY_RETRY_MS},
        )

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
        except NotAuthorized as refused:
            self.expel(str(refused))
        except StoreUnavailable:
            self._store_is_away()
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
                event = self._outgoing.popleft()
                await self._asgi_send(event)
                self._outgoing_bytes -= len(event.get("text", ""))
        except Exception as error:
            # The peer is gone: the receive loop hears of it too.
            log.debug("socket write failed", reason=str(error))
            self._closing = True
            self._outgoing.clear()
        finally:
            if self._writer is asyncio.current_task():
                self._writer = None


def _address(scope: dict[str, Any]) -> str:
    """Where a peer comes from, to count by: one machine may have a whole IPv6 network of 64 bits.

    Behind a proxy it is what that says, if daphne was told to trust it (`--proxy-headers`).
    """
    host = str((scope.get("client") or [""])[0])
    if ":" not in host:
        return host
    try:
        return str(ipaddress.IPv6Network((host.partition("%")[0], 64), strict=False))
    except ValueError:
        return host


def _size(data: str | bytes) -> int:
    """Bytes of a frame; text that is ASCII, like audio in base64, is not encoded to be counted."""
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())
