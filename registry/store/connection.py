"""The way to Redis: commands of one event-loop turn share one pipeline.

`Connection.call` and `Connection.run` put their command into the batch of the current loop turn;
one write carries all of them and each caller gets its own reply. Errors come back to their own
caller only. A lost connection or a server that cannot serve is `StoreUnavailable`.

Not promised: that a command which raised `StoreUnavailable` did not run. Nothing is sent twice
by itself; whoever calls decides whether a command may be repeated.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis import asyncio as redis
from redis import exceptions as errors
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from registry.domain.errors import StoreUnavailable
from registry.store.scripts import Reply, Script

Argument = str | bytes | int | float
Command = tuple[Argument, ...]
Waiting = tuple[Command, "asyncio.Future[Any]"]

_UNAVAILABLE = (
    errors.ConnectionError,
    errors.TimeoutError,
    errors.BusyLoadingError,
    errors.ClusterDownError,
    errors.ReadOnlyError,
    OSError,
)
_CONNECT_TIMEOUT_S = 2.0
_REPLY_TIMEOUT_S = 5.0
_PIPELINES = 4
"""Pipelines under way at once; further commands wait for the next one and ride together."""


class Connection:
    """One process's way to one Redis."""

    def __init__(self, url: str) -> None:
        self._client = _client(url, reply_timeout_s=_REPLY_TIMEOUT_S)
        self._blocking = _client(url, reply_timeout_s=None)
        self._batch: list[Waiting] = []
        self._scheduled = False
        self._sending: set[asyncio.Task[None]] = set()

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
        try:
            async with asyncio.timeout(within_ms / 1000 + _CONNECT_TIMEOUT_S):
                return await self._blocking.execute_command(*command)  # type: ignore[no-untyped-call]
        except TimeoutError:
            raise StoreUnavailable("Redis did not answer a blocking read in time") from None
        except _UNAVAILABLE as error:
            raise _unavailable(error) from error

    async def close(self) -> None:
        """Let go of the sockets; what is still under way fails with StoreUnavailable."""
        for task in list(self._sending):
            task.cancel()
        await self._client.aclose()
        await self._blocking.aclose()

    def _enqueue(self, command: Command) -> "asyncio.Future[Any]":
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
        task = asyncio.get_running_loop().create_task(self._send(batch))
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._sending.discard(task)
        self._schedule()

    async def _send(self, batch: list[Waiting]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for command, _ in batch:
            pipeline.execute_command(*command)
        try:
            replies = await pipeline.execute(raise_on_error=False)
        except asyncio.CancelledError:
            _fail(batch, StoreUnavailable("the connection to Redis was closed"))
            raise
        except Exception as error:
            # Whatever went wrong, every caller of the batch hears of it.
            known = isinstance(error, errors.RedisError | OSError)
            _fail(batch, _unavailable(error) if known else error)
            return
        for (_, future), reply in zip(batch, replies, strict=True):
            if future.done():
                continue
            if isinstance(reply, _UNAVAILABLE):
                future.set_exception(_unavailable(reply))
            elif isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)


def _fail(batch: list[Waiting], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)


def _unavailable(error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(f"Redis is not available: {error or type(error).__name__}")


def check_url(url: str) -> None:
    """Raise ValueError with one sentence unless this is the address of a Redis."""
    scheme, separator, rest = url.partition("://")
    if scheme not in ("redis", "rediss", "unix") or not separator or not rest:
        raise ValueError(
            "SCHED_REDIS_URL is not a Redis address; it looks like redis://host:6379/0,"
            " rediss://… for TLS, or unix:///path/to/socket"
        )
    parse_url(url)


def _client(url: str, *, reply_timeout_s: float | None) -> "redis.Redis":
    # Retrying by itself would run a command twice when only its reply was lost. Replies stay as
    # they come (RESP2, no callbacks), so that every store decodes one known shape.
    options: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    client = redis.Redis.from_url(
        url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        socket_timeout=reply_timeout_s,
        health_check_interval=0,
        **options,
    )
    client.response_callbacks.clear()
    return client
