"""One scheduler process: built once, started once per event loop, stopped in order.

daphne sends no lifespan events and calls the application only when someone connects, so the
process starts itself as soon as the server's loop runs, and takes SIGTERM and SIGINT before daphne
does: first it leaves the cluster, then the server may stop. Servers that do send lifespan events
(uvicorn, hypercorn) are followed instead.
"""

import asyncio
import signal
from types import FrameType
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import RequestAborted

from routing.instance import Routing
from routing.ops.pages import open_topic, right_for
from routing.ops_wiring import build_ops, set_running_ops
from routing.running import set_running
from routing.services.feed import Feed
from routing.wiring import build_routing

log = structlog.get_logger(__name__)


class Process:
    """The scheduler's life within one server process."""

    def __init__(self) -> None:
        self.routing: Routing = build_routing()
        self.ops = build_ops(self.routing)
        self.feed = Feed(
            lambda name: open_topic(self.ops, name),
            spawn=lambda work: self.routing.registry.loops.spawn(work, name="feed"),
            right_for=right_for,
        )
        self._started = False
        self._stopping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Join the cluster. To be called on the event loop; a second call does nothing."""
        if not self._started:
            self._started = True
            set_running(self.routing)
            set_running_ops(self.ops)
            self.routing.start()
            self.ops.start()

    async def stop(self) -> None:
        """Leave the cluster, within SCHED_STOP_TIMEOUT_MS; a second call waits for the first."""
        if self._stopping is None:
            work = self.routing.stop(within_ms=settings.SCHED_STOP_TIMEOUT_MS)
            self._stopping = asyncio.get_running_loop().create_task(work)
        await asyncio.shield(self._stopping)

    def start_with_daphne(self) -> None:
        """Start when daphne's reactor does. To be called in a daphne process, before that."""
        from twisted.internet import reactor

        # The reactor calls back a moment before its loop runs, and hides what is raised there.
        reactor.callWhenRunning(reactor._asyncioEventloop.call_soon, self._start_under_daphne)

    def _start_under_daphne(self) -> None:
        self.start()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_tell_unless_aborted)
        for number in (signal.SIGTERM, signal.SIGINT):
            servers_own = signal.getsignal(number)

            def leave_first(
                number: int, frame: FrameType | None, servers_own: Any = servers_own
            ) -> None:
                loop.call_soon_threadsafe(self._leave_then, servers_own, number)

            signal.signal(number, leave_first)

    def _leave_then(self, servers_own: Any, number: int) -> None:
        async def leave() -> None:
            try:
                await self.stop()
            finally:
                servers_own(number, None)

        self._leaving = asyncio.get_running_loop().create_task(leave())


def _tell_unless_aborted(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # Django leaves its watch for a client's leaving behind when daphne ends a request under way.
    if not isinstance(context.get("exception"), RequestAborted):
        loop.default_exception_handler(context)
