"""A virtual environment for each peer, under `var/peers`: they do not agree on one redis-py.

Made when it is missing, or when what it was made from has changed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.report import say
from bench.stage import ROOT

FOLDER = ROOT / "var" / "peers"
PINNED = Path(__file__).resolve().parent / "pinned"


class PeerUnavailable(RuntimeError):
    """A peer cannot be run here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Peer:
    """How a peer is started. `{bin}` and `{modules}` stand for the folders of its environment."""

    name: str
    worker: tuple[str, ...]
    submit: tuple[str, ...]
    pinned: tuple[str, ...]
    share: float = 1.0
    """Of the tasks that others are measured with; less for those that would take minutes."""

    def command(self, words: tuple[str, ...]) -> list[str]:
        return [word.replace("{bin}", str(FOLDER / self.name / "bin")) for word in words]

    @property
    def modules(self) -> Path:
        return FOLDER / self.name


def _python(name: str, *worker: str, share: float = 1.0) -> Peer:
    submit = ("{bin}/python", "-m", f"bench.peers.{name}_peer")
    return Peer(name, worker, submit, (f"{name}.txt",), share)


_BULLMQ = ("node", "bench/peers/bullmq_peer.mjs")
PEERS = (
    _python("taskiq", "{bin}/taskiq", "worker", "bench.peers.taskiq_peer:broker", "--workers", "1"),
    _python("celery", "{bin}/celery", "-A", "bench.peers.celery_peer", "worker", "-c", "1"),
    _python("dramatiq", "{bin}/dramatiq", "bench.peers.dramatiq_peer", "-p", "1"),
    _python("saq", "{bin}/saq", "bench.peers.saq_peer.settings"),
    _python("arq", "{bin}/arq", "bench.peers.arq_peer.Settings", share=0.1),
    Peer(
        "bullmq", (*_BULLMQ, "worker"), (*_BULLMQ, "submit"), ("package.json", "package-lock.json")
    ),
)


def prepare(peer: Peer) -> None:
    """Make the peer's environment unless it is there; raises PeerUnavailable."""
    folder, stamp = FOLDER / peer.name, FOLDER / peer.name / "made-from"
    content = b"".join((PINNED / name).read_bytes() for name in peer.pinned)
    made_from = hashlib.sha256(content).hexdigest()
    if stamp.is_file() and stamp.read_text() == made_from:
        return
    say(f"{peer.name}: installing")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if peer.name == "bullmq":
        _install_node(peer, folder)
    else:
        _install_python(peer, folder)
    stamp.write_text(made_from)


def _install_python(peer: Peer, folder: Path) -> None:
    _run(peer, sys.executable, "-m", "venv", str(folder))
    python, file = str(folder / "bin" / "python"), str(PINNED / peer.pinned[0])
    uv = Path(sys.executable).parent / "uv"
    if uv.is_file():
        _run(peer, str(uv), "pip", "install", "-q", "-p", python, "--require-hashes", "-r", file)
    else:
        _run(peer, python, "-m", "pip", "install", "-q", "--require-hashes", "-r", file)


def _install_node(peer: Peer, folder: Path) -> None:
    missing = [command for command in ("node", "npm") if shutil.which(command) is None]
    if missing:
        raise PeerUnavailable(
            f"{' and '.join(missing)} missing; on Debian: apt-get install nodejs npm"
        )
    for name in peer.pinned:
        shutil.copy(PINNED / name, folder)
    # Its optional native parts are built by scripts; it does without them.
    _run(peer, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)


def _run(peer: Peer, *command: str, cwd: Path | None = None) -> None:
    env = os.environ | {"npm_config_loglevel": "error"}
    done = subprocess.run(  # noqa: S603 (our own commands)
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PeerUnavailable(f"it could not be installed: {done.stderr.strip()[-500:]}")
