"""What losing the leader, and losing Redis, does to the rate of finished utterances.

Two instances; nodes and sessions in a closed loop in a process of their own. First spans with and
without a leader take turns (a b b a ...; the leader is killed, so nobody releases the lease). Then
the Redis server is killed, stays away, and comes back over the same data: how soon the rate is
back, which sockets closed, and what became of each utterance. Utterances that were refused or not
acknowledged are said again under the same index.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.load import Spec
from bench.report import Row, at_least, at_most, finish, plain, say
from bench.stage import ROOT, log_stacks, production_cluster
from tests.support.cluster import Cluster, Process
from tests.support.waiting import eventually

SETTLE_S = 2.0
WINDOW_S = 0.5
BACK = 0.95
RECOVERY_S = 30.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=8, help="on both instances (8)")
    parser.add_argument("--sessions", type=int, default=16, help="on both instances (16)")
    parser.add_argument("--work-ms", type=int, default=100, help="a node's work on a job (100)")
    parser.add_argument("--spans", type=int, default=8, help="with and without a leader, each (8)")
    parser.add_argument("--span-s", type=float, default=5, help="length of a span (5)")
    parser.add_argument("--outage-s", type=float, default=30, help="how long Redis is away (30)")
    parser.add_argument("--outages", type=int, default=1, help="how many times (1)")


def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-outage-") as folder:
        return asyncio.run(_run(options, Path(folder)))


async def _run(options: argparse.Namespace, folder: Path) -> int:
    cluster = production_cluster(
        folder,
        SCHED_LEADER_CANDIDATE="false",
        SCHED_LEADER_TTL_MS="3000",
        SCHED_LEADER_RENEW_MS="500",
    )
    cluster.start_server()
    try:
        instances = await cluster.start_instances("one", "two")
        leader = Leader(cluster)
        await leader.begin()
        spec = Spec(
            instances=[instance.url("", "ws") for instance in instances],
            nodes=options.nodes,
            sessions=options.sessions,
            slots=4,
            work_ms=options.work_ms,
            heartbeat_ms=15_000,
        )
        load = await Load.start(spec)
        await load.running()
        await asyncio.sleep(SETTLE_S)
        rates = await _without_leader(options, leader, load)
        await leader.begin()
        outages = [await _lose_redis(options, cluster, load) for _ in range(options.outages)]
        final = await load.end()
        log_stacks(cluster)
    finally:
        cluster.end()
    rows = _rows(options, rates, outages, final)
    raw = {"rates": rates, "outages": outages, "final": final}
    return finish("outage: without a leader, without Redis", rows, json_path=options.json, raw=raw)


class Leader:
    """The one candidate; killed and replaced."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._process: Process | None = None
        self._number = 0

    async def begin(self) -> None:
        """Start a candidate unless one leads, and wait until it does."""
        if self._process is None:
            self._number += 1
            process = self._process = self._cluster.start_leader(f"leader-{self._number}")
            await eventually(
                lambda: "leader elected" in process.log, within_ms=60_000, what="a leader"
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None


class Load:
    """The load process, and how many utterances had ended by when."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._marks: list[tuple[float, int, int]] = []
        self._final: dict[str, Any] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, spec: Spec) -> "Load":
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.load", msgspec.json.encode(spec).decode()),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )

    async def running(self) -> None:
        await eventually(
            lambda: self._marks and self._marks[-1][1] > 0, within_ms=60_000, what="the load"
        )

    @property
    def closed(self) -> int:
        """Sockets closed so far that should not have been."""
        return self._marks[-1][2]

    def rate(self, since: float, until: float) -> float:
        """Utterances ended per second between two moments."""
        marks = [mark for mark in self._marks if since <= mark[0] <= until]
        if len(marks) < 2:
            return 0.0
        return (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])

    def back_at(self, since: float, rate: float) -> float | None:
        """When a window since then first had ended at this rate."""
        for at, _, _ in self._marks:
            if at >= since + WINDOW_S and self.rate(at - WINDOW_S - 0.05, at) >= rate:
                return at
        return None

    async def end(self) -> dict[str, Any]:
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._reading
        await self._process.wait()
        return self._final

    async def _read(self) -> None:
        if self._process.stdout is None:
            return
        async for text in self._process.stdout:
            line = json.loads(text)
            if "final" in line:
                self._final = line["final"]
            else:
                self._marks.append((line["at"], line["ended"], line["closed"]))


async def _without_leader(
    options: argparse.Namespace, leader: Leader, load: Load
) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {"with": [], "without": []}
    # a b b a: what drifts over the run meets both alike.
    order = [("with", "without"), ("without", "with")]
    for span in (what for turn in range(options.spans) for what in order[turn % 2]):
        if span == "with":
            await leader.begin()
        else:
            leader.kill()
        await asyncio.sleep(SETTLE_S)
        began = time.monotonic()
        await asyncio.sleep(options.span_s)
        rates[span].append(load.rate(began, time.monotonic()))
        say(f"{span} a leader: {rates[span][-1]:.0f}/s")
    return rates


async def _lose_redis(
    options: argparse.Namespace, cluster: Cluster, load: Load
) -> dict[str, float | None]:
    await asyncio.sleep(SETTLE_S)
    began = time.monotonic()
    await asyncio.sleep(options.span_s)
    lost_at = time.monotonic()
    before, closed_before = load.rate(began, lost_at), load.closed
    cluster.server.stop(kill=True)
    say(f"Redis is away for {options.outage_s:g} s; before: {before:.0f}/s")
    await asyncio.sleep(options.outage_s)
    during = load.rate(lost_at + 1, time.monotonic())
    await asyncio.to_thread(cluster.server.ensure)
    back_at = time.monotonic()
    recovered: float | None = None
    while recovered is None and time.monotonic() < back_at + RECOVERY_S:
        await asyncio.sleep(0.1)
        recovered = load.back_at(back_at, before * BACK)
    await asyncio.sleep(SETTLE_S + options.span_s)
    after = load.rate(back_at + SETTLE_S, time.monotonic())
    return {
        "before": before,
        "during": during,
        "after": after,
        "recovered_s": None if recovered is None else recovered - back_at,
        "closed": load.closed - closed_before,
    }


def _rows(
    options: argparse.Namespace,
    rates: dict[str, list[float]],
    outages: list[dict[str, float | None]],
    final: dict[str, Any],
) -> list[Row]:
    rows = []
    if rates["with"]:
        pairs = [w / o for o, w in zip(rates["with"], rates["without"], strict=True)]
        with_one, without = statistics.mean(rates["with"]), statistics.mean(rates["without"])
        rows += [
            plain("with a leader", with_one, unit="/s"),
            plain("without a leader", without, unit="/s"),
            plain("pairs of spans: least ratio", min(pairs)),
            plain("pairs of spans: greatest ratio", max(pairs)),
            plain("ratio of the means", without / with_one),
            at_least("median of the pairs' ratios", statistics.median(pairs), 0.98),
        ]
    for outage in outages:
        recovered = outage["recovered_s"]
        rows += [
            plain("before Redis was lost", outage["before"] or 0, unit="/s"),
            plain(f"while it was away ({options.outage_s:g} s)", outage["during"] or 0, unit="/s"),
            plain("after", outage["after"] or 0, unit="/s"),
            at_most("back at 0.95 of the rate", recovered, 2, unit=" s")
            if recovered is not None
            else Row("back at 0.95 of the rate", "never", "<= 2 s", False),
            at_most("sockets closed by it", outage["closed"] or 0, 0),
        ]
    rows += [
        plain("utterances ended", final["ended"]),
        plain("said again", final["said_again"]),
        plain("refusals", json.dumps(final["refusals"])),
        plain("ended in an error", json.dumps(final["failures"])),
        at_most("acknowledged and lost", final["lost"], 0),
        at_most("sessions that never got an answer", final["unfinished"], 0),
        at_most("doubled", final["doubled"], 0),
    ]
    return rows
