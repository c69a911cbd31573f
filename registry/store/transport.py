"""How a batch of commands gets to Redis in each of its forms: one interface, three clients."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from registry.store.address import Address, RedisMode
from registry.store.cluster_transport import ClusterTransport
from registry.store.link import Command
from registry.store.sentinel_transport import SentinelTransport
from registry.store.server_transport import ServerTransport


class Transport(Protocol):
    """A client of one Redis in one of its forms."""

    def send(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        """For each command its reply, or exception, or a task that will return either.

        The future raises when no server can be reached.
        """

    async def wait(self, command: Command) -> Any:
        """Run a blocking read, for as long as it takes."""

    async def close(self) -> None: ...


def transport(address: Address) -> Transport:
    """The client for an address."""
    if address.mode is RedisMode.CLUSTER:
        return ClusterTransport(address)
    if address.mode is RedisMode.SENTINEL:
        return SentinelTransport(address)
    return ServerTransport(address)
