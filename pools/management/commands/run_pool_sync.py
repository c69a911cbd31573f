"""Mirror published pool versions, and which nodes registered, into the database."""

import asyncio
import signal
from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError

from pools.wiring import build_mirror
from registry.domain.errors import StoreUnavailable


class Command(BaseCommand):
    help = (
        "Mirrors published pool versions, and which nodes registered, into the database, for the"
        " admin's history. Runs until SIGTERM or SIGINT; several may run at a time."
    )

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
        work = asyncio.ensure_future(mirror.once() if once else mirror.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        await asyncio.wait({work})
        if not work.cancelled():
            work.result()
    finally:
        await mirror.close()
