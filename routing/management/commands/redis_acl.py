"""`manage.py redis_acl`: what a Redis user must be allowed, as one command for its operator."""

import re
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from routing.wiring import redis_rights

USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class Command(BaseCommand):
    help = (
        "Print the ACL rule of a Redis user that may do what the scheduler needs under"
        " SCHED_REDIS_KEY_PREFIX, and nothing else. The password is yours to add: '>password', or"
        " '#' and its SHA-256."
    )
    requires_system_checks = []  # It asks neither Redis nor the database.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", required=True, help="the user's name")
        parser.add_argument(
            "--file", action="store_true", help="a line of an ACL file instead of a command"
        )

    def handle(self, *, user: str, file: bool, **options: Any) -> None:
        if USER.fullmatch(user) is None:
            raise CommandError("--user must be 1 to 64 letters, digits, '.', '_', '@' or '-'")
        verb = "user" if file else "ACL SETUSER"
        self.stdout.write(f"{verb} {user} on {' '.join(redis_rights())}")
