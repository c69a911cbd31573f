"""Reserving and freeing slots of nodes, with this instance's views kept in step."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from registry.services.ports import Clock
from registry.services.views import NodeView, NodeViews
from routing.domain.outcome import Busier, Full, Reservation, Reserved
from routing.domain.selection import freshness_ms
from routing.domain.shortlist import Shortlist
from routing.services.ports import SlotStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Taken:
    """A slot that is held, and the node it is on."""

    node_id: str
    held: Reserved


class Slots:
    """The one way to a slot."""

    def __init__(self, store: SlotStore, views: NodeViews, *, lease_ms: int, clock: Clock) -> None:
        self._store = store
        self._views = views
        self._lease_ms = lease_ms
        self._clock = clock

    def reserve(
        self, node_id: str, *, job_id: str, attempt: int, ceiling: int | None = None
    ) -> "asyncio.Task[Reservation]":
        """Hold a slot for one attempt until it is released, or its lease runs out.

        It is on its way, and counted as pending, when this returns: who chooses next in the same
        turn of the loop knows of it. The answer is to be awaited.
        """
        pending = _Pending(self._views.get(node_id))
        return pending.until(self._reserve(node_id, pending, job_id, attempt, ceiling))

    def ask(
        self, shortlist: Shortlist, *, job_id: str, attempt: int
    ) -> "asyncio.Task[Taken | None]":
        """Reserve at the next of these nodes, under way when this returns; None if it has none.

        There must be a next one.
        """
        node_id = shortlist.next(self._held)
        assert node_id is not None  # noqa: S101 (the caller looked)
        ceiling = None if shortlist.unlimited else self._ceiling(node_id)
        pending = _Pending(self._views.get(node_id))
        return pending.until(self._ask(shortlist, node_id, pending, job_id, attempt, ceiling))

    async def reserve_one(self, shortlist: Shortlist, *, job_id: str, attempt: int) -> Taken | None:
        """Hold a slot on the first of these nodes that has one, from where the list was left."""
        while shortlist.next(self._held) is not None:
            taken = await self.ask(shortlist, job_id=job_id, attempt=attempt)
            if taken is not None:
                return taken
        return None

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

    async def _ask(
        self,
        shortlist: Shortlist,
        node_id: str,
        pending: "_Pending",
        job_id: str,
        attempt: int,
        ceiling: int | None,
    ) -> Taken | None:
        answer = await self._reserve(node_id, pending, job_id, attempt, ceiling)
        shortlist.heard(node_id, answer)
        return Taken(node_id, answer) if isinstance(answer, Reserved) else None

    async def _reserve(
        self, node_id: str, pending: "_Pending", job_id: str, attempt: int, ceiling: int | None
    ) -> Reservation:
        sent_ms = self._clock()
        outcome = await self._store.reserve(
            node_id, job_id=job_id, attempt=attempt, lease_ms=self._lease_ms, ceiling=ceiling
        )
        pending.over()
        view, now_ms = pending.view, self._clock()
        self._views.fresh_ms = freshness_ms(now_ms - sent_ms)
        if view is not None and isinstance(outcome, Reserved | Full | Busier):
            view.reserved, view.heard_ms = outcome.count, now_ms
        return outcome

    def _ceiling(self, node_id: str) -> int | None:
        """What the node may hold at most, where that is known well; see `Shortlist`."""
        view = self._views.get(node_id)
        if view is None:
            return None
        if not view.pending and self._clock() - view.heard_ms > self._views.fresh_ms:
            return None
        return view.reserved + view.pending

    def _held(self, node_id: str) -> int:
        view = self._views.get(node_id)
        return view.reserved + view.pending if view is not None else 0

    def _note(self, node_id: str, count: int) -> None:
        view = self._views.get(node_id)
        if view is not None:
            view.reserved = count


class _Pending:
    """One reservation on its way, counted in a view until it is over, whatever comes of it."""

    __slots__ = ("_counted", "view")

    def __init__(self, view: NodeView | None) -> None:
        self.view = view
        self._counted = view is not None
        if view is not None:
            view.pending += 1

    def until(self, asking: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin to ask. The count ends with the task, also with one cancelled before it began."""
        task = asyncio.get_running_loop().create_task(asking)
        task.add_done_callback(self._done)
        return task

    def over(self) -> None:
        if self._counted and self.view is not None:
            self.view.pending -= 1
            self._counted = False

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self.over()
        if not task.cancelled():
            # Whoever asked may be gone: then nobody else takes notice of a failure.
            task.exception()
