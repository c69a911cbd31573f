"""Connections to one server: one that many callers share, and others for blocking reads.

Commands go out, replies come in order. redis-py opens a connection (address, TLS, credentials,
database); from then on its streams are bypassed, since a pipeline of theirs costs more than all of
a job's commands: a batch is one write here, and one pass of hiredis over what came back. Batches
are sent without waiting for the replies to those before.

Nothing is sent twice. When the connection is lost, every batch on its way fails, whether the server
ran it or not; the next one opens another connection.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis import exceptions as errors
from redis._parsers.base import BaseParser
from redis.asyncio import ConnectionPool

Argument = str | bytes | int | float
Command = tuple[Argument, ...]

_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]
_not_enough = object()


class Link:
    """A connection that is opened when it is needed."""

    def __init__(self, pool: ConnectionPool, *, reply_timeout_s: float | None) -> None:
        """`pool` makes connections; it keeps none of them. No timeout is for blocking reads."""
        self._pool = pool
        self._reply_timeout_s = reply_timeout_s
        self._wire: _Wire | None = None
        self._opening: asyncio.Task[_Wire] | None = None

    def ask(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        """Send a batch; the future has the reply to each, or the exception it was refused with.

        It raises redis-py's ConnectionError or TimeoutError when there is no server, or it did not
        answer; whether it ran the commands is not known then.
        """
        wire = self._wire
        if wire is not None and wire.lost is None:
            return wire.ask(commands)
        return asyncio.ensure_future(self._ask_new(commands))

    def drop(self) -> None:
        """Close the connection; batches on their way fail."""
        if self._wire is not None:
            self._wire.abort(errors.ConnectionError("the connection was given up"))
            self._wire = None

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        wire = self._wire
        self.drop()
        if wire is not None:
            await wire.closed.wait()

    async def _ask_new(self, commands: Sequence[Command]) -> list[Any]:
        return await (await self._open()).ask(commands)

    async def _open(self) -> "_Wire":
        # One for all who wait; a caller that gives up takes nothing away from the others.
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        return await asyncio.shield(self._opening)

    async def _connect(self) -> "_Wire":
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()
        wire = _Wire(connection, reply_timeout_s=self._reply_timeout_s)
        self._wire = wire
        return wire

    def _opened(self, task: "asyncio.Task[_Wire]") -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # Whoever waited has it; nobody may have.


class Readers:
    """Connections for blocking reads: each has one to itself, and the next read takes it over."""

    def __init__(self, make: Callable[[], Link]) -> None:
        self._make = make
        self._idle: list[Link] = []
        self._busy: set[Link] = set()

    async def read(self, commands: Sequence[Command]) -> list[Any]:
        """The replies, for as long as it takes. Whoever gives up closes the connection."""
        link = self._idle.pop() if self._idle else self._make()
        self._busy.add(link)
        try:
            replies = await link.ask(commands)
        except BaseException:
            link.drop()
            raise
        finally:
            self._busy.discard(link)
        self._idle.append(link)
        return replies

    def drop(self, *, busy: bool) -> None:
        """Close the connections that nobody reads from, and if `busy` the others too."""
        for link in [*self._idle, *(self._busy if busy else ())]:
            link.drop()

    async def close(self) -> None:
        await asyncio.gather(*(link.close() for link in [*self._idle, *self._busy]))


class _Batch:
    __slots__ = ("due", "future", "left", "replies")

    def __init__(self, future: "asyncio.Future[list[Any]]", size: int, due: float | None) -> None:
        self.future = future
        self.replies: list[Any] = []
        self.left = size
        self.due = due


class _Wire(asyncio.Protocol):
    """The bytes of one open connection."""

    def __init__(self, connection: Any, *, reply_timeout_s: float | None) -> None:
        self._connection = connection  # Kept: it closes the socket when it is forgotten.
        self._transport: asyncio.WriteTransport = connection._writer.transport
        self._transport.set_protocol(self)
        self._reader = hiredis.Reader(
            protocolError=errors.InvalidResponse,
            replyError=BaseParser.parse_error,
            notEnoughData=_not_enough,
        )
        self._reply_timeout_s = reply_timeout_s
        self._loop = asyncio.get_running_loop()
        self._batches: deque[_Batch] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.lost: Exception | None = None
        self.closed = asyncio.Event()

    def ask(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        """Write a batch; its replies come with the future."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if self.lost is not None:
            future.set_exception(self.lost)
            return future
        due = self._loop.time() + self._reply_timeout_s if self._reply_timeout_s else None
        self._batches.append(_Batch(future, len(commands), due))
        if self._timer is None and due is not None:
            self._timer = self._loop.call_at(due, self._look_at_time)
        self._transport.write(b"".join([_pack(command) for command in commands]))
        return future

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _not_enough:
                self._take(reply)
        except (errors.InvalidResponse, IndexError) as error:
            self.abort(errors.ConnectionError(f"the server speaks another protocol: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(errors.ConnectionError(f"connection closed by server: {error or 'end of file'}"))
        self.closed.set()

    def abort(self, error: Exception) -> None:
        """Give the connection up."""
        self._transport.abort()
        self._fail(error)

    def _take(self, reply: Any) -> None:
        batch = self._batches[0]
        batch.replies.append(reply)
        batch.left -= 1
        if not batch.left:
            self._batches.popleft()
            if not batch.future.done():
                batch.future.set_result(batch.replies)

    def _look_at_time(self) -> None:
        """Give up a server that did not answer in time. One timer for all batches."""
        self._timer = None
        if not self._batches:
            return
        due = self._batches[0].due
        if due is None:
            return
        if self._loop.time() >= due:
            self.abort(errors.TimeoutError("the server did not answer in time"))
        else:
            self._timer = self._loop.call_at(due, self._look_at_time)

    def _fail(self, error: Exception) -> None:
        if self.lost is not None:
            return
        self.lost = error
        if self._timer is not None:
            self._timer.cancel()
        self._connection._reader = self._connection._writer = None
        batches, self._batches = self._batches, deque()
        for batch in batches:
            if not batch.future.done():
                batch.future.set_exception(error)
