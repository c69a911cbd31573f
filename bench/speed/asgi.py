"""The empty applications that the scheduler is compared with, served by the same daphne.

`/consumer` is the plainest Channels consumer; `/bare` an ASGI receive loop without Channels. Both
send each frame back.
"""

from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

if not settings.configured:
    settings.configure(DATABASES={}, CHANNEL_LAYERS={})


class EmptyConsumer(AsyncWebsocketConsumer):
    """Nothing but what Channels does by itself."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


_consumer = EmptyConsumer.as_asgi()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve one socket."""
    if scope["type"] != "websocket":
        raise ValueError(f"only sockets are served here, not {scope['type']}")
    if scope["path"] == "/consumer":
        await _consumer(scope, receive, send)
    else:
        await _bare(receive, send)


async def _bare(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": event["text"]})
