"""What viewers of the operator pages cost an instance: CPU with 0, 1 and 50 of them.

5,000 nodes beat every 15 s, played by a process of its own. One real instance follows them, and
viewers watch one topic each over real sockets, taking and confirming every frame as a page does.
CPU is the instance's own, in ms for each second (each second is one tick of the feed).

The target: 50 viewers cost at most a tenth of 50 times what one costs. Without a target: bytes.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.report import Row, at_most, finish, plain, say
from tests.support.cluster import Cluster, Instance
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
TOPICS = ("cluster", "nodes", "pools")
TIMES = {
    "SCHED_SNAPSHOT_SYNC_MS": "1000",
    "SCHED_HEARTBEAT_MS": "15000",
    "SCHED_PRESENCE_TTL_MS": "45000",
    "SCHED_OWNER_TTL_MS": "45000",
    "SCHED_POOL_CLEANUP_MS": "60000",
}
"""As by default, not the short ones of tests."""

LOGGED_IN = """
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
user = User.objects.create_user("viewer", password="bench", is_staff=True)
session = SessionStore()
session[SESSION_KEY] = str(user.pk)
session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print(settings.SESSION_COOKIE_NAME + "=" + session.session_key)
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=int, default=5_000, help="how many (5000)")
    parser.add_argument("--viewers", type=int, default=50, help="the most at a time (50)")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement (20)")


def run(options: argparse.Namespace) -> int:
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-viewers-") as folder:
        cluster = Cluster(Path(folder), **TIMES)
        try:
            found = await _measure(cluster, options)
        finally:
            cluster.end()
    title = f"viewers: {options.nodes:,} nodes, {options.seconds:g} s of each"
    return finish(title, _rows(found, options.viewers), json_path=options.json, raw=found)


async def _measure(cluster: Cluster, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    cluster.start_server()
    migrated = await asyncio.to_thread(cluster.run, "migrate", "-v", "0")
    logged_in = await asyncio.to_thread(cluster.run, "shell", "-v", "0", "-c", LOGGED_IN)
    if migrated.returncode or logged_in.returncode:
        raise RuntimeError(migrated.stderr + logged_in.stderr)
    beats = subprocess.Popen(  # noqa: S603, ASYNC220 (our own)
        [sys.executable, "-m", "bench.beats", cluster.server.url, str(options.nodes), "15000"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if beats.stdout is None or not await asyncio.to_thread(beats.stdout.readline):
            raise RuntimeError("the nodes did not register")
        instance = cluster.start_instance("measured")
        await instance.ready()
        await eventually(
            lambda: instance.state().get("nodes", {}).get("total") == options.nodes,
            within_ms=60_000,
            what="all nodes to be seen",
        )
        cookie = logged_in.stdout.strip().splitlines()[-1]
        found = {"nobody": await _costs(instance, cookie, "", 0, options.seconds)}
        for topic in TOPICS:
            for viewers in (1, options.viewers):
                name = f"{topic} {viewers}"
                found[name] = await _costs(instance, cookie, topic, viewers, options.seconds)
                say(f"{name}: {found[name]}")
    finally:
        beats.kill()
        beats.wait()
    return found


async def _costs(
    instance: Instance, cookie: str, topic: str, viewers: int, seconds: float
) -> dict[str, float]:
    """CPU ms of the instance in a second, and the bytes and frames of one viewer in a second."""
    async with contextlib.AsyncExitStack() as stack:
        some = [
            await stack.enter_async_context(_viewer(instance, cookie, topic))
            for _ in range(viewers)
        ]
        await asyncio.sleep(3)  # what everyone is sent first is no part of a tick
        cpu, told = _cpu_ms(instance), [dict(viewer) for viewer in some]
        await asyncio.sleep(seconds)
        cpu = _cpu_ms(instance) - cpu
        count = max(viewers, 1)
        sums = {
            key: sum(now[key] - then[key] for now, then in zip(some, told, strict=True)) / count
            for key in ("bytes", "frames")
        }
    return {
        "cpu_ms": cpu / seconds,
        "bytes": sums["bytes"] / seconds,
        "frames": sums["frames"] / seconds,
    }


@contextlib.asynccontextmanager
async def _viewer(instance: Instance, cookie: str, topic: str) -> AsyncIterator[dict[str, int]]:
    counted = {"bytes": 0, "frames": 0}
    origin: Any = instance.url("")
    headers = {"Cookie": cookie}
    url = instance.url("/ws/ops", "ws")
    async with connect(url, origin=origin, additional_headers=headers, max_size=None) as socket:
        await socket.send(json.dumps({"watch": [topic]}))
        reading = asyncio.create_task(_read(socket, counted))
        try:
            yield counted
        finally:
            reading.cancel()


async def _read(socket: ClientConnection, counted: dict[str, int]) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            counted["bytes"] += len(await socket.recv(decode=False))
            counted["frames"] += 1
            await socket.send('{"got":1}')


def _cpu_ms(instance: Instance) -> float:
    """CPU that the process has used so far, user and system."""
    fields = Path(f"/proc/{instance.pid}/stat").read_text().rpartition(") ")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return 1000 * ticks / os.sysconf("SC_CLK_TCK")


def _rows(found: dict[str, dict[str, float]], viewers: int) -> list[Row]:
    idle = found["nobody"]["cpu_ms"]
    rows = [plain("CPU in a second, nobody looks", idle, unit=" ms")]
    for topic in TOPICS:
        one, many = (found[f"{topic} {count}"] for count in (1, viewers))
        rows += [
            plain(f"{topic}: CPU more, 1 viewer", one["cpu_ms"] - idle, unit=" ms"),
            plain(f"{topic}: CPU more, {viewers} viewers", many["cpu_ms"] - idle, unit=" ms"),
            plain(f"{topic}: to each viewer", one["bytes"] / 1024, unit=" KiB"),
        ]
        # Below 1 ms a single viewer's cost is within the noise.
        ratio = (many["cpu_ms"] - idle) / (viewers * max(one["cpu_ms"] - idle, 1.0))
        rows.append(at_most(f"{topic}: {viewers} viewers, of {viewers} times one", ratio, 0.1))
    return rows
