"""Mirror published pool versions, and which nodes registered, into the database."""

import asyncio
import contextlib
from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from pools.wiring import build_mirror
from registry.domain.errors import StoreUnavailable
from registry.signals import told_to_stop


class Command(BaseCommand):
    help = (
        "Mirrors published pool versions, and which nodes registered, into the database, for the"
        " admin's history. Runs until SIGTERM or SIGINT; several may run at a time."
    )
    requires_system_checks = []  # Wiring refuses wrong settings itself, in one sentence.

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="mirror what is published now, then exit"
        )

    def handle(self, *, once: bool, **options: object) -> None:
        try:
            asyncio.run(_mirror(once=once))
        except StoreUnavailable as error:
            raise CommandError(str(error)) from None


async def _mirror(*, once: bool) -> None:
    mirror = build_mirror()
    try:
        if once:
            await mirror.once()
            return
        work = asyncio.ensure_future(mirror.run())
        told = asyncio.ensure_future(told_to_stop())
        await asyncio.wait({work, told}, return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        await mirror.close()
