"""The client of one server."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis import exceptions as errors

from registry.store.address import Address
from registry.store.clients import REPLY_TIMEOUT_S, is_demoted, make_client, make_link, read
from registry.store.link import Command


class ServerTransport:
    """One server: a shared connection for commands, others for blocking reads."""

    def __init__(self, address: Address) -> None:
        server = address.hosts[0] if address.hosts else None
        self._link = make_link(make_client(address, server, REPLY_TIMEOUT_S))
        self._blocking = make_client(address, server, None)
        self._leaving: set[asyncio.Task[None]] = set()

    def send(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        replies = self._link.ask(commands)
        replies.add_done_callback(self._look_for_demotion)
        return replies

    async def wait(self, command: Command) -> Any:
        try:
            return await read(self._blocking, command)
        except errors.ResponseError as error:
            if is_demoted(error):
                self._leave(inuse_connections=False)
            raise

    async def close(self) -> None:
        await self._link.close()
        await asyncio.gather(*self._leaving)
        await self._blocking.aclose()

    def _look_for_demotion(self, replies: "asyncio.Future[list[Any]]") -> None:
        if replies.cancelled() or replies.exception() is not None:
            return
        if any(isinstance(reply, Exception) and is_demoted(reply) for reply in replies.result()):
            self._leave(inuse_connections=False)

    def _leave(self, *, inuse_connections: bool) -> None:
        # They lead to a server that is no master any more; new ones find the one that is.
        self._link.drop()
        work = self._blocking.connection_pool.disconnect(inuse_connections=inuse_connections)
        task = asyncio.get_running_loop().create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
