"""Reservations in memory."""

from registry.store.memory import MemoryServer, NodeState
from routing.domain.outcome import (
    Busier,
    Full,
    NodeGone,
    Reservation,
    Reserved,
)


class SlotState:
    """When each reservation of each node expires."""

    def __init__(self, server: MemoryServer) -> None:
        self._clock = server.clock
        self._slots: dict[str, dict[tuple[str, int], int]] = {}

    def of(self, node_id: str) -> dict[tuple[str, int], int]:
        """The node's unexpired reservations, to read and to change."""
        now_ms, slots = self._clock(), self._slots.setdefault(node_id, {})
        for expired in [slot for slot, expires_ms in slots.items() if expires_ms <= now_ms]:
            del slots[expired]
        return slots


class MemorySlotStore:
    """Implements `SlotStore`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def reserve(
        self,
        node_id: str,
        *,
        job_id: str,
        attempt: int,
        lease_ms: int,
        ceiling: int | None = None,
    ) -> Reservation:
        node = self._server.state(NodeState)
        owner, capacity = node.owners.get(node_id), node.capacities.get(node_id)
        if owner is None or capacity is None:
            return NodeGone()
        slots = self._slots(node_id)
        if (job_id, attempt) in slots:
            return Reserved(owner.instance_id, len(slots), fresh=False)
        if len(slots) >= capacity:
            return Full(len(slots))
        if ceiling is not None and len(slots) > ceiling:
            return Busier(len(slots))
        slots[job_id, attempt] = self._server.clock() + lease_ms
        return Reserved(owner.instance_id, len(slots), fresh=True)

    async def release(self, node_id: str, *, job_id: str, attempt: int) -> int:
        slots = self._slots(node_id)
        slots.pop((job_id, attempt), None)
        return len(slots)

    async def held(self, node_id: str) -> list[tuple[str, int]]:
        return list(self._slots(node_id))

    def _slots(self, node_id: str) -> dict[tuple[str, int], int]:
        return self._server.state(SlotState).of(node_id)
