"""`manage.py node drain|resume|shutdown NODE_ID`: the words of an operator to a node."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from routing.management.acting import act
from routing.services.actions import LONGEST_REASON


class Command(BaseCommand):
    help = (
        "Drain, resume or shut down a node, whichever instance it is connected to. Each may be"
        " repeated, and is written to the audit log under the user who runs it."
    )
    requires_system_checks = []  # Wiring refuses wrong settings itself, in one sentence.

    def add_arguments(self, parser: ArgumentParser) -> None:
        words = parser.add_subparsers(dest="word", required=True, metavar="drain|resume|shutdown")
        for word, meaning in (
            ("drain", "give it nothing new and let it finish; it stays so when it reconnects"),
            ("resume", "give a drained node work again"),
            ("shutdown", "tell it to end, and give it nothing new until then"),
        ):
            sub = words.add_parser(word, help=meaning, description=f"{word} a node: {meaning}")
            sub.add_argument("node_id", help="its id, as in /api/v1/nodes")
            sub.add_argument(
                "--reason", default="", help="told to the node, and kept in the audit log"
            )

    def handle(self, *, word: str, node_id: str, reason: str, **options: Any) -> None:
        told = reason[:LONGEST_REASON]
        match word:
            case "drain":
                done = act(lambda actions, by: actions.drain(node_id, by=by, reason=told))
            case "resume":
                done = act(lambda actions, by: actions.resume(node_id, by=by, reason=told))
            case _:
                done = act(lambda actions, by: actions.shut_down(node_id, by=by, reason=told))
        self.stdout.write(done)
