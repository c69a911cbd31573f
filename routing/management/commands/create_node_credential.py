"""`manage.py create_node_credential`: what a node comes in by."""

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from registry.domain.errors import StoreUnavailable
from routing.management.acting import whoever_calls
from routing.wiring import node_credentials

LONGEST_LIFE_DAYS = 3_650


class Command(BaseCommand):
    help = (
        "Make a credential for a node, and print it. It is shown this once; only its hash is kept."
        " The node sends it as 'Authorization: Bearer node_...', or as the subprotocol"
        " 'bearer.node_...'. A node may have several, so that they can be changed one by one."
    )
    requires_system_checks = []  # It needs the database and nothing else.

    def add_arguments(self, parser: ArgumentParser) -> None:
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("node_id", nargs="?", help="the id that the node registers under")
        who.add_argument(
            "--any", action="store_true", help="good for every id without a credential of its own"
        )
        parser.add_argument("--name", default="command", help="what has it, for people")
        parser.add_argument("--days", type=int, help="how long it is good; without end if absent")

    def handle(self, *, name: str, days: int | None, **options: Any) -> None:
        if not 1 <= len(name.strip()) <= 100:
            raise CommandError("--name must have 1 to 100 characters")
        if days is not None and not 1 <= days <= LONGEST_LIFE_DAYS:
            raise CommandError(f"--days must be from 1 to {LONGEST_LIFE_DAYS}")
        issue = node_credentials().issue(
            node_id=options["node_id"], name=name.strip(), days=days, by=whoever_calls()
        )
        try:
            secret = asyncio.run(issue)
        except StoreUnavailable as error:
            raise CommandError(str(error)) from None
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        self.stdout.write(secret)
