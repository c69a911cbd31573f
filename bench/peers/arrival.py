"""How a handler tells that it started, alike for each peer; needs nothing but Python.

The submitter listens, on a socket that it inherits. A handler gets the moment of submission as its
argument, and sends back that and its own, both of CLOCK_MONOTONIC in ns, which all processes of a
machine share.
"""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable

REDIS_URL = os.environ.get("BENCH_REDIS_URL", "redis://localhost")
ARRIVALS_PORT = int(os.environ.get("BENCH_ARRIVALS_PORT", "0"))
ARRIVALS_FD = int(os.environ.get("BENCH_ARRIVALS_FD", "-1"))
TOGETHER = 50
PAUSE_S = 0.002
"""Between two tasks that are measured singly: workers shall wait again by then."""

Submit = Callable[[int], Awaitable[object]]
_connection: socket.socket | None = None


def tell(sent_ns: int) -> None:
    """To be called first thing in a handler."""
    started_ns = time.monotonic_ns()
    global _connection
    if _connection is None:
        _connection = socket.create_connection(("127.0.0.1", ARRIVALS_PORT))
        _connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _connection.sendall(b"%d %d\n" % (sent_ns, started_ns))


class Arrivals:
    """What handlers told."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(
            self._read, sock=socket.socket(fileno=ARRIVALS_FD)
        )

    async def next(self, *, within_s: float = 30) -> tuple[int, int]:
        """When the next handler's task was submitted, and when it started."""
        return await asyncio.wait_for(self._came.get(), within_s)

    async def _read(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            sent_ns, started_ns = line.split()
            self._came.put_nowait((int(sent_ns), int(started_ns)))


async def measure(submit: Submit, *, together: int = TOGETHER) -> None:
    """Submit what the parent says (`singles burst rounds` as arguments) and print the figures.

    `together` is 1 for libraries whose submission blocks.
    """
    singles, burst, rounds = (int(argument) for argument in sys.argv[1:4])
    arrivals = Arrivals()
    await arrivals.listen()
    await submit(time.monotonic_ns())  # Connects what connects at its first use.
    await arrivals.next()
    found: dict[str, list[float]] = {"pickup_us": [], "tasks_per_s": []}
    for _ in range(rounds):
        found["pickup_us"] += await _one_by_one(submit, arrivals, singles)
        found["tasks_per_s"].append(await _all_at_once(submit, arrivals, burst, together))
    sys.stdout.write(json.dumps(found) + "\n")


async def _one_by_one(submit: Submit, arrivals: Arrivals, count: int) -> list[float]:
    spent = []
    for _ in range(count):
        await asyncio.sleep(PAUSE_S)
        await submit(time.monotonic_ns())
        sent_ns, started_ns = await arrivals.next()
        spent.append((started_ns - sent_ns) / 1000)
    return spent


async def _all_at_once(submit: Submit, arrivals: Arrivals, count: int, together: int) -> float:
    began_ns = time.monotonic_ns()
    for start in range(0, count, together):
        few = range(start, min(start + together, count))
        await asyncio.gather(*(submit(time.monotonic_ns()) for _ in few))
    last_ns = max([await arrivals.next() for _ in range(count)], key=lambda pair: pair[1])[1]
    return count / ((last_ns - began_ns) / 1e9)
