"""How evenly 100 tasks at once from four instances are spread over 20 equal nodes.

Each repetition sends them with all tasks of an instance in one session, then with each task in a
session of its own. Jain's index is 1 where all nodes get the same, and is to be at least 0.99. A
node that held more than its slots would count as over-reserved; there is to be none.
"""

import argparse
import asyncio
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from bench.report import Row, at_least, at_most, finish, plain, say
from tests.support.bursts import INSTANCES, TASKS, jain, lay_out
from tests.support.cluster import Cluster

SESSIONS = {"one session an instance": len(INSTANCES), "one session a task": TASKS}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeat", type=int, default=20, help="bursts of each kind")
    parser.add_argument("--slots", type=int, default=8, help="of each node")


def run(options: argparse.Namespace) -> int:
    """Measure and report; the exit status."""
    rows: list[Row] = []
    raw: dict[str, list[list[int]]] = {}
    for name, sessions in SESSIONS.items():
        raw[name] = asyncio.run(_bursts(sessions, options.slots, options.repeat))
        rows += _rows(name, raw[name], options.slots)
    return finish("Evenness of 100 tasks over 20 nodes", rows, json_path=options.json, raw=raw)


async def _bursts(sessions: int, slots: int, repeat: int) -> list[list[int]]:
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.start_server()
            async with AsyncExitStack() as stack:
                # The defaults of production, not the short times of tests.
                cluster.settings["SCHED_SNAPSHOT_SYNC_MS"] = "1000"
                cluster.settings["SCHED_PRESENCE_TTL_MS"] = "10000"
                cluster.settings["SCHED_OWNER_TTL_MS"] = "10000"
                field = await lay_out(cluster, stack, sessions=sessions, slots=slots)
                found = []
                for number in range(repeat):
                    found.append(await field.burst())
                    await field.finish()
                    say(f"burst {number + 1}: {jain(found[-1]):.4f} {sorted(found[-1])}")
                return found
        finally:
            cluster.end()


def _rows(name: str, bursts: list[list[int]], slots: int) -> list[Row]:
    evenness = [jain(counts) for counts in bursts]
    over = sum(max(count - slots, 0) for counts in bursts for count in counts)
    return [
        at_least(f"Jain's index, worst, {name}", min(evenness), 0.99),
        at_least(f"Jain's index, median, {name}", statistics.median(evenness), 0.99),
        plain(f"bursts, {name}", len(bursts)),
        at_most(f"over-reservations, {name}", over, 0),
    ]
