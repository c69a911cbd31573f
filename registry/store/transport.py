"""The clients under a `Connection`: how a batch of commands gets to Redis in each of its forms.

Nothing is sent twice by these clients: a retry after a lost reply would run a command twice. They
follow redirections of a cluster and a new master of a Sentinel service, where a command did not
run. Replies come back as they are on the wire (RESP2, bytes), so that stores decode one shape.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from redis import asyncio as redis
from redis import exceptions as errors
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from registry.store.address import Address, RedisMode

Argument = str | bytes | int | float
Command = tuple[Argument, ...]

CONNECT_TIMEOUT_S = 2.0
REPLY_TIMEOUT_S = 5.0


class Transport(Protocol):
    """A client of one Redis in one of its forms."""

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """One reply, or exception, for each command; raises when the way there is broken."""

    async def wait(self, command: Command) -> Any:
        """Run a blocking read, for as long as it takes."""

    async def close(self) -> None: ...


def transport(address: Address) -> Transport:
    """The client for an address."""
    if address.mode is RedisMode.CLUSTER:
        return _ClusterTransport(address)
    return _ServerTransport(address)


class _ServerTransport:
    """One server, or whichever is the master of a Sentinel service now."""

    def __init__(self, address: Address) -> None:
        make = _watched if address.mode is RedisMode.SENTINEL else _single
        self._client = make(address, reply_timeout_s=REPLY_TIMEOUT_S)
        self._blocking = make(address, reply_timeout_s=None)

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    async def wait(self, command: Command) -> Any:
        return await self._blocking.execute_command(*command)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await self._client.aclose()
        await self._blocking.aclose()


class _ClusterTransport:
    """A cluster: each command goes to the master of its key's slot."""

    def __init__(self, address: Address) -> None:
        self._client = _cluster(address, reply_timeout_s=REPLY_TIMEOUT_S)
        self._blocking = _cluster(address, reply_timeout_s=None)

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        try:
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except (errors.RedisError, OSError):
            await self._client.aclose()  # The next batch looks up anew who serves which slot.
            raise
        if any(isinstance(reply, _MOVED_ON) for reply in replies):
            await self._client.aclose()
        return replies

    async def wait(self, command: Command) -> Any:
        try:
            return await self._blocking.execute_command(*command)
        except (*_MOVED_ON, OSError):
            await self._blocking.aclose()
            raise

    async def close(self) -> None:
        await self._client.aclose()
        await self._blocking.aclose()


_MOVED_ON = (
    errors.ConnectionError,
    errors.TimeoutError,
    errors.ClusterDownError,
    errors.MovedError,
    errors.ReadOnlyError,
)


def _options(address: Address, reply_timeout_s: float | None) -> dict[str, Any]:
    tcp = {} if address.url.startswith("unix:") else {"socket_keepalive": True}
    return {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": reply_timeout_s,
        **tcp,
    }


def _single(address: Address, *, reply_timeout_s: float | None) -> "redis.Redis":
    client = redis.Redis.from_url(
        address.url, health_check_interval=0, **_options(address, reply_timeout_s)
    )
    client.response_callbacks.clear()
    return client


def _watched(address: Address, *, reply_timeout_s: float | None) -> "redis.Redis":
    options = address.options | _options(address, reply_timeout_s)
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        list(address.hosts),
        sentinel_kwargs={
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_timeout": CONNECT_TIMEOUT_S,
        },
        **options,
    )
    client: redis.Redis = sentinels.master_for(address.service)
    client.response_callbacks.clear()
    return client


def _cluster(address: Address, *, reply_timeout_s: float | None) -> RedisCluster:
    options = address.options | _options(address, reply_timeout_s)
    options.pop("db", None)
    client = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.hosts], **options
    )
    callbacks = client.connection_kwargs["response_callbacks"]
    for name in [name for name in callbacks if not name.startswith(("CLUSTER", "COMMAND"))]:
        del callbacks[name]
    return client
