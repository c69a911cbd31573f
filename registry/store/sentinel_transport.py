"""The client of whichever server is a Sentinel service's master, and its watcher."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis import asyncio as redis
from redis import exceptions as errors
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from registry.store.address import Address, Server
from registry.store.clients import (
    LOOK_UP_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    make_link,
    make_readers,
    our_options,
)
from registry.store.link import Command
from registry.store.server_transport import ServerTransport

WATCH_S = 0.25
"""How often Sentinels are asked who the master is."""


class SentinelTransport(ServerTransport):
    """Whichever server is the master of a Sentinel service now.

    Sentinels let a replaced master take writes for some ten seconds more before they demote it;
    those are lost. So they are asked again and again, and connections to it are closed at once.
    """

    def __init__(self, address: Address) -> None:
        self._service = address.service
        self._sentinels = _sentinels(address)
        self._link = make_link(self._make(address, REPLY_TIMEOUT_S))
        self._readers = make_readers(self._make(address, None))
        self._master: Server | None = None
        self._watching: asyncio.Task[None] | None = None

    def _make(self, address: Address, reply_timeout_s: float | None) -> "redis.Redis":
        options: dict[str, Any] = {"ssl": True} if address.tls else {}
        options |= address.options | our_options(reply_timeout_s)
        client: redis.Redis = self._sentinels.master_for(address.service, **options)
        client.response_callbacks.clear()
        return client

    def send(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        self._watch()
        return super().send(commands)

    async def wait(self, command: Command) -> Any:
        self._watch()
        return await super().wait(command)

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await super().close()
        await self._sentinels.aclose()

    def _watch(self) -> None:
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._keep_watching())

    async def _keep_watching(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                master = await self._sentinels.discover_master(self._service)
            except (errors.RedisError, OSError):
                continue  # Nobody knows better; who needs a connection hears why there is none.
            if self._master not in (None, master):
                self._leave(busy=True)
            self._master = master


def _sentinels(address: Address) -> Sentinel:
    return Sentinel(  # type: ignore[no-untyped-call]
        list(address.hosts),
        sentinel_kwargs={
            **({"ssl": True} if address.tls else {}),
            **address.sentinel_options,
            "socket_connect_timeout": LOOK_UP_TIMEOUT_S,
            "socket_timeout": LOOK_UP_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
        },
        socket_keepalive=True,
    )
