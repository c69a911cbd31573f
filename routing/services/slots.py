"""Reserving and freeing slots of nodes, with this instance's views kept in step."""

from registry.services.views import NodeViews
from routing.domain.outcome import Full, Reservation, Reserved
from routing.services.ports import SlotStore


class Slots:
    """The one way to a slot."""

    def __init__(self, store: SlotStore, views: NodeViews, *, lease_ms: int) -> None:
        self._store = store
        self._views = views
        self._lease_ms = lease_ms

    async def reserve(self, node_id: str, *, job_id: str, attempt: int) -> Reservation:
        """Hold a slot for one attempt until it is released, or its lease runs out."""
        outcome = await self._store.reserve(
            node_id, job_id=job_id, attempt=attempt, lease_ms=self._lease_ms
        )
        if isinstance(outcome, Reserved | Full):
            self._note(node_id, outcome.count)
        return outcome

    async def release(self, node_id: str, *, job_id: str, attempt: int) -> None:
        """Free the slot if this attempt holds it."""
        self._note(node_id, await self._store.release(node_id, job_id=job_id, attempt=attempt))

    async def held(self, node_id: str) -> set[tuple[str, int]]:
        """(job id, attempt) of each unexpired reservation."""
        held = set(await self._store.held(node_id))
        self._note(node_id, len(held))
        return held

    def freed_elsewhere(self, node_id: str) -> None:
        """A job of ours ended on a node of another instance, which has released its slot."""
        view = self._views.get(node_id)
        if view is not None:
            view.reserved = max(view.reserved - 1, 0)

    def _note(self, node_id: str, count: int) -> None:
        view = self._views.get(node_id)
        if view is not None:
            view.reserved = count
