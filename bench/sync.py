"""What following all nodes costs one instance, in bytes and CPU seconds, beside the seed's way.

Nodes beat every 15 s on three instances, played by a process of its own. A process that runs one
instance's `Membership` follows them; then, in the same run, one that reads `HGETALL nodes:all`
every second, decodes every snapshot and puts it into a dict and the pool index, as the seed has it.
Both decode with msgspec and use the same index, and the hash holds no load figures, which the
seed's would: the comparison favours it.

Without a target, because the seed's way has no such part: the same with a third of the nodes its
own, and how long the first full read and a leader's sweep hold the event loop up.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.report import Row, at_most, finish, plain, say
from registry.store.embedded import EmbeddedServer

ROOT = Path(__file__).resolve().parent.parent
INSTANCES = 3
Figures = dict[str, float]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nodes", type=int, nargs="+", default=[1_000, 10_000], help="how many (1000 10000)"
    )
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement (20)")
    parser.add_argument("--heartbeat-ms", type=int, default=15_000, help="of each node (15000)")


def run(options: argparse.Namespace) -> int:
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    rows: list[Row] = []
    raw: dict[str, Any] = {}
    for nodes in options.nodes:
        with tempfile.TemporaryDirectory(prefix="bench-sync-") as folder:
            found = await asyncio.to_thread(_measure, options, nodes, Path(folder))
        rows += _rows(f"{nodes:,} nodes", found)
        raw[str(nodes)] = found
    return finish(
        f"sync: {options.seconds:g} s of following all nodes",
        rows,
        json_path=options.json,
        raw=raw,
    )


def _measure(options: argparse.Namespace, nodes: int, folder: Path) -> dict[str, Figures]:
    server = EmbeddedServer(folder)
    server.ensure()
    beats = subprocess.Popen(  # noqa: S603 (our own)
        [sys.executable, "-m", "bench.beats", server.url, str(nodes), str(options.heartbeat_ms)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if beats.stdout is None or not beats.stdout.readline():
            raise RuntimeError("the nodes did not register")
        say(f"{nodes:,} nodes beat")
        found = {}
        for way in ("ours", "seed", "owner"):
            found[way] = _follow(server.url, way, nodes, options)
            say(f"{nodes:,} nodes, {way}: {found[way]}")
        found["stalls"] = _follow(server.url, "stalls", nodes, options)
    finally:
        beats.kill()
        beats.wait()
        server.stop(kill=True)
    return found


def _follow(url: str, way: str, nodes: int, options: argparse.Namespace) -> Figures:
    arguments = [way, url, str(nodes), str(options.seconds), str(options.heartbeat_ms)]
    done = subprocess.run(  # noqa: S603 (our own)
        [sys.executable, "-m", "bench.following", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=options.seconds + 120,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout)
    return figures


def _rows(nodes: str, found: dict[str, Figures]) -> list[Row]:
    ours, seed, owner, stalls = (found[way] for way in ("ours", "seed", "owner", "stalls"))
    return [
        plain(f"{nodes}: bytes, ours", ours["bytes"] / 1024, unit=" KiB"),
        plain(f"{nodes}: bytes, seed's way", seed["bytes"] / 1024, unit=" KiB"),
        at_most(f"{nodes}: bytes, ratio", ours["bytes"] / seed["bytes"], 0.1),
        plain(f"{nodes}: CPU, ours", ours["cpu_s"] * 1000, unit=" ms"),
        plain(f"{nodes}: CPU, seed's way", seed["cpu_s"] * 1000, unit=" ms"),
        at_most(f"{nodes}: CPU, ratio", ours["cpu_s"] / seed["cpu_s"], 0.1),
        plain(f"{nodes}: bytes, ratio when a third is its own", owner["bytes"] / seed["bytes"]),
        plain(f"{nodes}: CPU, ratio when a third is its own", owner["cpu_s"] / seed["cpu_s"]),
        plain(f"{nodes}: loop held up by the first full read", stalls["full_ms"], unit=" ms"),
        plain(f"{nodes}: CPU of the first full read", stalls["full_cpu_ms"], unit=" ms"),
        plain(f"{nodes}: loop held up by a leader's sweep", stalls["sweep_ms"], unit=" ms"),
        plain(f"{nodes}: CPU of a leader's sweep", stalls["sweep_cpu_ms"], unit=" ms"),
    ]
