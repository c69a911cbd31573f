"""`/ws/ops`: what the operator pages watch, for staff with a session.

A page says which topics it watches and confirms each frame. Without confirmation the server would
not know that a browser fell behind: daphne takes whatever it is given, into memory.
"""

import asyncio
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from routing.consumers.base import Receive, Send, SocketConsumer
from routing.domain.credentials import Presented
from routing.domain.errors import CloseCode, InvalidMessage
from routing.domain.limits import Limits
from routing.instance import Routing
from routing.services.feed import LONGEST_TOPIC, TOPICS_OF_A_VIEWER, Feed

WINDOW = 3
"""Frames on their way to one page; a page that is further behind gets the whole later."""

FRAMES_A_SECOND = 20
"""Of a page: it confirms a few a second, and says now and then what it watches."""

LIFE_S = 900
"""After this long the page comes again, and its session is looked at again."""


class _Watch(msgspec.Struct, frozen=True):
    """What a page sends: the topics it watches, or how many frames it has taken since."""

    watch: (
        Annotated[
            list[Annotated[str, Meta(max_length=LONGEST_TOPIC)]],
            Meta(max_length=TOPICS_OF_A_VIEWER),
        ]
        | None
    ) = None
    got: Annotated[int, Meta(ge=0, le=WINDOW)] = 0


_decoder = msgspec.json.Decoder(_Watch)


class OpsConsumer(SocketConsumer):
    """The socket of one open page."""

    def __init__(self, routing: Routing, feed: Feed) -> None:
        super().__init__(routing)
        self._feed = feed
        self._unconfirmed = 0
        self._rights: dict[str, bool] = {}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        user = scope.get("user")
        if user is None or not (user.is_active and user.is_staff):
            # Refused before it is accepted: the handshake is answered with 403.
            await receive()
            await send({"type": "websocket.close"})
            return
        comes_again = asyncio.get_running_loop().call_later(
            LIFE_S, lambda: self.close(CloseCode.GOING_DOWN, "come again")
        )
        try:
            await super().__call__(scope, receive, send)
        finally:
            comes_again.cancel()

    async def admit(self, shown: Presented) -> None:
        # Whoever got here has a session: see `__call__`.
        self.greeted = True

    def frame_rate(self, limits: Limits) -> int:
        return FRAMES_A_SECOND

    async def frame(self, data: str | bytes) -> None:
        try:
            message = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise InvalidMessage(f"not a message of a page: {error}") from None
        self._unconfirmed = max(self._unconfirmed - message.got, 0)
        if message.watch is not None:
            self._feed.watch(self, [name for name in message.watch if await self._may(name)])

    async def _may(self, name: str) -> bool:
        """Whether the viewer may watch a topic; looked up once a connection."""
        right = self._feed.right_for(name)
        if right and right not in self._rights:
            self._rights[right] = bool(await self.scope["user"].ahas_perm(right))
        return not right or self._rights[right]

    async def closed(self) -> None:
        self._feed.leave(self)

    def show(self, text: str) -> bool:
        """Hand a frame to the page; False when it has not taken those before."""
        if self._closing or self._unconfirmed >= WINDOW:
            return False
        self._unconfirmed += 1
        self._outgoing_bytes += len(text)
        self._put({"type": "websocket.send", "text": text})
        return True
