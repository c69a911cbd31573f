"""The runner of `make run`: starts everything as separate processes, talks, shows, ends.

Each run has a folder of its own under `var/`, emptied at its start, so that two runs at the same
time do not meet.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from registry.domain.errors import StoreUnavailable
from registry.signals import die_with_parent, told_to_stop
from registry.wiring import embedded_server
from schedsite.demo.operator import Operator
from schedsite.demo.session import SimulatedSession, Tally

APPLICATION = "schedsite.asgi:application"
ROOT = Path(__file__).resolve().parent.parent.parent
USER, PASSWORD = "operator", "operator"
READY_TIMEOUT_S = 60.0
LAST_RESULTS_S = 20.0

NODES = (
    ("gpu-home-1", "zh-en,en-zh"),
    ("gpu-home-2", "zh-en,ja-en"),
    ("gpu-home-3", "en-zh,en-ja"),
    ("gpu-dc-1", "zh-en,ja-en,ko-en,en-zh"),
    ("gpu-dc-2", "de-en,en-de,fr-en"),
    ("gpu-dc-3", "en-de,en-fr,zh-en"),
    ("gpu-dc-4", "zh-ja,ja-zh,zh-en"),
    ("gpu-dc-5", "ko-en,de-en,en-zh"),
)
SESSIONS = (
    ("zh", "en"),
    ("auto", "en"),
    ("en", "zh"),
    ("zh", "ja"),
    ("auto", "zh"),
    ("en", "de"),
    ("ja", "en"),
    ("auto", "en"),
)


class Demo:
    """One run."""

    def __init__(self, folder: Path, listeners: Sequence[socket.socket]) -> None:
        self._folder = folder
        self._listeners = listeners
        self._ports = ports = [listener.getsockname()[1] for listener in listeners]
        self._server = embedded_server(folder / "valkey")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tally = Tally()
        self._operator = Operator(f"http://127.0.0.1:{ports[0]}", USER, PASSWORD)

    async def run(self, seconds: float | None) -> bool:
        """Everything from start to end; True when every task came back exactly once."""
        print("starting the server, two instances and the leader loop", flush=True)
        self._server.ensure()
        self._spawn("database", ["-m", "schedsite.demo.database", USER, PASSWORD])
        self._start_scheduler()
        await self._wait_until("the instances to be ready", self._instances_ready)
        await self._wait_until("the database to be set up", self._database_ready)
        print("starting the pool mirror and the nodes", flush=True)
        self._spawn("mirror", ["manage.py", "run_pool_sync"])
        self._start_nodes()
        await self._wait_until("the nodes to be in pools", self._nodes_ready)
        self._introduce()
        stop = asyncio.Event()
        sessions = [asyncio.create_task(each) for each in self._sessions(stop)]
        await self._show_until_told(seconds)
        stop.set()
        _, late = await asyncio.wait(sessions, timeout=LAST_RESULTS_S)
        for task in late:
            task.cancel()
        return self._verdict()

    def end(self) -> None:
        """Stop all processes, the server last."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for name, process in self._processes.items():
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                print(f"{name} did not stop in time and was killed")
                process.kill()
                process.wait()
        self._server.stop()

    def _start_scheduler(self) -> None:
        self._spawn("leader", ["manage.py", "run_leader_loop"])
        for number, listener in enumerate(self._listeners, start=1):
            fd = listener.fileno()
            daphne = ["-m", "daphne", "-v", "0", "--fd", str(fd), APPLICATION]
            self._spawn(f"instance-{number}", daphne, keep=(fd,))
            listener.close()

    def _start_nodes(self) -> None:
        for number, (node_id, pairs) in enumerate(NODES):
            urls = self._urls("/ws/node", first=number)
            arguments = [word for url in urls for word in ("--url", url)]
            self._spawn(
                node_id,
                ["-m", "schedsite.demo.node", "--id", node_id, "--pairs", pairs, *arguments],
            )

    def _spawn(self, name: str, arguments: list[str], *, keep: tuple[int, ...] = ()) -> None:
        logs = self._folder / "logs"
        logs.mkdir(exist_ok=True)
        with (logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603 (our own program)
                [sys.executable, *arguments],
                cwd=ROOT,
                env=self._environment() | {"SCHED_INSTANCE_ID": name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=keep,
                preexec_fn=die_with_parent(),
            )

    def _environment(self) -> dict[str, str]:
        chosen = {
            "SECRET_KEY": _secret(self._folder),
            "DEBUG": "false",
            "DATABASE_URL": f"sqlite:////{str(self._folder / 'db.sqlite3').lstrip('/')}",
            "SCHED_REDIS_MODE": "single",
            "SCHED_REDIS_URL": self._server.url,
            "SCHED_NODE_AUTH": "open",
            "SCHED_SESSION_AUTH": "open",
            "SCHED_LEADER_TTL_MS": "6000",
            "SCHED_LEADER_RENEW_MS": "1000",
            "SCHED_HEARTBEAT_MS": "5000",
            "SCHED_PRESENCE_TTL_MS": "15000",
            "SCHED_OWNER_TTL_MS": "15000",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        return {**os.environ, **chosen}

    async def _wait_until(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        give_up_at = time.monotonic() + READY_TIMEOUT_S
        while not await condition():
            for name, process in self._processes.items():
                if process.poll() not in (None, 0):
                    raise SystemExit(f"error: {name} failed: {self._last_line(name)}")
            if time.monotonic() > give_up_at:
                raise SystemExit(f"error: waited in vain for {what}; see {self._folder / 'logs'}")
            await asyncio.sleep(0.1)

    async def _database_ready(self) -> bool:
        return self._processes["database"].poll() == 0

    async def _instances_ready(self) -> bool:
        return all(found.get("sched_ready") == 1 for found in await self._figures())

    async def _nodes_ready(self) -> bool:
        pairs = {pair for _, pairs in NODES for pair in pairs.split(",")}
        return all(
            found.get('sched_nodes{status="ready"}') == len(NODES)
            and found.get("sched_pools", 0) >= len(pairs)
            for found in await self._figures()
        )

    async def _figures(self) -> list[dict[str, float]]:
        return [await self._operator.figures(port) for port in self._ports]

    def _last_line(self, name: str) -> str:
        lines = (self._folder / "logs" / f"{name}.log").read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")

    def _introduce(self) -> None:
        print(
            f"\nScheduler instances  {', '.join(f'http://127.0.0.1:{p}' for p in self._ports)}\n"
            f"Operator pages       http://127.0.0.1:{self._ports[0]}/ops/"
            f"   (user {USER}, password {PASSWORD}: for this demo only)\n"
            f"Nodes                {len(NODES)} simulated ones, sessions {len(SESSIONS)}\n"
            f"Logs                 {self._folder / 'logs'}\n"
            "Ctrl-C ends it all.\n",
            flush=True,
        )

    def _sessions(self, stop: asyncio.Event) -> Iterator[Coroutine[Any, Any, None]]:
        for number, (src, tgt) in enumerate(SESSIONS):
            urls = self._urls("/ws/session", first=number)
            session = SimulatedSession(urls, src, tgt, tally=self._tally)
            yield session.run(0.12, stop)

    def _urls(self, path: str, *, first: int) -> list[str]:
        ports = [*self._ports[first % len(self._ports) :], *self._ports[: first % len(self._ports)]]
        return [f"ws://127.0.0.1:{port}{path}" for port in ports]

    async def _show_until_told(self, seconds: float | None) -> None:
        ends_at = time.monotonic() + seconds if seconds else None
        told = asyncio.create_task(told_to_stop())
        every_s = 1.0 if sys.stdout.isatty() else 5.0
        while not told.done() and (ends_at is None or time.monotonic() < ends_at):
            left_s = every_s if ends_at is None else min(every_s, ends_at - time.monotonic())
            await asyncio.wait({told}, timeout=max(left_s, 0.01))
            await self._show()
        told.cancel()
        print()

    async def _show(self) -> None:
        tally, latencies = self._tally, list(self._tally.latency_ms)
        state = await self._operator.state()
        leader = (state.get("leader") or {}).get("instance_id", "none")
        version = (state.get("pool_config") or {}).get("version", "?")
        line = (
            f"done {tally.done:>6}   in flight {tally.in_flight:>3}"
            f"   p50 {statistics.median(latencies) if latencies else 0:5.0f} ms"
            f"   across instances {100 * tally.crossed / max(tally.done, 1):3.0f} %"
            f"   failed {tally.failed}   leader {leader}   pools v{version}"
        )
        if sys.stdout.isatty():
            print(f"\r\x1b[2K{line}", end="", flush=True)
        else:
            print(line, flush=True)

    def _verdict(self) -> bool:
        tally = self._tally
        good = tally.submitted > 0 and not (
            tally.in_flight or tally.doubled or tally.failed or tally.out_of_order
        )
        print(
            f"submitted {tally.submitted}, came back {tally.done}, lost {tally.in_flight},"
            f" doubled {tally.doubled}, failed {tally.failed} {dict(tally.errors) or ''}"
            f" out of order {tally.out_of_order}"
        )
        print("every task came back exactly once" if good else "NOT every task came back once")
        return good


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """An empty folder that no other run uses at the same time."""
    var = ROOT / "var"
    var.mkdir(exist_ok=True)
    for number in range(1, 100):
        name = "demo" if number == 1 else f"demo-{number}"
        with (var / f"{name}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            folder = var / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
            return
    raise SystemExit("error: 99 runs at once are enough; end one of them")


def _secret(folder: Path) -> str:
    path = folder / "secret"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(48))
    return path.read_text()


def _listeners(wanted: Sequence[int]) -> list[socket.socket]:
    """Listening sockets on the wanted ports, or on free ones where those are taken.

    An instance inherits its own: between looking for a free port and listening on it there is no
    moment in which another run could take it.
    """
    found = []
    for port in wanted:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(128)
        except OSError:
            listener.close()
            listener = socket.create_server(("127.0.0.1", 0))
            print(f"port {port} is taken; using {listener.getsockname()[1]}")
        found.append(listener)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make run", description="Run the whole scheduler with simulated nodes and sessions."
    )
    parser.add_argument(
        "--seconds", type=float, help="end by itself after so long (else: Ctrl-C ends it)"
    )
    options = parser.parse_args()
    with _own_folder() as folder:
        demo = Demo(folder, _listeners((8000, 8001)))
        try:
            good = asyncio.run(demo.run(options.seconds))
        except StoreUnavailable as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            demo.end()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
