"""`manage.py deadletters list|show|replay|drop`: the jobs and commands that came to nothing."""

import asyncio
from argparse import ArgumentParser
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from django.core.management.base import BaseCommand, CommandError

from registry.domain.errors import StoreUnavailable
from routing.domain.letters import DeadLetter, LetterFilter
from routing.domain.operators import ActionOutcome, NotFound, NotNow
from routing.management.acting import whoever_calls
from routing.services.letter_actions import LetterActions
from routing.wiring import build_letter_actions

Answer = TypeVar("Answer")


class Command(BaseCommand):
    help = (
        "List dead letters, show one, replay it as a new job, or drop it. A replay is done by an"
        " instance, which is asked. Replay and drop may be repeated, and are written to the audit"
        " log under the user who runs them."
    )
    requires_system_checks = []  # Wiring refuses wrong settings itself, in one sentence.

    def add_arguments(self, parser: ArgumentParser) -> None:
        words = parser.add_subparsers(dest="word", required=True, metavar="list|show|replay|drop")
        listed = words.add_parser("list", help="newest first, one a line")
        for name in ("tenant", "code", "src", "tgt"):
            listed.add_argument(f"--{name}", default="", help=f"only those of this {name}")
        listed.add_argument("--cursor", default="", help="go on where an earlier list ended")
        listed.add_argument("--limit", type=int, default=100, help="1 to 500, 100 if absent")
        for word, meaning in (
            ("show", "print one as JSON, without what it carries"),
            ("replay", "run it again, as a job under a session of its own"),
            ("drop", "remove it for good"),
        ):
            sub = words.add_parser(word, help=meaning, description=f"{word} a letter: {meaning}")
            sub.add_argument("letter_id", help="its id, as in the list")

    def handle(self, *, word: str, **options: Any) -> None:
        match word:
            case "list":
                self._list(**options)
            case "show":
                self._show(options["letter_id"])
            case _:
                self._act(word, options["letter_id"])

    def _list(self, *, cursor: str, limit: int, **options: Any) -> None:
        if not 1 <= limit <= 500:
            raise CommandError("--limit must be from 1 to 500")
        wanted = LetterFilter(*(options[name] for name in ("tenant", "code", "src", "tgt")))
        try:
            page = _ask(lambda on: on.letters.page(wanted, cursor=cursor, limit=limit))
        except ValueError as error:
            raise CommandError(str(error)) from None
        for letter in page.items:
            self.stdout.write(_line(letter))
        if page.next:
            self.stdout.write(f"go on with --cursor {page.next}")

    def _show(self, letter_id: str) -> None:
        letter = _ask(lambda on: on.letters.get(letter_id))
        if letter is None:
            raise CommandError("there is no dead letter of this id")
        self.stdout.write(msgspec.json.format(msgspec.json.encode(letter)).decode())

    def _act(self, word: str, letter_id: str) -> None:
        by = whoever_calls()

        async def act(on: LetterActions) -> ActionOutcome:
            action = on.replay if word == "replay" else on.drop
            return await action(letter_id, by=by)

        outcome = _ask(act)
        if isinstance(outcome, NotFound | NotNow):
            raise CommandError(outcome.sentence)
        self.stdout.write(outcome.sentence)


def _ask(question: Callable[[LetterActions], Awaitable[Answer]]) -> Answer:
    async def ask() -> Answer:
        async with build_letter_actions() as letters:
            return await question(letters)

    try:
        return asyncio.run(ask())
    except StoreUnavailable as error:
        raise CommandError(str(error)) from None


def _line(letter: DeadLetter) -> str:
    at = datetime.fromtimestamp(letter.buried_at_ms / 1000, UTC)
    pair = f"{letter.src}>{letter.tgt}" if letter.src else "-"
    what = (letter.code, pair, letter.tenant or "-", f"{len(letter.history)} attempts")
    return "  ".join((f"{at:%Y-%m-%d %H:%M:%S}", letter.id, *what))
