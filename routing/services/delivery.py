"""Commands between instances: handed over here, or through the other instance's inbox.

A command in an inbox is acknowledged only after its handler has returned, and comes again when
this process fails in between, so every handler may be called twice with the same command.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from registry.domain.errors import StoreUnavailable
from routing.domain.outcome import Envelope
from routing.services.ports import InboxStore

log = structlog.get_logger(__name__)

FINISH_PAUSE_S = 0.02

Handler = Callable[[Envelope], Awaitable[None]]
Burial = Callable[..., Awaitable[None]]


class Delivery:
    """This instance's post office."""

    def __init__(self, inbox: InboxStore, *, instance_id: str) -> None:
        self._inbox = inbox
        self._instance_id = instance_id
        self._handlers: dict[str, Handler] = {}
        self._batches: AsyncIterator[list[tuple[str, Envelope]]] | None = None
        self.on_dead: Burial = _nobody
        self.crossed = 0
        self.received = 0

    def on(self, kind: str, handler: Handler) -> None:
        """Let `handler` act on commands of one kind."""
        self._handlers[kind] = handler

    async def send(self, instance_id: str, envelope: Envelope) -> bool:
        """Bring a command to an instance; False when that instance has no inbox (it is gone)."""
        if instance_id == self._instance_id:
            await self._handlers[envelope.kind](envelope)
            return True
        self.crossed += 1
        return await self._inbox.send(instance_id, envelope)

    async def pump(self) -> None:
        """Wait for what comes into our inbox and act on it. To be called again and again.

        Where that fails, what was not acknowledged comes again at the next call.
        """
        if self._batches is None:
            self._batches = self._inbox.receive()
        try:
            batch = await anext(self._batches)
            for token, envelope in batch:
                await self._act(token, envelope)
            await self._inbox.done([token for token, _ in batch])
        except StopAsyncIteration:
            await asyncio.Event().wait()  # The inbox is closed: nothing comes any more.
        except BaseException:
            self._batches = None
            raise

    async def finish(self) -> None:
        """Act on what is left in our inbox, while `pump` runs, and close it."""
        while not await self._inbox.close():  # noqa: ASYNC110 (the store is what changes)
            await asyncio.sleep(FINISH_PAUSE_S)  # `pump` acknowledges in its own task

    async def _act(self, token: str, envelope: Envelope) -> None:
        handler = self._handlers.get(envelope.kind)
        if handler is None:
            # From a newer version of the scheduler.
            await self.on_dead(token, envelope, reason="unknown kind")
            return
        self.received += 1
        try:
            await handler(envelope)
        except StoreUnavailable:
            raise
        except Exception as error:
            log.exception("command failed", kind=envelope.kind, subject=envelope.subject)
            await self.on_dead(token, envelope, reason=f"{type(error).__name__}: {error}")


async def _nobody(token: str, envelope: Envelope, *, reason: str) -> None:
    log.error("command dropped", kind=envelope.kind, subject=envelope.subject, reason=reason)
