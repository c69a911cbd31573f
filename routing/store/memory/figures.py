"""The figures in memory."""

from registry.store.memory import MemoryServer
from routing.domain.figures import Figures


class MemoryFigureStore:
    """Implements `FigureStore`."""

    def __init__(self, server: MemoryServer, *, life_ms: int) -> None:
        self._server = server
        self._life_ms = life_ms

    async def post(self, figures: Figures) -> list[Figures]:
        posted = self._server.state(_Posted).by_id
        now_ms = self._server.clock()
        posted[figures.instance_id] = (now_ms, figures)
        for instance_id, (at_ms, _) in list(posted.items()):
            if now_ms - at_ms > self._life_ms:
                del posted[instance_id]
        return [found for _, (_, found) in sorted(posted.items())]


class _Posted:
    def __init__(self, server: MemoryServer) -> None:
        self.by_id: dict[str, tuple[int, Figures]] = {}
