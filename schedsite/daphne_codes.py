"""Close codes under daphne: 1009 and 1012 reach the client as what they are.

The WebSocket library under daphne lets an application send only 1000 and 3000 to 4999, and
raises on all others; RFC 6455 section 7.4.1 has 1009 and 1012 sent by servers.
"""

from daphne.ws_protocol import WebSocketProtocol


def send_all_close_codes() -> None:
    """Let daphne's sockets close with any code the application chooses."""
    WebSocketProtocol.serverClose = _server_close  # type: ignore[method-assign]


def _server_close(self: WebSocketProtocol, code: int | None = None) -> None:
    self.sendCloseFrame(code=1000 if code is None else code)
