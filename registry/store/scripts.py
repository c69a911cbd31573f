"""Lua scripts: loaded from files, checked against their headers, run by SHA.

A script file opens with its contract:

    -- One sentence of guarantee.
    -- KEYS 1 leader string
    -- ARGV 1 candidate id
    -- RETURNS granted epoch | held holder remaining_ms

The last KEYS may be a list of any length: `-- KEYS 2.. queues sorted sets`.

Loading fails when the header and the body disagree about which KEYS and ARGV there are. A script
answers with an array whose first element is one of the RETURNS words; `Reply` splits it. Scripts
take time from the server (`TIME`), never from a caller.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_HEADER = re.compile(r"-- (KEYS|ARGV) (\d+)(\.\.)? (\w+) (\S.*)")
_RETURNS = re.compile(r"-- RETURNS (.+)")
_USES = re.compile(r"\b(KEYS|ARGV)\[(\d+)\]")


class Reply(NamedTuple):
    """A script's answer: the word that says what happened, and what came with it."""

    word: str
    values: list[bytes]

    def integer(self, position: int = 0) -> int:
        return int(self.values[position])

    def text(self, position: int = 0) -> str:
        return self.values[position].decode()


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua verb."""

    name: str
    source: str
    sha: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    words: frozenset[str]
    open_ended: bool = False

    def takes(self, keys: int, args: int) -> bool:
        """Whether the header allows this many keys and arguments."""
        enough = keys >= len(self.keys) - 1 if self.open_ended else keys == len(self.keys)
        return enough and args == len(self.args)

    def reply(self, raw: list[bytes]) -> Reply:
        word = raw[0].decode()
        if word not in self.words:
            raise ValueError(f"{self.name}.lua answered '{word}', which its header does not name")
        return Reply(word, raw[1:])


def load_script(path: Path) -> Script:
    """Read one script and check its header; raises ValueError when header and body disagree."""
    source = path.read_text()
    names: dict[str, list[str]] = {"KEYS": [], "ARGV": []}
    open_ended = False
    for kind, position, dots, name, _ in _HEADER.findall(source):
        if open_ended and kind == "KEYS":
            raise ValueError(f"{path.name}: only the last KEYS may be a list")
        open_ended = open_ended or bool(dots)
        names[kind].append(name)
        if int(position) != len(names[kind]):
            raise ValueError(f"{path.name}: {kind} {position} {name} is out of order")
    for kind, declared in names.items():
        used = {int(position) for found, position in _USES.findall(source) if found == kind}
        if used - set(range(1, len(declared) + 1)):
            raise ValueError(f"{path.name}: the body uses {kind} that the header does not name")
        listed = {len(declared)} if open_ended and kind == "KEYS" else set()
        if set(range(1, len(declared) + 1)) - used - listed:
            raise ValueError(f"{path.name}: the header names {kind} that the body does not use")
    returns = _RETURNS.search(source)
    if returns is None or re.match(r"-- (?!KEYS |ARGV |RETURNS )", source) is None:
        raise ValueError(f"{path.name}: the header needs a sentence of guarantee and RETURNS")
    words = frozenset(part.split()[0] for part in returns[1].split("|"))
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(
        path.stem, source, sha, tuple(names["KEYS"]), tuple(names["ARGV"]), words, open_ended
    )


def load_scripts(folder: Path) -> dict[str, Script]:
    """All scripts of one folder by name."""
    return {path.stem: load_script(path) for path in sorted(folder.glob("*.lua"))}
