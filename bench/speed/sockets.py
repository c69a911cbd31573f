"""Sockets without a scheduler's frames: `python -m bench.speed.sockets`, a worker.

Echoes, handshakes, and many idle sockets. Built on picows and uvloop, so that the client costs
little of the machine that it shares with what it measures.
"""

import asyncio
import time
from collections.abc import Callable

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.speed.payload import utterance
from bench.workers import serve


class Socket(WSListener):
    """One WebSocket; hands each text frame to `took`."""

    transport: WSTransport

    def __init__(self, took: Callable[[bytes], None] | None = None) -> None:
        self._took = took
        self.closed = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT and self._took is not None:
            self._took(frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed = True

    def send(self, frame: bytes) -> None:
        self.transport.send(WSMsgType.TEXT, frame)


async def connect(url: str, socket: Socket) -> Socket:
    """Open one socket."""
    await ws_connect(lambda: socket, url, websocket_handshake_timeout=30)
    return socket


class Sockets:
    """The verbs."""

    def __init__(self) -> None:
        self._body = utterance("s" * 30, 0)
        self._held: list[Socket] = []

    async def echo(self, url: str, count: int) -> list[float]:
        """One frame at a time over one socket; microseconds there and back."""
        loop = asyncio.get_running_loop()
        back = loop.create_future()
        socket = await connect(url, Socket(lambda _: back.set_result(time.perf_counter_ns())))
        spent = []
        for _ in range(count):
            back, began = loop.create_future(), time.perf_counter_ns()
            socket.send(self._body)
            spent.append((await back - began) / 1000)
        socket.transport.disconnect()
        return spent

    async def echo_rate(self, url: str, sockets: int, seconds: float) -> float:
        """Frames per second over sockets that each wait for their own."""
        echoes = [Echo(self._body) for _ in range(sockets)]
        for echo in echoes:
            await connect(url, echo)
        began = time.perf_counter()
        for echo in echoes:
            echo.send(self._body)
        await asyncio.sleep(seconds)
        rate = sum(echo.count for echo in echoes) / (time.perf_counter() - began)
        for echo in echoes:
            echo.transport.disconnect()
        return rate

    async def accept_rate(self, url: str, count: int, together: int) -> float:
        """Handshakes per second; the sockets are closed afterwards."""
        began = time.perf_counter()
        opened = await _open(url, count, together)
        spent = time.perf_counter() - began
        for socket in opened:
            socket.transport.disconnect()
        return count / spent

    async def hold(self, url: str, count: int) -> int:
        """Open idle sockets and keep them."""
        self._held += await _open(url, count, together=20)
        return len(self._held)

    async def let_go(self) -> None:
        while self._held:
            self._held.pop().transport.disconnect()


class Echo(Socket):
    """Sends again whatever came back."""

    def __init__(self, body: bytes) -> None:
        super().__init__(self._again)
        self._body = body
        self.count = 0

    def _again(self, _: bytes) -> None:
        self.count += 1
        self.send(self._body)


async def _open(url: str, count: int, together: int) -> list[Socket]:
    opened: list[Socket] = []

    async def open_share(share: int) -> None:
        for _ in range(share):
            socket = await connect(url, Socket())
            opened.append(socket)

    shares = [count // together + (part < count % together) for part in range(together)]
    await asyncio.gather(*(open_share(share) for share in shares))
    return opened


async def main() -> None:
    sockets = Sockets()
    verbs = ("echo", "echo_rate", "accept_rate", "hold", "let_go")
    await serve({verb: getattr(sockets, verb) for verb in verbs})


if __name__ == "__main__":
    uvloop.run(main())
