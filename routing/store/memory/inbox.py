"""Inboxes in memory."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from registry.store.memory import MemoryServer
from routing.domain.outcome import (
    Envelope,
)


class InboxState:
    """What lies in each open inbox by position."""

    def __init__(self, server: MemoryServer) -> None:
        self.inboxes: dict[str, dict[int, Envelope]] = {}


class MemoryInboxStore:
    """Implements `InboxStore` for one instance."""

    def __init__(self, server: MemoryServer, *, instance_id: str) -> None:
        self._server = server
        self._instance_id = instance_id
        self._closed = False

    @property
    def _state(self) -> InboxState:
        return self._server.state(InboxState)

    async def open(self) -> None:
        self._state.inboxes.setdefault(self._instance_id, {})

    async def close(self) -> bool:
        inboxes = self._state.inboxes
        if not inboxes.get(self._instance_id):
            inboxes.pop(self._instance_id, None)
            self._closed = True
            self._server.ring()
        return self._closed

    async def send(self, instance_id: str, envelope: Envelope) -> bool:
        inbox = self._state.inboxes.get(instance_id)
        if inbox is None:
            return False
        inbox[self._server.next_position()] = replace(envelope, sender=self._instance_id)
        self._server.ring()
        return True

    async def receive(self) -> AsyncIterator[list[tuple[str, Envelope]]]:
        # From the start: what a former reader took and never acknowledged comes first.
        reached = 0
        while not self._closed:
            await self.open()
            inbox = self._state.inboxes[self._instance_id]
            batch = [(position, letter) for position, letter in inbox.items() if position > reached]
            if batch:
                reached = batch[-1][0]
                yield [(str(position), letter) for position, letter in batch]
            else:
                await self._server.rung()

    async def done(self, tokens: Sequence[str]) -> None:
        inbox = self._state.inboxes.get(self._instance_id, {})
        for token in tokens:
            inbox.pop(int(token), None)

    async def left_by(self, instance_id: str) -> list[tuple[str, Envelope]]:
        inbox = self._state.inboxes.get(instance_id, {})
        return [(str(position), letter) for position, letter in inbox.items()]

    async def clear(self, instance_id: str, tokens: Sequence[str]) -> bool:
        inbox = self._state.inboxes.get(instance_id, {})
        for token in tokens:
            inbox.pop(int(token), None)
        if not inbox:
            self._state.inboxes.pop(instance_id, None)
        return not inbox
