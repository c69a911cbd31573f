"""`manage.py create_operator_token`: a credential for an operator's program."""

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from registry.domain.errors import StoreUnavailable
from routing.management.acting import whoever_calls
from routing.wiring import operator_tokens

LONGEST_LIFE_DAYS = 3_650


class Command(BaseCommand):
    help = (
        "Make a token with which a program may use the API in the name of a staff user, and print"
        " it. It is shown this once; only its hash is kept. Send it as"
        " 'Authorization: Bearer sched_...'. Revoke it in the admin."
    )
    requires_system_checks = []  # It needs the database and nothing else.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", required=True, help="the staff user it acts for")
        parser.add_argument("--name", required=True, help="what uses it, for people")
        parser.add_argument("--days", type=int, help="how long it is good; without end if absent")

    def handle(self, *, user: str, name: str, days: int | None, **options: Any) -> None:
        if not 1 <= len(name.strip()) <= 100:
            raise CommandError("--name must have 1 to 100 characters")
        if days is not None and not 1 <= days <= LONGEST_LIFE_DAYS:
            raise CommandError(f"--days must be from 1 to {LONGEST_LIFE_DAYS}")
        issue = operator_tokens().issue(user=user, name=name.strip(), days=days, by=whoever_calls())
        try:
            token = asyncio.run(issue)
        except StoreUnavailable as error:
            raise CommandError(str(error)) from None
        if token is None:
            raise CommandError(f"there is no active staff user '{user}'")
        self.stdout.write(token)
