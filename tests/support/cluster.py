"""A real cluster for tests: server, instances and leader candidates as processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from registry.signals import die_with_parent
from registry.store.embedded import EmbeddedServer
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent.parent

QUICK = {
    "SCHED_LEADER_TTL_MS": "1500",
    "SCHED_LEADER_RENEW_MS": "300",
    "SCHED_POOL_SYNC_MS": "1000",
    "SCHED_POOL_CLEANUP_MS": "1000",
    "SCHED_SNAPSHOT_SYNC_MS": "100",
    "SCHED_HEARTBEAT_MS": "500",
    "SCHED_PRESENCE_TTL_MS": "2000",
    "SCHED_OWNER_TTL_MS": "2000",
    "SCHED_STOP_TIMEOUT_MS": "5000",
}
"""Short times, so that tests of expiry take seconds."""


class Process:
    """One scheduler process with its log."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        env: dict[str, str],
        logs: Path,
        *,
        keep: tuple[int, ...] = (),
    ) -> None:
        self.name = name
        self.log_path = logs / f"{name}.log"
        with self.log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=keep,
                preexec_fn=die_with_parent(),
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def signal(self, number: int) -> None:
        if self.alive:
            self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: no farewell."""
        self.signal(signal.SIGKILL)
        self._popen.wait()

    def stop(self, *, within_s: float = 15) -> int:
        """SIGTERM: in order. Returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.ended(within_s=within_s)

    def ended(self, *, within_s: float = 15) -> int:
        """The exit status, as soon as it has ended."""
        return self._popen.wait(timeout=within_s)


class Instance(Process):
    """One daphne process."""

    def __init__(self, name: str, env: dict[str, str], logs: Path) -> None:
        # The instance inherits a listening socket, so that no one can take its port before it.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
            fd = listener.fileno()
            arguments = ["-m", "daphne", "-v", "0", "--fd", str(fd), "schedsite.asgi:application"]
            super().__init__(name, arguments, env | {"SCHED_INSTANCE_ID": name}, logs, keep=(fd,))

    def url(self, path: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    @property
    def node_url(self) -> str:
        return self.url("/ws/node", "ws")

    @property
    def session_url(self) -> str:
        return self.url("/ws/session", "ws")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP answer; (0, reason) where none came."""
        try:
            with urllib.request.urlopen(self.url(path), timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def state(self) -> dict[str, Any]:
        """`/api/v1/state`; empty while it cannot be had."""
        status, body = self.get("/api/v1/state")
        return json.loads(body) if status == 200 else {}

    async def ready(self) -> None:
        await eventually(
            lambda: self.get("/readyz")[0] == 200,
            within_ms=120_000,
            what=f"{self.name} to be ready",
        )


class Cluster:
    """Everything one test starts, in one folder, ended together."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.server = EmbeddedServer(folder / "valkey")
        self.settings = settings
        self.processes: list[Process] = []

    @property
    def env(self) -> dict[str, str]:
        chosen = {
            "SECRET_KEY": "tests-only",
            "DEBUG": "true",
            "DATABASE_URL": f"sqlite:////{str(self.folder / 'db.sqlite3').lstrip('/')}",
            "SCHED_REDIS_MODE": "single",
            "SCHED_REDIS_URL": self.server.url,
            "SCHED_REDIS_KEY_PREFIX": "lingua",
            "SCHED_NODE_AUTH": "open",
            "SCHED_SESSION_AUTH": "open",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "default",
        }
        return {**os.environ, **chosen, **QUICK, **self.settings}

    def start_server(self) -> None:
        self.server.ensure()

    def pause_server(self, number: int) -> None:
        """SIGSTOP or SIGCONT."""
        assert self.server.pid is not None
        os.kill(self.server.pid, number)

    def start_instance(self, name: str, **settings: str) -> Instance:
        instance = Instance(name, self.env | settings, self.folder)
        self.processes.append(instance)
        return instance

    async def start_instances(self, *names: str, **settings: str) -> list[Instance]:
        """Several at once, ready."""
        instances = [self.start_instance(name, **settings) for name in names]
        for instance in instances:
            await instance.ready()
        return instances

    def start_command(self, name: str, *arguments: str, **settings: str) -> Process:
        env = self.env | {"SCHED_INSTANCE_ID": name} | settings
        process = Process(name, ["manage.py", *arguments], env, self.folder)
        self.processes.append(process)
        return process

    def start_leader(self, name: str, **settings: str) -> Process:
        return self.start_command(name, "run_leader_loop", **settings)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a management command to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def end(self) -> None:
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.kill()
        self.server.stop(kill=True)

    def check_logs(self) -> None:
        """Fail when a process logged a stack."""
        for process in self.processes:
            assert "Traceback" not in process.log, f"{process.name} logged:\n{process.log}"


async def all_ready(instances: list[Instance]) -> None:
    for instance in instances:
        await instance.ready()


def named(cluster: Cluster, name: str) -> Instance:
    found = next(process for process in cluster.processes if process.name == name)
    assert isinstance(found, Instance)
    return found
