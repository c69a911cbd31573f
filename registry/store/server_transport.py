"""The client of one server."""

import asyncio
from collections.abc import Sequence
from typing import Any

from registry.store.address import Address
from registry.store.clients import REPLY_TIMEOUT_S, is_demoted, make_client, make_link, make_readers
from registry.store.link import Command


class ServerTransport:
    """One server: a shared connection for commands, others for blocking reads."""

    def __init__(self, address: Address) -> None:
        server = address.hosts[0] if address.hosts else None
        self._link = make_link(make_client(address, server, REPLY_TIMEOUT_S))
        self._readers = make_readers(make_client(address, server, None))

    def send(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        replies = self._link.ask(commands)
        replies.add_done_callback(self._look_for_demotion)
        return replies

    async def wait(self, command: Command) -> Any:
        (reply,) = await self._readers.read([command])
        if isinstance(reply, Exception):
            if is_demoted(reply):
                self._leave(busy=False)
            raise reply
        return reply

    async def close(self) -> None:
        await self._link.close()
        await self._readers.close()

    def _look_for_demotion(self, replies: "asyncio.Future[list[Any]]") -> None:
        if replies.cancelled() or replies.exception() is not None:
            return
        if any(isinstance(reply, Exception) and is_demoted(reply) for reply in replies.result()):
            self._leave(busy=False)

    def _leave(self, *, busy: bool) -> None:
        # They lead to a server that is no master any more; new ones find the one that is.
        self._link.drop()
        self._readers.drop(busy=busy)
