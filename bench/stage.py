"""What benchmarks set up alike: a cluster with the times of production, and its processes' costs.

Not promised: that a process's share of CPU is exact; the kernel counts it in ticks of 10 ms.
"""

import os
import socket
from pathlib import Path

from bench.report import say
from tests.support.cluster import Cluster, Instance, Process

ROOT = Path(__file__).resolve().parent.parent
TICKS_S = os.sysconf("SC_CLK_TCK")

AS_IN_PRODUCTION = {
    "SCHED_LEADER_TTL_MS": "60000",
    "SCHED_LEADER_RENEW_MS": "10000",
    "SCHED_SNAPSHOT_SYNC_MS": "1000",
    "SCHED_POOL_SYNC_MS": "10000",
    "SCHED_POOL_CLEANUP_MS": "60000",
    "SCHED_HEARTBEAT_MS": "15000",
    "SCHED_PRESENCE_TTL_MS": "45000",
    "SCHED_OWNER_TTL_MS": "45000",
    "SCHED_STOP_TIMEOUT_MS": "10000",
    "PYTHONWARNINGS": "ignore",
}
"""The defaults, in place of the short times that tests use."""


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, read from `/proc/PID/stat`."""
    return parse_cpu_s(Path(f"/proc/{pid}/stat").read_text())


def parse_cpu_s(stat: str) -> float:
    """Fields 14 and 15 of proc(5): user and system ticks."""
    # The command in parentheses may hold blanks and parentheses; what follows it does not.
    fields = stat.rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def resident_bytes(pid: int) -> int:
    """Resident memory; from `smaps_rollup`, since the kernel only estimates that in `stat`."""
    return parse_resident_bytes(Path(f"/proc/{pid}/smaps_rollup").read_text())


def parse_resident_bytes(rollup: str) -> int:
    """The line `Rss:`, which is in kB."""
    (line,) = (line for line in rollup.splitlines() if line.startswith("Rss:"))
    return int(line.split()[1]) * 1024


class MeasuredInstance(Instance):
    """A scheduler instance whose costs can be read."""

    @property
    def pid(self) -> int:
        return self._popen.pid


class EmptyServer(Process):
    """daphne as an instance has it, with nothing in it but `bench.speed.asgi`."""

    def __init__(self, name: str, env: dict[str, str], logs: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port: int = listener.getsockname()[1]
            fd = listener.fileno()
            arguments = ["-m", "daphne", "-v", "0", "--fd", str(fd), "bench.speed.asgi:application"]
            super().__init__(name, arguments, env, logs, keep=(fd,))

    @property
    def pid(self) -> int:
        return self._popen.pid

    def url(self, path: str) -> str:
        return f"ws://127.0.0.1:{self._port}{path}"


def production_cluster(folder: Path, **settings: str) -> Cluster:
    """A cluster that is like one in production but for the settings given."""
    return Cluster(folder, **(AS_IN_PRODUCTION | settings))


async def start_measured(cluster: Cluster, *names: str, **settings: str) -> list[MeasuredInstance]:
    """Instances of a cluster, ready."""
    started = [MeasuredInstance(name, cluster.env | settings, cluster.folder) for name in names]
    cluster.processes += started
    for instance in started:
        await instance.ready()
    return started


def log_stacks(cluster: Cluster) -> None:
    """Show the first stack that each process logged: figures of a failing process say little."""
    for process in cluster.processes:
        at = process.log.find("Traceback")
        if at >= 0:
            say(f"{process.name} logged:\n{process.log[max(at - 400, 0) : at + 2500]}")
