"""The open sockets of this instance, so that they can all be closed when it goes."""

import asyncio
from typing import Protocol


class Link(Protocol):
    """A socket."""

    def close(self, code: int, reason: str) -> None: ...


class Connections:
    """Every open socket, of nodes and sessions alike."""

    def __init__(self) -> None:
        self._links: set[Link] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __len__(self) -> int:
        return len(self._links)

    def add(self, link: Link) -> None:
        self._links.add(link)
        self._none_left.clear()

    def remove(self, link: Link) -> None:
        self._links.discard(link)
        if not self._links:
            self._none_left.set()

    async def close_all(self, code: int, reason: str, *, within_ms: int) -> int:
        """Close them all and wait until they are gone; returns how many were not in time."""
        for link in list(self._links):
            link.close(code, reason)
        try:
            async with asyncio.timeout(within_ms / 1000):
                await self._none_left.wait()
        except TimeoutError:
            pass
        return len(self._links)
