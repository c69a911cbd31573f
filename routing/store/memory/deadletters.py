"""Dead letters in memory."""

from collections import defaultdict
from dataclasses import dataclass, replace

from registry.store.memory import MemoryServer, Shelf
from routing.domain.letters import Burial, DeadLetter, Position, ReplayNote


@dataclass(frozen=True, slots=True)
class Kept:
    """A letter at its place, and its payload."""

    position: Position
    letter: DeadLetter
    payload: bytes


class LetterState:
    """Each instance's letters by id, oldest first, and the notes of replays."""

    def __init__(self, server: MemoryServer) -> None:
        self.letters: defaultdict[str, dict[str, Kept]] = defaultdict(dict)
        self.notes: Shelf[ReplayNote] = Shelf(server)


class MemoryDeadLetterStore:
    """Implements `DeadLetterStore` for one instance."""

    def __init__(
        self,
        server: MemoryServer,
        *,
        instance_id: str,
        limit: int,
        keep_ms: int,
        retention_ms: int,
    ) -> None:
        self._server = server
        self._instance_id = instance_id
        self._limit = limit
        self._keep_ms = keep_ms
        self._retention_ms = retention_ms

    @property
    def _state(self) -> LetterState:
        return self._server.state(LetterState)

    async def bury(self, letter: DeadLetter, *, payload: bytes) -> Burial:
        fresh = self._find(letter.id) is None
        if fresh:
            place = Position(self._server.clock(), self._server.next_position(), self._instance_id)
            there = replace(letter, buried_at_ms=place.ms, instance_id=self._instance_id)
            self._state.letters[self._instance_id][letter.id] = Kept(place, there, payload)
        return replace(await self.trim(self._instance_id), fresh=fresh)

    async def instances(self) -> list[str]:
        return sorted(self._state.letters)

    async def read(
        self, instance_id: str, *, before: str, count: int
    ) -> list[tuple[Position, DeadLetter]]:
        below = Position.of(before, "") if before else None
        kept = reversed(self._state.letters.get(instance_id, {}).values())
        found = [
            (one.position, one.letter)
            for one in kept
            if below is None or one.position[:2] < below[:2]
        ]
        return found[:count]

    async def count(self, instance_id: str) -> int:
        return len(self._state.letters.get(instance_id, {}))

    async def get(self, letter_id: str) -> tuple[DeadLetter, bytes] | None:
        found = self._find(letter_id)
        return (found.letter, found.payload) if found is not None else None

    async def drop(self, letter_id: str) -> bool:
        found = [kept.pop(letter_id, None) for kept in self._state.letters.values()]
        return any(found)

    async def trim(self, instance_id: str) -> Burial:
        kept = self._state.letters.get(instance_id, {})
        oldest_ms = self._server.clock() - self._keep_ms
        excess = len(kept) - self._limit
        gone = [
            one.letter.id
            for number, one in enumerate(kept.values())
            if number < excess or one.position.ms <= oldest_ms
        ]
        for letter_id in gone:
            del kept[letter_id]
        return Burial(fresh=False, held=len(kept), dropped=len(gone))

    async def forget(self, instance_id: str) -> None:
        self._state.letters.pop(instance_id, None)

    async def note_replay(self, session_id: str, note: ReplayNote) -> None:
        self._state.notes.put(session_id, note, ttl_ms=self._retention_ms)

    async def replay_note(self, session_id: str) -> ReplayNote | None:
        return self._state.notes.get(session_id)

    def _find(self, letter_id: str) -> Kept | None:
        found = (kept.get(letter_id) for kept in self._state.letters.values())
        return next(filter(None, found), None)
