"""What daphne's sockets need to keep the contract.

The WebSocket library under daphne lets an application send only close codes 1000 and 3000 to 4999
and raises on all others, while RFC 6455 section 7.4.1 has 1009 and 1012 sent by servers. It drops
a connection that breaks the protocol without saying why, and daphne limits frames to 1 MiB both
ways, whatever the application may take.
"""

import asyncio
from typing import Any

import uvloop
from daphne.ws_protocol import WebSocketFactory, WebSocketProtocol

SPLICED_BYTES = 65_536
"""Room for what the scheduler adds to a frame that it carries on."""


def fit_daphne(*, max_frame_bytes: int) -> None:
    """Let sockets close with any code, and take frames up to our own limit.

    A frame beyond it is still answered by the application, up to `SPLICED_BYTES` more; a larger
    one is refused by the library, with 1009 too.
    """
    set_options = WebSocketFactory.setProtocolOptions
    room = max_frame_bytes + SPLICED_BYTES

    def set_roomier_options(self: WebSocketFactory, **options: Any) -> None:
        ours = {"maxMessagePayloadSize": room, "maxFramePayloadSize": room, "failByDrop": False}
        set_options(self, **(options | ours))

    # Reassigning is the only way in: the `daphne` command makes its server and factory itself.
    factory: Any = WebSocketFactory
    factory.setProtocolOptions = set_roomier_options
    protocol: Any = WebSocketProtocol
    protocol.serverClose = _server_close
    fail = protocol._fail_connection

    def fail_once(self: Any, code: int, reason: str) -> None:
        # The library finds broken UTF-8 twice in one message. At the second breach it drops the
        # connection, and with it the close that was to tell the peer why.
        if self.state != protocol.STATE_CLOSING:
            fail(self, code, reason)

    protocol._fail_connection = fail_once


def _server_close(self: WebSocketProtocol, code: int | None = None) -> None:
    self.sendCloseFrame(code=1000 if code is None else code)


def use_uvloop() -> None:
    """Let daphne's reactor run on uvloop. To be called before the reactor runs.

    daphne installs its reactor, on a loop of asyncio's own, before it imports the application;
    what that loop watches already (the reactor's waker) moves along.
    """
    from twisted.internet import reactor

    ours: Any = reactor
    before, ours._asyncioEventloop = ours._asyncioEventloop, uvloop.new_event_loop()
    for reader, fd in list(ours._readers.items()):
        before.remove_reader(fd)
        del ours._readers[reader]
        ours.addReader(reader)
    asyncio.set_event_loop(ours._asyncioEventloop)
    before.close()
