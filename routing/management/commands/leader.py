"""`manage.py leader step-down`: have another election held."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from routing.management.acting import act


class Command(BaseCommand):
    help = (
        "Ask the leader to step down. It releases its lease at once and the candidates hold an"
        " election, under a higher epoch; dispatch goes on meanwhile. Written to the audit log."
    )
    requires_system_checks = []  # Wiring refuses wrong settings itself, in one sentence.

    def add_arguments(self, parser: ArgumentParser) -> None:
        words = parser.add_subparsers(dest="word", required=True, metavar="step-down")
        words.add_parser("step-down", help="have the leader release its lease")

    def handle(self, **options: Any) -> None:
        self.stdout.write(act(lambda actions, by: actions.step_down(by=by)))
