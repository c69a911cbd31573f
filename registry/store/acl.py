"""What a Redis user must be allowed for the scheduler, and nothing more.

The commands of scripts are read from the scripts; those that stores send themselves are listed
here, and a test compares the list with the stores' sources.
"""

import re
from collections.abc import Iterable

DIRECT = frozenset(
    (
        *("del", "exists", "get", "mget", "pexpire", "pttl", "set", "hdel", "hexists", "hmget"),
        *("hvals", "sadd", "smembers", "srem", "zrange", "zrem", "xack", "xadd", "xdel"),
        *("xgroup", "xlen", "xrange", "xread", "xreadgroup", "xrevrange", "xtrim"),
    )
)
CARRIERS = frozenset(("eval", "evalsha"))
IN_CLUSTER = frozenset(("cluster|slots", "asking"))
_CALL = re.compile(r"redis\.p?call\('([A-Z]+)'")


def key_patterns(prefix: str) -> list[str]:
    """Those of every key in `registry.store.keys`: most begin with the prefix, and those whose tag
    is the whole name of another key with a brace before it."""
    return [f"~{prefix}:v1:*", f"~{{{prefix}:v1:*"]


def commands_in(script: str) -> set[str]:
    """The commands that a script calls."""
    return {name.lower() for name in _CALL.findall(script)}


def rights(prefix: str, scripts: Iterable[str], *, clustered: bool) -> list[str]:
    """The rules of the user, as ACL SETUSER takes them: first nothing, then what is needed."""
    called = {name for script in scripts for name in commands_in(script)}
    needed = DIRECT | CARRIERS | called | (IN_CLUSTER if clustered else frozenset())
    return [
        *("resetkeys", "resetchannels", "-@all"),
        *key_patterns(prefix),
        *(f"+{name}" for name in sorted(needed)),
    ]
