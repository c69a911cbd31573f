"""The client of one server."""

from collections.abc import Sequence
from typing import Any

from redis import exceptions as errors

from registry.store.address import Address
from registry.store.clients import (
    REPLY_TIMEOUT_S,
    Command,
    is_demoted,
    make_client,
    read,
    send_together,
)


class ServerTransport:
    """One server."""

    def __init__(self, address: Address) -> None:
        server = address.hosts[0] if address.hosts else None
        self._client = make_client(address, server, REPLY_TIMEOUT_S)
        self._blocking = make_client(address, server, None)

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        replies = await send_together(self._client, commands)
        if any(is_demoted(reply) for reply in replies):
            await self._leave(inuse_connections=False)
        return replies

    async def wait(self, command: Command) -> Any:
        try:
            return await read(self._blocking, command)
        except errors.ResponseError as error:
            if is_demoted(error):
                await self._leave(inuse_connections=False)
            raise

    async def close(self) -> None:
        await self._client.aclose()
        await self._blocking.aclose()

    async def _leave(self, *, inuse_connections: bool) -> None:
        # They lead to a server that is no master any more; new ones find the one that is.
        for client in (self._client, self._blocking):
            await client.connection_pool.disconnect(inuse_connections=inuse_connections)
