"""The way to Redis: commands of one event-loop turn share one pipeline.

`Connection.call` and `Connection.run` put their command into the batch of the current loop turn;
one write carries all of them and each caller gets its own reply. Errors come back to their own
caller only. A lost connection or a server that cannot serve is `StoreUnavailable`.

Not promised: that a command which raised `StoreUnavailable` did not run. Nothing is sent twice
by itself; whoever calls decides whether a command may be repeated.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from redis import exceptions as errors

from registry.domain.errors import StoreUnavailable
from registry.store.address import Address, single
from registry.store.clients import CONNECT_TIMEOUT_S, cannot_serve
from registry.store.link import Argument, Command
from registry.store.scripts import Reply, Script
from registry.store.transport import transport

Waiting = tuple[Command, "asyncio.Future[Any]"]

_CLOSED = "the connection to Redis was closed"
_PIPELINES = 4
"""Pipelines under way at once; further commands wait for the next one and ride together."""


class Connection:
    """One process's way to one Redis."""

    def __init__(self, address: Address | str) -> None:
        """`address` may be the URL of a single server."""
        self._transport = transport(single(address) if isinstance(address, str) else address)
        self._batch: list[Waiting] = []
        self._scheduled = False
        self._closed = False
        self._sending: set[asyncio.Future[list[Any]]] = set()

    async def call(self, *command: Argument) -> Any:
        """Run one command and return its reply; raises StoreUnavailable, or what Redis refused."""
        return await self._enqueue(command)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> Reply:
        """Run one Lua script and return its reply."""
        if not script.takes(len(keys), len(args)):
            raise TypeError(f"{script.name}.lua takes KEYS {script.keys} and ARGV {script.args}")
        try:
            raw = await self._enqueue(("EVALSHA", script.sha, len(keys), *keys, *args))
        except errors.NoScriptError:
            raw = await self._enqueue(("EVAL", script.source, len(keys), *keys, *args))
        return script.reply(raw)

    async def wait(self, *command: Argument, within_ms: int) -> Any:
        """Run a blocking read on a connection of its own, for `within_ms` plus a margin."""
        self._refuse_when_closed()
        try:
            async with asyncio.timeout(within_ms / 1000 + CONNECT_TIMEOUT_S):
                return await self._transport.wait(command)
        except TimeoutError:
            raise StoreUnavailable("Redis did not answer a blocking read in time") from None
        except (errors.RedisError, OSError) as error:
            if not cannot_serve(error):
                raise
            raise _unavailable(error) from error

    async def close(self) -> None:
        """Let go of the sockets; what is still under way fails with StoreUnavailable."""
        self._closed = True
        batch, self._batch = self._batch, []
        _fail(batch, StoreUnavailable(_CLOSED))
        sending = list(self._sending)
        for replies in sending:
            replies.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        await self._transport.close()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable(_CLOSED)

    def _enqueue(self, command: Command) -> "asyncio.Future[Any]":
        self._refuse_when_closed()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._batch.append((command, future))
        self._schedule()
        return future

    def _schedule(self) -> None:
        if self._batch and not self._scheduled and len(self._sending) < _PIPELINES:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        batch, self._batch = self._batch, []
        if not batch:
            return
        replies = self._transport.send([command for command, _ in batch])
        self._sending.add(replies)
        replies.add_done_callback(partial(self._sent, batch))

    def _sent(self, batch: list[Waiting], replies: "asyncio.Future[list[Any]]") -> None:
        self._sending.discard(replies)
        self._schedule()
        if replies.cancelled():
            _fail(batch, StoreUnavailable(_CLOSED))
            return
        error = replies.exception()
        # Whatever went wrong, every caller of the batch hears of it.
        found = replies.result() if error is None else [error] * len(batch)
        for (_, future), reply in zip(batch, found, strict=True):
            if isinstance(reply, asyncio.Task):
                reply.add_done_callback(partial(_settle_from, future))
            else:
                _settle(future, reply)


def _settle_from(future: "asyncio.Future[Any]", task: "asyncio.Task[Any]") -> None:
    if task.cancelled():
        _settle(future, StoreUnavailable(_CLOSED))
    else:
        _settle(future, task.exception() or task.result())


def _settle(future: "asyncio.Future[Any]", reply: Any) -> None:
    if future.done():
        return
    if not isinstance(reply, BaseException):
        future.set_result(reply)
    elif cannot_serve(reply):
        future.set_exception(_unavailable(reply))
    else:
        future.set_exception(reply)


def _fail(batch: list[Waiting], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _unavailable(error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(f"Redis is not available: {error or type(error).__name__}")
