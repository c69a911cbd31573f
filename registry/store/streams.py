"""Reading Redis Streams: replies decoded into entries."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from registry.store.connection import Connection

BATCH = 1000
"""Entries taken per read; a reader that is further behind reads again at its next turn."""


class Entry(NamedTuple):
    id: str
    fields: dict[bytes, bytes]


async def read_entries(connection: Connection, since: Mapping[str, str]) -> dict[str, list[Entry]]:
    """Entries of each stream after its id, without waiting. All streams share one hash tag."""
    reply = await connection.call(
        "XREAD", "COUNT", BATCH, "STREAMS", *since.keys(), *since.values()
    )
    return streams(reply)


async def wait_entries(
    connection: Connection, key: str, since: str, *, within_ms: int
) -> list[Entry]:
    """Entries of one stream after `since`; waits for the first one up to `within_ms`."""
    command = ("XREAD", "COUNT", BATCH, "BLOCK", within_ms, "STREAMS", key, since)
    return streams(await connection.wait(*command, within_ms=within_ms)).get(key, [])


async def any_entry(connection: Connection, key: str, since: str, *, within_ms: int) -> bool:
    """Whether a stream has an entry after `since`; waits for one up to `within_ms`."""
    command = ("XREAD", "COUNT", 1, "BLOCK", within_ms, "STREAMS", key, since)
    return bool(await connection.wait(*command, within_ms=within_ms))


async def last_id(connection: Connection, key: str) -> str:
    """The id of a stream's newest entry; '0-0' when it has none."""
    reply = await connection.call("XREVRANGE", key, "+", "-", "COUNT", 1)
    return reply[0][0].decode() if reply else "0-0"


def entries(reply: list[Any]) -> list[Entry]:
    """Decode a range reply. An entry deleted while pending comes without fields: left out."""
    return [
        Entry(entry_id.decode(), dict(zip(fields[::2], fields[1::2], strict=True)))
        for entry_id, fields in reply
        if fields is not None
    ]


def streams(reply: list[Any] | None) -> dict[str, list[Entry]]:
    """Decode an XREAD or XREADGROUP reply by key."""
    return {key.decode(): entries(found) for key, found in reply or []}
