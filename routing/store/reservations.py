"""Reservations in Redis: one sorted set of `job|attempt` by expiry for each node."""

from registry.store.connection import Connection
from registry.store.keys import Keys
from routing.domain.outcome import Busier, Full, NodeGone, Reservation, Reserved
from routing.store.jobs import SCRIPTS


class RedisSlotStore:
    """Implements `SlotStore`."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def reserve(
        self,
        node_id: str,
        *,
        job_id: str,
        attempt: int,
        lease_ms: int,
        ceiling: int | None = None,
    ) -> Reservation:
        reply = await self._connection.run(
            SCRIPTS["reserve_slot"],
            [
                self._keys.node_slots(node_id),
                self._keys.node_owner(node_id),
                self._keys.node_presence(node_id),
            ],
            [f"{job_id}|{attempt}", lease_ms, -1 if ceiling is None else ceiling],
        )
        match reply.word:
            case "gone":
                return NodeGone()
            case "full":
                return Full(reply.integer())
            case "busier":
                return Busier(reply.integer())
            case word:
                instance_id = reply.text(0).rpartition("|")[0]
                return Reserved(instance_id, reply.integer(1), fresh=word == "reserved")

    async def release(self, node_id: str, *, job_id: str, attempt: int) -> int:
        reply = await self._connection.run(
            SCRIPTS["release_slot"], [self._keys.node_slots(node_id)], [f"{job_id}|{attempt}"]
        )
        return reply.integer()

    async def held(self, node_id: str) -> list[tuple[str, int]]:
        reply = await self._connection.run(
            SCRIPTS["held_slots"], [self._keys.node_slots(node_id)], []
        )
        split = (member.decode().rpartition("|") for member in reply.values)
        return [(job_id, int(attempt)) for job_id, _, attempt in split]
