"""`manage.py create_session_token`: what a client session comes in by, made by hand."""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from routing.domain.errors import NotAuthorized
from routing.services.session_tokens import LONGEST_LIFE_S
from routing.wiring import session_tokens


class Command(BaseCommand):
    help = (
        "Make a session token, signed by the first of SCHED_SESSION_KEYS, and print it. The client"
        " sends it as 'Authorization: Bearer ...', or as the subprotocol 'bearer....'. In"
        " production the client's backend makes them: see docs/security.md."
    )
    requires_system_checks = []  # Wiring refuses wrong settings itself, in one sentence.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", required=True, help="whose sessions it opens")
        parser.add_argument("--minutes", type=int, default=10, help="how long it is good")
        parser.add_argument("--pairs", help="pairs it allows, such as zh-en,*-de; all if absent")
        parser.add_argument("--languages", help="languages it allows; all if absent")
        parser.add_argument("--rate", type=int, help="frames a second for each socket")
        parser.add_argument("--in-flight", type=int, help="unfinished utterances of the tenant")

    def handle(self, *, tenant: str, minutes: int, **options: Any) -> None:
        if not 1 <= minutes <= LONGEST_LIFE_S // 60:
            raise CommandError(f"--minutes must be from 1 to {LONGEST_LIFE_S // 60}")
        claims: dict[str, Any] = {}
        for name in ("pairs", "languages"):
            if options[name] is not None:
                claims[name] = [word.strip() for word in options[name].split(",")]
        limits = {
            name: options[name] for name in ("rate", "in_flight") if options[name] is not None
        }
        if limits:
            claims["limits"] = limits
        try:
            self.stdout.write(session_tokens().issue(tenant, minutes=minutes, **claims))
        except (ImproperlyConfigured, ValueError, NotAuthorized) as error:
            raise CommandError(str(error)) from None
