"""A peer that reads or writes at its own pace harms only itself, under daphne too.

daphne puts every frame that comes into a queue without an end, and hands every frame that goes to
a transport whose buffer has none. Here a socket is read from only while few of its frames wait for
the application, and `send` returns only once the peer takes what it is sent, within
`CATCH_UP_S`; so the consumer's own bounds hold.

Not promised: an exact bound. What one read of the network brings is taken as a whole.
"""

import asyncio
from typing import Any, cast

import structlog
from autobahn.websocket.types import ConnectionDeny
from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol

log = structlog.get_logger(__name__)

MOST_FRAMES = 256
MOST_BYTES = 8_000_000
CATCH_UP_S = 15.0


class _Inlet(asyncio.Queue[dict[str, Any]]):
    """The frames of one socket that wait for the application. While it is shut, nobody reads.

    `_put` and `_get` are what asyncio's own queues override.
    """

    transport: Any
    held_bytes: int
    shut: bool

    @classmethod
    def over(cls, queue: "asyncio.Queue[dict[str, Any]]", transport: Any) -> "_Inlet":
        """Turn the queue that daphne made, and gave to the application, into one of these."""
        queue.__class__ = cls
        inlet = cast(_Inlet, queue)
        inlet.transport, inlet.held_bytes, inlet.shut = transport, 0, False
        return inlet

    def _put(self, item: dict[str, Any]) -> None:
        super()._put(item)
        self.held_bytes += _size(item)
        if not self.shut and (self.qsize() > MOST_FRAMES or self.held_bytes > MOST_BYTES):
            self.shut = True
            self.transport.pauseProducing()

    def _get(self) -> dict[str, Any]:
        item = super()._get()
        self.held_bytes -= _size(item)
        if self.shut and self.qsize() <= MOST_FRAMES // 2 and self.held_bytes <= MOST_BYTES // 2:
            self.shut = False
            self.transport.resumeProducing()
        return item


class _Outlet:
    """Told by the transport when its buffer is full and when it has room: a push producer."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()

    def pauseProducing(self) -> None:  # noqa: N802 (Twisted's names)
        self.room.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        self.room.set()

    def stopProducing(self) -> None:  # noqa: N802
        self.room.set()


def bound_daphne() -> None:
    """Give every WebSocket bounds both ways. Called once a process."""
    protocol, server = cast(Any, WebSocketProtocol), cast(Any, Server)
    connect, created = protocol.onConnect, protocol.applicationCreateWorked
    reply = server.handle_reply

    def connect_if_readable(self: Any, request: Any) -> Any:
        # daphne answers a header or a path that is not ASCII with a stack in the log and 500.
        try:
            for name, value in request.headers.items():
                name.encode("ascii")
                if name == "sec-websocket-protocol":
                    value.encode("latin1").decode("ascii")
            request.path.encode("ascii")
        except UnicodeError:
            raise ConnectionDeny(400, "headers and path of a handshake are ASCII") from None
        return connect(self, request)

    def create_bounded(self: Any, application_queue: Any) -> None:
        if application_queue is not None:
            _Inlet.over(application_queue, self.transport)
            self.outlet = _Outlet()
            self.transport.unregisterProducer()  # HTTP's, which is over
            self.transport.registerProducer(self.outlet, True)
        created(self, application_queue)

    async def reply_when_there_is_room(self: Any, peer: Any, message: dict[str, Any]) -> None:
        await reply(self, peer, message)
        outlet = getattr(peer, "outlet", None)
        if outlet is None or outlet.room.is_set() or message["type"] != "websocket.send":
            return
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await outlet.room.wait()
        except TimeoutError:
            log.info("socket cut off", why="the peer does not read")
            peer.dropConnection(abort=True)

    protocol.onConnect = connect_if_readable
    protocol.applicationCreateWorked = create_bounded
    server.handle_reply = reply_when_there_is_room


def _size(event: dict[str, Any]) -> int:
    return len(event.get("text") or event.get("bytes") or b"")
