"""The figures of all processes in Redis: one hash that nobody has to clean up."""

import msgspec

from registry.store.connection import Connection
from registry.store.keys import Keys
from routing.domain.figures import Figures
from routing.store.jobs import SCRIPTS

_figures = msgspec.json.Decoder(Figures)


class RedisFigureStore:
    """Implements `FigureStore`."""

    def __init__(self, connection: Connection, keys: Keys, *, life_ms: int) -> None:
        self._connection = connection
        self._key = keys.figures
        self._life_ms = life_ms

    async def post(self, figures: Figures) -> list[Figures]:
        reply = await self._connection.run(
            SCRIPTS["post_figures"],
            [self._key],
            [figures.instance_id, msgspec.json.encode(figures), self._life_ms],
        )
        # A peer of another version may say what we cannot read; it shows up on its own pages.
        found = (_decoded(value) for value in reply.values)
        return sorted((f for f in found if f is not None), key=lambda f: f.instance_id)


def _decoded(value: bytes) -> Figures | None:
    try:
        return _figures.decode(value)
    except msgspec.MsgspecError:
        return None
