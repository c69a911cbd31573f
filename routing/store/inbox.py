"""Inboxes in Redis: one stream for each instance, read through a consumer group.

A command stays pending until the instance has handed it over; then it is acknowledged and
deleted, so the stream is as long as what is not done yet. Nothing is trimmed by length: that
could drop what is still pending.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from redis.exceptions import ResponseError

from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.streams import Entry, entries, streams
from routing.domain.outcome import Envelope
from routing.store.jobs import SCRIPTS

GROUP = "scheduler"
_BATCH = 256
_BLOCK_MS = 5000


class RedisInboxStore:
    """Implements `InboxStore` for one instance."""

    def __init__(self, connection: Connection, keys: Keys, *, instance_id: str) -> None:
        self._connection = connection
        self._keys = keys
        self._instance_id = instance_id
        self._inbox = keys.instance_inbox(instance_id)
        self._closed = False
        self._closing = False

    async def open(self) -> None:
        if self._closed:
            return
        try:
            await self._connection.call("XGROUP", "CREATE", self._inbox, GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def close(self) -> bool:
        # The reader may hear that the inbox is gone before this hears that it is closed.
        self._closing = True
        try:
            reply = await self._connection.run(SCRIPTS["close_inbox"], [self._inbox], [])
            self._closed = self._closed or reply.word == "closed"
        finally:
            self._closing = False
        return self._closed

    async def send(self, instance_id: str, envelope: Envelope) -> bool:
        entry = await self._connection.call(
            "XADD",
            self._keys.instance_inbox(instance_id),
            "NOMKSTREAM",
            "*",
            "kind",
            envelope.kind,
            "subject",
            envelope.subject,
            "job",
            envelope.job_id,
            "number",
            envelope.number,
            "sender",
            self._instance_id,
            "node",
            envelope.node_id,
            "body",
            envelope.body,
        )
        return entry is not None

    async def receive(self) -> AsyncIterator[list[tuple[str, Envelope]]]:
        await self.open()
        # What was delivered to a former life of this instance and never acknowledged comes first.
        since = "0"
        while not self._closed:
            batch = await self._read(since)
            if since != ">":
                since = batch[-1].id if batch else ">"
            yield [(entry.id, _envelope(entry)) for entry in batch]

    async def done(self, tokens: Sequence[str]) -> None:
        if not tokens:
            return
        await asyncio.gather(
            self._connection.call("XACK", self._inbox, GROUP, *tokens),
            self._connection.call("XDEL", self._inbox, *tokens),
        )

    async def left_by(self, instance_id: str) -> list[tuple[str, Envelope]]:
        inbox = self._keys.instance_inbox(instance_id)
        reply = await self._connection.call("XRANGE", inbox, "-", "+", "COUNT", _BATCH)
        return [(entry.id, _envelope(entry)) for entry in entries(reply)]

    async def clear(self, instance_id: str, tokens: Sequence[str]) -> bool:
        inbox = self._keys.instance_inbox(instance_id)
        if tokens:
            await self._connection.call("XDEL", inbox, *tokens)
        reply = await self._connection.run(SCRIPTS["close_inbox"], [inbox], [])
        return reply.word == "closed"

    async def _read(self, since: str) -> list[Entry]:
        command = (
            "XREADGROUP", "GROUP", GROUP, self._instance_id, "COUNT", _BATCH,
            "BLOCK", _BLOCK_MS, "STREAMS", self._inbox, since,
        )  # fmt: skip
        try:
            reply = await self._connection.wait(*command, within_ms=_BLOCK_MS)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            if not self._closed and not self._closing:
                # The server lost its data: the inbox is made again, empty.
                await self.open()
            return []
        return streams(reply).get(self._inbox, [])


def _envelope(entry: Entry) -> Envelope:
    fields = entry.fields
    return Envelope(
        kind=fields[b"kind"].decode(),
        subject=fields[b"subject"].decode(),
        body=fields[b"body"],
        job_id=fields[b"job"].decode(),
        number=int(fields[b"number"]),
        sender=fields[b"sender"].decode(),
        node_id=fields[b"node"].decode(),
    )
