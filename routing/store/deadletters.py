"""Dead letters in Redis: a stream for each instance that buried some, under that instance's tag.

A stream's entry has the letter without its payload, so that lists stay light; payloads lie in a
hash beside it. Where a letter lies is asked of every instance that has some: there are few.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.streams import Entry, entries
from routing.domain.letters import Burial, DeadLetter, Position, ReplayNote
from routing.store.jobs import SCRIPTS

TRIM = 200
"""Letters removed in one step, so that it stays short."""

_letter = msgspec.json.Decoder(DeadLetter)
_note = msgspec.json.Decoder(ReplayNote)


class RedisDeadLetterStore:
    """Implements `DeadLetterStore` for one instance."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        *,
        instance_id: str,
        limit: int,
        keep_ms: int,
        retention_ms: int,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._instance_id = instance_id
        self._limit = limit
        self._keep_ms = keep_ms
        self._retention_ms = retention_ms

    async def bury(self, letter: DeadLetter, *, payload: bytes) -> Burial:
        holders = await self._holders(letter.id)
        if holders and self._instance_id not in holders:
            return Burial(fresh=False, held=(await self.trim(self._instance_id)).held)
        # Named first: a letter that nobody looks for would be lost.
        await self._connection.call("SADD", self._keys.letter_instances, self._instance_id)
        reply = await self._connection.run(
            SCRIPTS["bury_letter"],
            self._parts(self._instance_id),
            [letter.id, msgspec.json.encode(letter), payload],
        )
        trimmed = await self.trim(self._instance_id)
        return replace(trimmed, fresh=reply.word == "buried")

    async def instances(self) -> list[str]:
        found = await self._connection.call("SMEMBERS", self._keys.letter_instances)
        return sorted(instance_id.decode() for instance_id in found)

    async def read(
        self, instance_id: str, *, before: str, count: int
    ) -> list[tuple[Position, DeadLetter]]:
        reply = await self._connection.call(
            "XREVRANGE",
            self._keys.instance_dlq(instance_id),
            f"({before}" if before else "+",
            "-",
            "COUNT",
            count,
        )
        return [_read(entry, instance_id) for entry in entries(reply)]

    async def count(self, instance_id: str) -> int:
        return int(await self._connection.call("XLEN", self._keys.instance_dlq(instance_id)))

    async def get(self, letter_id: str) -> tuple[DeadLetter, bytes] | None:
        for instance_id, entry_id in (await self._holders(letter_id)).items():
            stream, _, payloads = self._parts(instance_id)
            found, kept = await asyncio.gather(
                self._connection.call("XRANGE", stream, entry_id, entry_id),
                self._connection.call("HMGET", payloads, letter_id),
            )
            if found and kept[0] is not None:
                return _read(entries(found)[0], instance_id)[1], kept[0]
        return None

    async def drop(self, letter_id: str) -> bool:
        replies = await asyncio.gather(
            *(
                self._connection.run(SCRIPTS["drop_letter"], self._parts(holder), [letter_id])
                for holder in await self._holders(letter_id)
            )
        )
        return any(reply.word == "dropped" for reply in replies)

    async def trim(self, instance_id: str) -> Burial:
        removed = TRIM
        total = 0
        while removed == TRIM:
            reply = await self._connection.run(
                SCRIPTS["trim_letters"],
                self._parts(instance_id),
                [self._limit, self._keep_ms, TRIM],
            )
            held, removed = reply.integer(0), reply.integer(1)
            total += removed
        return Burial(fresh=False, held=held, dropped=total)

    async def forget(self, instance_id: str) -> None:
        await self._connection.call("SREM", self._keys.letter_instances, instance_id)

    async def note_replay(self, session_id: str, note: ReplayNote) -> None:
        await self._connection.call(
            "SET",
            self._keys.session_replay(session_id),
            msgspec.json.encode(note),
            "PX",
            self._retention_ms,
        )

    async def replay_note(self, session_id: str) -> ReplayNote | None:
        found = await self._connection.call("GET", self._keys.session_replay(session_id))
        return _note.decode(found) if found is not None else None

    async def _holders(self, letter_id: str) -> dict[str, str]:
        """The instances that have this letter, each with its entry's id."""
        instances = await self.instances()
        found: Sequence[list[bytes | None]] = await asyncio.gather(
            *(
                self._connection.call("HMGET", self._keys.instance_dlq_index(name), letter_id)
                for name in instances
            )
        )
        return {
            name: entry.decode()
            for name, [entry] in zip(instances, found, strict=True)
            if entry is not None
        }

    def _parts(self, instance_id: str) -> list[str]:
        return [
            self._keys.instance_dlq(instance_id),
            self._keys.instance_dlq_index(instance_id),
            self._keys.instance_dlq_payloads(instance_id),
        ]


def _read(entry: Entry, instance_id: str) -> tuple[Position, DeadLetter]:
    position = Position.of(entry.id, instance_id)
    letter = _letter.decode(entry.fields[b"letter"])
    return position, replace(letter, buried_at_ms=position.ms, instance_id=instance_id)
