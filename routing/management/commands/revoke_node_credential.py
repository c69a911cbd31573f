"""`manage.py revoke_node_credential`: no node comes in by it any more, and who did is put out."""

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from registry.domain.errors import StoreUnavailable
from routing.management.acting import whoever_calls
from routing.wiring import build_revoking, node_credentials


class Command(BaseCommand):
    help = (
        "Revoke a node's credential by what it begins with, 'node_' and eight characters, as the"
        " admin shows it. Sockets that came in by it are closed with 4401 on every instance: at"
        " once, or within seconds where Redis is away. Written to the audit log."
    )
    requires_system_checks = []  # Wiring refuses wrong settings itself, in one sentence.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("begins_with", help="how it begins, such as node_a1B2c3D4")

    def handle(self, *, begins_with: str, **options: Any) -> None:
        try:
            revoked = asyncio.run(_revoke(begins_with))
        except (ImproperlyConfigured, StoreUnavailable) as error:
            raise CommandError(str(error)) from None
        if not revoked:
            raise CommandError("no credential that is not revoked yet begins so")
        self.stdout.write(f"revoked: {len(revoked)}")


async def _revoke(begins_with: str) -> list[int]:
    revoked = await node_credentials().revoke(begins_with, by=whoever_calls())
    if revoked:
        async with build_revoking() as revoking:
            if revoking is not None:
                await revoking.announce(revoked)
    return revoked
