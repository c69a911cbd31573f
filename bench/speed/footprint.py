"""The sections `memory` and `beats`: what nodes and sessions cost that do nothing."""

import time
from collections.abc import Awaitable, Callable

from bench.report import say
from bench.speed.figures import Figures
from bench.speed.hall import Hall
from bench.speed.payload import BEATING, HERE
from bench.speed.sizes import Sizes
from bench.stage import MeasuredInstance, resident_bytes

WARM = 50
"""Sockets that are opened first: what a process loads for its first ones is nobody's share."""
FULL_BEATING = 10_000
JOINED_WITHIN_S = 1_200.0


async def memory(hall: Hall, sizes: Sizes, found: Figures) -> None:
    """KiB of resident memory for each idle socket, in processes that served nobody before."""
    turn = len(found.rounds["KiB consumer"]) + 1
    empty = hall.start_empty(f"empty-{turn}")
    sockets = await hall.sockets()
    first, second = await hall.cluster(f"memory-{turn}", 2)
    fleet = await hall.worker(f"memory-{turn}", "fleet", *HERE)

    async def hold(count: int) -> None:
        await sockets.ask("hold", url=empty.url("/consumer"), count=count)

    async def open_sessions(count: int) -> None:
        await fleet.ask("open", sessions=[first.session_url] * count)

    async def join(count: int) -> None:
        await fleet.ask("join", nodes=[second.node_url] * count, slots=4, name=f"idle-{count}")

    found.add("KiB consumer", await _grown(empty.pid, hold, sizes.held))
    found.add("KiB session", await _grown(first.pid, open_sessions, sizes.held))
    found.add("KiB node", await _grown(second.pid, join, sizes.held))
    await sockets.ask("let_go")
    await fleet.end()


async def _grown(pid: int, add: Callable[[int], Awaitable[None]], count: int) -> float:
    await add(WARM)
    before = resident_bytes(pid)
    await add(count)
    return (resident_bytes(pid) - before) / 1024 / count


async def beats(hall: Hall, sizes: Sizes, found: Figures) -> None:
    """One core's share of an instance, of three, while all nodes beat every 15 s."""
    instances = await hall.cluster("three", 3)
    fleet = await hall.worker("beats", "fleet", *BEATING)
    pids = {instance.name: [instance.pid] for instance in instances}
    idle = await fleet.ask("beats", seconds=sizes.beats_s / 3, pids=pids)
    say(f"{sizes.beating:,} nodes register")
    addresses = [instances[n % 3].node_url for n in range(sizes.beating)]
    began = time.monotonic()
    await fleet.ask("join", nodes=addresses, slots=4, name="beating", within_s=JOINED_WITHIN_S)
    found.add("nodes joined/s", sizes.beating / (time.monotonic() - began))
    say("they beat")
    busy = await fleet.ask("beats", seconds=sizes.beats_s, pids=pids)
    if busy["closed"]:
        found.notes.append(f"beats: {busy['closed']} nodes were disconnected")
    found.add("client beats", busy["cpu"]["client"] / busy["seconds"])
    for instance in instances:
        share = _share(instance, idle), _share(instance, busy)
        # Fewer nodes are scaled up; what an instance does without nodes is not.
        found.add("beats", (share[0] + (share[1] - share[0]) * FULL_BEATING / sizes.beating) * 100)
        found.add("beats measured", share[1] * 100)


def _share(instance: MeasuredInstance, figures: dict[str, dict[str, float]]) -> float:
    return figures["cpu"][instance.name] / float(figures["seconds"])  # type: ignore[arg-type]
