"""`manage.py run_leader_loop`: a leader candidate without sockets."""

import asyncio
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from registry.signals import told_to_stop
from routing.ops_wiring import build_ops
from routing.wiring import build_candidate


class Command(BaseCommand):
    help = (
        "Stand for election; while elected, generate and publish the pools and clean up after"
        " nodes and instances that are gone. Start several for standby. Ends on SIGTERM or Ctrl-C,"
        " giving the lease up at once. Configured by the environment, like an instance."
    )
    requires_system_checks = []  # Wiring refuses wrong settings itself, in one sentence.

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(_run())


async def _run() -> None:
    candidate = build_candidate()
    ops = build_ops(candidate)
    candidate.start()
    ops.start()
    try:
        await told_to_stop()
    finally:
        await candidate.stop(within_ms=settings.SCHED_STOP_TIMEOUT_MS)
