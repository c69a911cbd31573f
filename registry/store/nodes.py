"""Nodes in Redis: ownership, presence and snapshots, and the two streams that tell of changes."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from registry.domain.node import NodeLoad, NodeSnapshot
from registry.domain.ownership import (
    TAKEOVER_WINDOW_MS,
    TAKEOVERS,
    Changes,
    Claim,
    Claimed,
    Conflict,
    Gone,
    Position,
)
from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.scripts import load_scripts
from registry.store.streams import BATCH, Entry, any_entry, last_id, read_entries

SLICE = 200
SCRIPTS = load_scripts(Path(__file__).parent / "lua")
_snapshot = msgspec.json.Decoder(NodeSnapshot)
_loads = msgspec.json.Decoder(dict[str, NodeLoad])


class RedisNodeStore:
    """Implements `NodeStore` for one instance."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        *,
        instance_id: str,
        owner_ttl_ms: int,
        presence_ttl_ms: int,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._instance_id = instance_id
        self._owner_ttl_ms = owner_ttl_ms
        self._presence_ttl_ms = presence_ttl_ms

    async def claim(
        self, node_id: str, *, fingerprint: str, floor: int, capacity: int, own: int = 0
    ) -> Claim:
        reply = await self._connection.run(
            SCRIPTS["claim_node"],
            [*self._ownership(node_id), self._keys.node_identity(node_id)],
            [
                self._instance_id,
                fingerprint,
                floor,
                capacity,
                self._owner_ttl_ms,
                self._presence_ttl_ms,
                own,
                TAKEOVERS,
                TAKEOVER_WINDOW_MS,
            ],
        )
        if reply.word != "claimed":
            return Conflict(contested=reply.word == "contested")
        previous_instance = reply.text(1).rpartition("|")[0]
        return Claimed(reply.integer(0), previous_instance, draining=reply.text(2) == "1")

    async def keep(self, node_id: str, *, epoch: int, fingerprint: str, capacity: int) -> bool:
        reply = await self._connection.run(
            SCRIPTS["keep_node"],
            [*self._ownership(node_id), self._keys.node_identity(node_id)],
            [
                self._owner(epoch),
                epoch,
                fingerprint,
                capacity,
                self._owner_ttl_ms,
                self._presence_ttl_ms,
            ],
        )
        return reply.word == "kept"

    async def drop(self, node_id: str, *, epoch: int) -> bool:
        reply = await self._connection.run(
            SCRIPTS["drop_node"], self._ownership(node_id), [self._owner(epoch)]
        )
        return reply.word == "dropped"

    async def put(self, snapshot: NodeSnapshot) -> bool:
        reply = await self._connection.run(
            SCRIPTS["put_snapshot"],
            self._snapshots(),
            [
                snapshot.node_id,
                snapshot.connection_epoch,
                snapshot.revision,
                msgspec.json.encode(snapshot),
            ],
        )
        return reply.word == "put"

    async def remove(self, node_id: str, *, epoch: int) -> bool:
        reply = await self._connection.run(
            SCRIPTS["remove_snapshot"], self._snapshots(), [node_id, epoch]
        )
        return reply.word == "removed"

    async def set_draining(self, node_id: str, *, draining: bool, capacity: int) -> None:
        await self._connection.run(
            SCRIPTS["drain_node"],
            [self._keys.node_presence(node_id), self._keys.node_identity(node_id)],
            [int(draining), capacity],
        )

    async def draining(self, node_id: str) -> bool:
        return bool(
            await self._connection.call("HEXISTS", self._keys.node_identity(node_id), "draining")
        )

    async def present(self, node_ids: Sequence[str]) -> set[str]:
        # One command a key: in a cluster each node's keys live in their own slot.
        # In slices, so that thousands of them do not hold the event loop.
        found: set[str] = set()
        for start in range(0, len(node_ids), SLICE):
            some = node_ids[start : start + SLICE]
            exist = (self._connection.call("EXISTS", self._keys.node_presence(n)) for n in some)
            answers = await asyncio.gather(*exist)
            found.update(
                node_id for node_id, is_there in zip(some, answers, strict=True) if is_there
            )
        return found

    async def everything(self) -> tuple[Position, list[NodeSnapshot]]:
        # The position is read before the hash: a change in between is seen twice, never missed.
        (sequence, birth), changes, loads = await asyncio.gather(
            self._connection.call("MGET", self._keys.node_sequence, self._keys.node_birth),
            last_id(self._connection, self._keys.node_changes),
            last_id(self._connection, self._keys.node_loads),
        )
        raw = await self._connection.call("HVALS", self._keys.nodes)
        position = Position(changes, loads, int(sequence or 0), (birth or b"").decode())
        return position, await _decoded(raw)

    async def changes(self, since: Position) -> Changes:
        streams = {self._keys.node_changes: since.changes, self._keys.node_loads: since.loads}
        keys = self._keys
        (sequence, digest, raw_birth), found = await asyncio.gather(
            self._connection.call("MGET", keys.node_sequence, keys.node_digest, keys.node_birth),
            read_entries(self._connection, streams),
        )
        told, birth = int(sequence or 0), (raw_birth or b"").decode()
        lost = since.birth not in ("", birth)
        changes = found.get(self._keys.node_changes, [])
        loads = found.get(self._keys.node_loads, [])
        numbers = [int(entry.fields[b"n"]) for entry in changes]
        reached = numbers[-1] if numbers else since.sequence
        return Changes(
            position=Position(
                changes[-1].id if changes else since.changes,
                loads[-1].id if loads else since.loads,
                reached,
                birth,
            ),
            complete=not lost and _gapless(numbers, since=since.sequence, told=told),
            nodes=[_news(entry) for entry in changes],
            loads={
                node_id: load
                for entry in loads
                for node_id, load in _loads.decode(entry.fields[b"loads"]).items()
            },
            told=told,
            digest=int(digest or 0),
            lost=lost,
        )

    async def news_after(self, since: Position, *, within_ms: int) -> bool:
        return await any_entry(
            self._connection, self._keys.node_changes, since.changes, within_ms=within_ms
        )

    async def publish_loads(self, loads: Mapping[str, NodeLoad]) -> None:
        await self._connection.call(
            "XADD",
            self._keys.node_loads,
            "MAXLEN",
            "~",
            1000,
            "*",
            "loads",
            msgspec.json.encode(loads),
        )

    def _owner(self, epoch: int) -> str:
        return f"{self._instance_id}|{epoch}"

    def _ownership(self, node_id: str) -> list[str]:
        return [self._keys.node_owner(node_id), self._keys.node_presence(node_id)]

    def _snapshots(self) -> list[str]:
        keys = self._keys
        return [
            keys.nodes,
            keys.node_changes,
            keys.node_sequence,
            keys.node_digest,
            keys.node_birth,
        ]


async def _decoded(raw: Sequence[bytes]) -> list[NodeSnapshot]:
    """Thousands of snapshots, without holding the event loop for all of them at once."""
    found: list[NodeSnapshot] = []
    for start in range(0, len(raw), SLICE):
        found += map(_snapshot.decode, raw[start : start + SLICE])
        await asyncio.sleep(0)
    return found


def _gapless(numbers: list[int], *, since: int, told: int) -> bool:
    """Whether a read gave every change after `since`; `told` is the count taken just before it.

    A server that lost its data counts from the start, and where its clock went back its changes
    have ids below the position of a reader, who then never sees them.
    """
    reached = since + len(numbers)
    if numbers != list(range(since + 1, reached + 1)):
        return False
    return since <= told and (told <= reached or len(numbers) == BATCH)


def _news(entry: Entry) -> NodeSnapshot | Gone:
    put = entry.fields.get(b"put")
    if put is not None:
        return _snapshot.decode(put)
    return Gone(entry.fields[b"gone"].decode(), int(entry.fields[b"epoch"]))
