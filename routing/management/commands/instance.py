"""`manage.py instance drain|resume INSTANCE_ID`: empty an instance, or let it work again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from routing.management.acting import act
from routing.services.actions import LONGEST_REASON


class Command(BaseCommand):
    help = (
        "Drain or resume a scheduler instance. Each may be repeated, and is written to the audit"
        " log under the user who runs it."
    )
    requires_system_checks = []  # Wiring refuses wrong settings itself, in one sentence.

    def add_arguments(self, parser: ArgumentParser) -> None:
        words = parser.add_subparsers(dest="word", required=True, metavar="drain|resume")
        for word, meaning in (
            ("drain", "it takes nobody new, and closes its sockets when their work is finished"),
            ("resume", "it takes sessions and nodes again"),
        ):
            sub = words.add_parser(word, help=meaning, description=f"{word} an instance: {meaning}")
            sub.add_argument("instance_id", help="its id, as in /api/v1/state")
            sub.add_argument("--reason", default="", help="kept in the audit log")

    def handle(self, *, word: str, instance_id: str, reason: str, **options: Any) -> None:
        told = reason[:LONGEST_REASON]
        if word == "drain":
            done = act(lambda actions, by: actions.drain_instance(instance_id, by=by, reason=told))
        else:
            done = act(lambda actions, by: actions.resume_instance(instance_id, by=by, reason=told))
        self.stdout.write(done)
