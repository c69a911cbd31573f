"""What operators may do to dead letters: replay and drop, one or many, each audited.

Many at once are done one after the other, each with an audit entry of its own, up to a bound;
the answer says where to go on.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from routing.domain.letters import LetterFilter
from routing.domain.operators import (
    OUTCOME_WORDS,
    ActionOutcome,
    Done,
    NotFound,
    Operator,
)
from routing.services.auditing import Auditor
from routing.services.deadletters import DeadLetters
from routing.services.ports import AuditLog
from routing.services.replays import before

MOST_AT_ONCE = 100


class Replayer(Protocol):
    """Whoever replays letters, here or elsewhere."""

    async def replay(self, letter_id: str) -> ActionOutcome: ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """The letters meant: those named, or else all that fit, newest first, after `cursor`."""

    ids: Sequence[str] = ()
    fitting: LetterFilter = field(default_factory=LetterFilter)
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """How often what came of it. `left` are there still: untouched ones, and those of `not_now`.

    `next` is the cursor to go on with; None when all that were meant have been tried.
    """

    done: int
    already_so: int
    not_found: int
    not_now: int
    left: int
    next: str | None


class LetterActions:
    """Acts on letters in an operator's name. Every method raises StoreUnavailable."""

    def __init__(self, letters: DeadLetters, replayer: Replayer, audit: AuditLog) -> None:
        self.letters = letters
        self._replayer = replayer
        self._audited = Auditor(audit).audited

    async def replay(self, letter_id: str, *, by: Operator) -> ActionOutcome:
        """Run a letter's payload again as a job of its own."""
        work = self._replayer.replay(letter_id)
        return await self._audited(work, "replay dead letter", letter_id, by=by)

    async def drop(self, letter_id: str, *, by: Operator) -> ActionOutcome:
        """Remove a letter for good."""
        return await self._audited(self._drop(letter_id), "drop dead letter", letter_id, by=by)

    async def replay_many(self, chosen: Chosen, *, by: Operator) -> Tally:
        """Replay up to MOST_AT_ONCE letters; raises ValueError for a cursor that is none."""
        return await self._each(chosen, lambda letter_id: self.replay(letter_id, by=by))

    async def drop_many(self, chosen: Chosen, *, by: Operator) -> Tally:
        """Drop up to MOST_AT_ONCE letters; raises ValueError for a cursor that is none."""
        return await self._each(chosen, lambda letter_id: self.drop(letter_id, by=by))

    async def _drop(self, letter_id: str) -> ActionOutcome:
        letter = await self.letters.get(letter_id)
        if letter is None or not await self.letters.drop(letter_id):
            return NotFound(letter_id, "there is no dead letter of this id")
        return Done(letter_id, "dropped", before(letter) | {"after": "gone"})

    async def _each(self, chosen: Chosen, act: Callable[[str], Awaitable[ActionOutcome]]) -> Tally:
        ids, untouched, cursor = await self._choose(chosen)
        words = Counter([OUTCOME_WORDS[type(await act(letter_id))] for letter_id in ids])
        return Tally(
            done=words["done"],
            already_so=words["already so"],
            not_found=words["not found"],
            not_now=words["not now"],
            left=untouched + words["not now"],
            next=cursor,
        )

    async def _choose(self, chosen: Chosen) -> tuple[list[str], int, str | None]:
        """The letters of this turn, how many come after them, and where those begin."""
        if chosen.ids:
            ids = list(dict.fromkeys(chosen.ids))
            return ids[:MOST_AT_ONCE], len(ids[MOST_AT_ONCE:]), None
        page = await self.letters.page(chosen.fitting, cursor=chosen.cursor, limit=MOST_AT_ONCE)
        more = await self.letters.count(chosen.fitting, cursor=page.next) if page.next else 0
        return [letter.id for letter in page.items], more, page.next
