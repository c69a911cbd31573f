"""How soon work runs again when an instance, or a node's connection, is lost.

First node connections are broken off one after the other: the time to `job_assign` at another node
is counted in unloaded dispatches, measured just before from utterance to `job_assign`. Then an
instance is killed with tasks in flight. Its nodes come back elsewhere, half of them naming their
jobs, and its sessions resume. Measured is the time until every utterance has ended or is worked on
at a node that is connected to a living instance, counted in presence TTLs.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from bench.report import Row, at_most, finish, percentile, plain, say, spread
from tests.support.agents import Node, Session
from tests.support.cluster import Cluster, Instance
from tests.support.roaming import RoamingNode, RoamingSession
from tests.support.waiting import eventually

NODES = 10
PAIR = ("zh", "en")
POOL = "zh-en"
OTHER = ("ja", "en")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", type=int, default=200, help="in flight at the kill (200)")
    parser.add_argument("--ttl-ms", type=int, default=6000, help="the presence TTL (6000)")
    parser.add_argument("--kills", type=int, default=1, help="instances killed (1)")
    parser.add_argument("--dispatches", type=int, default=200, help="unloaded dispatches (200)")
    parser.add_argument("--losses", type=int, default=100, help="connections broken off (100)")


def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-recovery-") as folder:
        return asyncio.run(_run(options, Path(folder)))


async def _run(options: argparse.Namespace, folder: Path) -> int:
    cluster = Cluster(
        folder,
        SCHED_PRESENCE_TTL_MS=str(options.ttl_ms),
        SCHED_OWNER_TTL_MS=str(options.ttl_ms),
        SCHED_JOB_TIMEOUT_MS="120000",
        SCHED_QUEUE_TIMEOUT_MS="120000",
        PYTHONWARNINGS="ignore",
    )
    cluster.start_server()
    try:
        instances = await cluster.start_instances("one", "two", "three")
        lost = await _lose_connections(options, instances)
        kills = []
        for number in range(options.kills):
            kills.append(await _kill(options, instances))
            instances = [*instances[1:], *await cluster.start_instances(f"next-{number}")]
    finally:
        cluster.end()
    rows = _rows(options, kills, lost)
    return finish("recovery: after the loss of an instance, of a connection", rows,
                  json_path=options.json, raw={"kills": kills, "losses": lost})  # fmt: skip


async def _kill(options: argparse.Namespace, instances: list[Instance]) -> dict[str, float]:
    turned = [[*instances[n % 3 :], *instances[: n % 3]] for n in range(NODES)]
    nodes = [
        RoamingNode(
            [i.node_url for i in order],
            f"n{n}",
            POOL,
            slots=options.tasks,
            work_s=600,
            names=n % 2 == 0,
        )
        for n, order in enumerate(turned)
    ]
    each = options.tasks // NODES
    sessions = [
        RoamingSession([i.session_url for i in order], *PAIR, count=each) for order in turned
    ]
    total = each * NODES
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    try:
        await _serving(instances, NODES)
        tasks += [asyncio.create_task(session.run()) for session in sessions]
        await eventually(
            lambda: sum(len(node.held) for node in nodes) == total, within_ms=60_000, what="load"
        )
        instances[0].kill()
        killed_at = time.monotonic()

        def on_its_way() -> bool:
            running = {job_id for node in nodes for job_id in node.held}
            # Whoever was there has noticed, and is somewhere else.
            back = all(n.connected.is_set() and n.at != instances[0].node_url for n in nodes)
            return back and len(running) + sum(len(s.terminals) for s in sessions) >= total

        await eventually(on_its_way, within_ms=60_000, what="all to run again")
        again_s = time.monotonic() - killed_at
        for node in nodes:
            node.released.set()
        await eventually(
            lambda: all(session.done.is_set() for session in sessions),
            within_ms=60_000,
            what="all to end",
        )
        ended_s = time.monotonic() - killed_at
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    began = [job_id for node in nodes for job_id, _, _ in node.began]
    say(f"killed: all on their way after {again_s:.2f} s, all ended after {ended_s:.2f} s")
    return {
        "again_ttls": again_s * 1000 / options.ttl_ms,
        "ended_ttls": ended_s * 1000 / options.ttl_ms,
        "lost": sum(len(session.lost) for session in sessions),
        "doubled": sum(len(session.doubled) for session in sessions),
        "failed": total - sum(session.outcomes["success"] for session in sessions),
        "begun twice": len(began) - len(set(began)),
    }


async def _lose_connections(
    options: argparse.Namespace, instances: list[Instance]
) -> dict[str, list[float]]:
    one, two, three = instances
    dispatched: list[float] = []
    moved: list[float] = []
    session = Session(one.session_url, *OTHER)
    stays = Node(two.node_url, "stays", "-".join(OTHER), slots=4)
    async with session, stays:
        await _serving(instances, 1)
        for index in range(options.dispatches):
            began = time.perf_counter()
            await session.say(index)
            job = await stays.expect("job_assign", nth=index + 1)
            dispatched.append((time.perf_counter() - began) * 1000)
            await stays.finish(job)
            await session.terminal(index)
        for number in range(options.losses):
            lost = Node(three.node_url, f"lost-{number}", "-".join(OTHER))
            # A session's first job goes to a node of its own instance.
            caller = Session(three.session_url, *OTHER)
            async with lost, caller:
                await _serving(instances, 2)
                before = len(stays.jobs)
                await caller.say(0)
                await lost.expect("job_assign", nth=1)
                began = time.perf_counter()
                lost.break_off()
                job = await stays.expect("job_assign", nth=before + 1)
                moved.append((time.perf_counter() - began) * 1000)
                await stays.finish(job)
                await caller.terminal(0)
            await _serving(instances, 1)
    return {"dispatched_ms": dispatched, "moved_ms": moved}


async def _serving(instances: list[Instance], nodes: int) -> None:
    def ready() -> bool:
        states = [instance.state() for instance in instances]
        return all(s.get("nodes", {}).get("ready") == nodes and s["pools"] for s in states)

    await eventually(ready, within_ms=60_000, what=f"{nodes} nodes at all instances")


def _rows(
    options: argparse.Namespace, kills: list[dict[str, float]], lost: dict[str, list[float]]
) -> list[Row]:
    unloaded = percentile(lost["dispatched_ms"], 50)
    moved = spread(lost["moved_ms"])
    rows = [plain("presence TTL", options.ttl_ms, unit=" ms"), plain("in flight", options.tasks)]
    for kill in kills:
        rows += [
            at_most("killed: all ended or running again", kill["again_ttls"], 1.5, unit=" TTLs"),
            plain("all ended (work let go of then)", kill["ended_ttls"], unit=" TTLs"),
            at_most("acknowledged and lost", kill["lost"], 0),
            at_most("doubled", kill["doubled"], 0),
            at_most("ended in an error", kill["failed"], 0),
            plain("begun twice by a node", kill["begun twice"]),
        ]
    return [
        *rows,
        plain("unloaded dispatch p50", unloaded, unit=" ms"),
        plain("connections lost", len(lost["moved_ms"])),
        plain("lost to job_assign elsewhere p50", moved["p50"], unit=" ms"),
        plain("lost to job_assign elsewhere p99", moved["p99"], unit=" ms"),
        at_most("p99 over unloaded dispatch p50", moved["p99"] / unloaded, 20),
    ]
