"""`manage.py pools regenerate`: have the leader look at the nodes again, now."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from routing.management.acting import act


class Command(BaseCommand):
    help = (
        "Ask the leader to generate the pools now instead of at the next change of a node. A new"
        " version is published only where the result differs. Written to the audit log."
    )
    requires_system_checks = []  # Wiring refuses wrong settings itself, in one sentence.

    def add_arguments(self, parser: ArgumentParser) -> None:
        words = parser.add_subparsers(dest="word", required=True, metavar="regenerate")
        words.add_parser("regenerate", help="generate the pools now")

    def handle(self, **options: Any) -> None:
        self.stdout.write(act(lambda actions, by: actions.regenerate(by=by)))
