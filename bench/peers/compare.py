"""How fast well-known task queues hand a task to a handler, on one Valkey server.

Pickup is from before the submission until the handler starts, one task at a time; tasks a second
are of a burst to a handler that does nothing, from the first submission to the last start. Each
library runs with its own defaults in a virtual environment of its own, with one worker process. A
stream hop between two bare clients is measured before each of them, so that other runs can be
compared by counting in hops. BullMQ needs node and npm, and is left out where they are missing.

`make bench` reads the result for its comparison with taskiq's pickup.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.peers.environments import PEERS, Peer, PeerUnavailable, prepare
from bench.report import Row, finish, plain, say, spread
from bench.stage import ROOT
from bench.workers import worker
from registry.signals import die_with_parent
from registry.store.embedded import EmbeddedServer

RESULT = ROOT / "var" / "bench-peers.json"
WITHIN_S = 300


def add_options(parser: argparse.ArgumentParser) -> None:
    names = [peer.name for peer in PEERS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME",
                        help=f"some of {', '.join(names)}")  # fmt: skip
    parser.add_argument("--singles", type=int, default=200, help="tasks one at a time (200)")
    parser.add_argument("--burst", type=int, default=2_000, help="tasks at once (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="of both, for each (3)")


def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        return _run(options, Path(folder))


def _run(options: argparse.Namespace, folder: Path) -> int:
    port = _free_port()
    server = EmbeddedServer(folder, options=("--port", str(port), "--bind", "127.0.0.1"))
    server.ensure()
    url, found, rows, hops = f"redis://127.0.0.1:{port}/0", {}, [], []
    try:
        for peer in (peer for peer in PEERS if peer.name in options.only):
            hops += asyncio.run(_hops(url, options.singles))
            try:
                prepare(peer)
                found[peer.name] = _measure(peer, url, folder, options)
            except PeerUnavailable as reason:
                say(f"{peer.name} is left out: {reason}")
                rows.append(plain(peer.name, f"left out: {reason}"))
    finally:
        server.stop(kill=True)
    hop = spread(hops)
    table = [plain("hop: p50", hop["p50"], unit=" us"), plain("hop: p99", hop["p99"], unit=" us")]
    table += [row for name, figures in found.items() for row in _rows(name, figures, hop["p50"])]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    path = options.json or RESULT
    return finish("peers", table + rows, json_path=path, raw={"hop_us": hop, "peers": found})


def _rows(name: str, figures: dict[str, Any], hop_us: float) -> list[Row]:
    pickup, rate = figures["pickup_us"], figures["tasks_per_s"]
    return [
        plain(f"{name}: pickup p50", pickup["p50"], unit=" us"),
        plain(f"{name}: pickup p99", pickup["p99"], unit=" us"),
        plain(f"{name}: pickup p50", pickup["p50"] / hop_us, unit=" hops"),
        plain(f"{name}: tasks a second", sorted(rate)[len(rate) // 2], unit="/s"),
    ]


async def _hops(url: str, count: int) -> list[float]:
    async with worker("bench.speed.redis_floor", url) as redis:
        hops: list[float] = await redis.ask("hop", count=count)
        return hops


def _measure(peer: Peer, url: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run its worker, and beside it its submitter."""
    say(peer.name)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        env = os.environ | {
            "BENCH_REDIS_URL": url,
            "BENCH_ARRIVALS_PORT": str(listener.getsockname()[1]),
            "BENCH_ARRIVALS_FD": str(listener.fileno()),
            "BENCH_NODE_MODULES": str(peer.modules),
            "PYTHONPATH": str(ROOT),
        }
        log_path = folder / f"{peer.name}.log"
        with log_path.open("wb") as log:
            at_work = subprocess.Popen(  # noqa: S603 (our own commands)
                peer.command(peer.worker), cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent(),
            )  # fmt: skip
        try:
            return _submit(peer, env, listener.fileno(), options)
        except PeerUnavailable as error:
            say(log_path.read_text(errors="replace")[-2000:])
            raise PeerUnavailable(f"{error}; the end of its worker's log is above") from None
        finally:
            # All of its session: some start processes of their own.
            os.killpg(at_work.pid, signal.SIGKILL)
            at_work.wait()


def _submit(
    peer: Peer, env: dict[str, str], fd: int, options: argparse.Namespace
) -> dict[str, Any]:
    sizes = (max(int(options.singles * peer.share), 1), int(options.burst * peer.share))
    words = [*peer.command(peer.submit), *map(str, sizes), str(options.rounds)]
    try:
        done = subprocess.run(  # noqa: S603 (our own commands)
            words, cwd=ROOT, env=env, pass_fds=(fd,), capture_output=True, text=True,
            check=False, timeout=WITHIN_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PeerUnavailable(f"it was not done in {WITHIN_S} s") from None
    if done.returncode != 0:
        say(done.stderr[-2000:])
        raise PeerUnavailable(f"its submitter ended with {done.returncode}")
    figures = json.loads(done.stdout)
    return {"pickup_us": spread(figures["pickup_us"]), "tasks_per_s": figures["tasks_per_s"]}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
