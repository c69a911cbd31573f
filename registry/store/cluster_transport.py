"""The client of a cluster.

What a server refused to run because another one has to (MOVED, ASK, TRYAGAIN) is sent there.

redis-py's own cluster client is not used: it fails a whole batch when one master is away and then
closes the connections of all others, and sends ASKING and its command over different connections.

Not promised: that commands of one batch run in their order when a slot moves.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Coroutine, Sequence
from typing import Any

from redis import exceptions as errors
from redis.crc import key_slot

from registry.store.address import Address, Server
from registry.store.clients import (
    ELSEWHERE,
    LOOK_UP_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    is_demoted,
    make_client,
    make_link,
    make_readers,
)
from registry.store.link import Command, Link, Readers

FOLLOW_S = 5.0
"""How long a command goes after a slot that moves; then its caller hears that it did not run."""
SLOTS = 16384

_UNSERVED = (errors.ClusterDownError, errors.MovedError)


class ClusterTransport:
    """A cluster: each command goes to the master of its key's slot, and after it when it moves."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._known = deque(address.hosts)
        self._masters: list[Server | None] = [None] * SLOTS
        self._stale = True
        self._looking: asyncio.Task[None] | None = None
        self._following: set[asyncio.Task[Any]] = set()
        self._links: dict[Server, Link] = {}
        self._readers: dict[Server, Readers] = {}

    def send(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        return asyncio.ensure_future(self._send(commands))

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        await self._learn()
        replies: list[Any] = [None] * len(commands)
        groups: defaultdict[Server, list[int]] = defaultdict(list)
        for position, command in enumerate(commands):
            master = self._masters[_slot(command)]
            if master is None:
                replies[position] = self._nobody(command)
            else:
                groups[master].append(position)
        parts = [
            self._send_to(server, positions, commands, replies)
            for server, positions in groups.items()
        ]
        if len(parts) == 1:
            await parts[0]
        else:
            await asyncio.gather(*parts)
        return replies

    async def wait(self, command: Command) -> Any:
        await self._learn()
        master = self._masters[_slot(command)]
        if master is None:
            raise self._nobody(command)
        reply = await self._run(command, master, reply_timeout_s=None)
        if isinstance(reply, ELSEWHERE):
            reply = await self._follow(command, master, reply, reply_timeout_s=None)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def close(self) -> None:
        tasks = [*self._following, *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in self._links.values():
            await link.close()
        for readers in self._readers.values():
            await readers.close()

    async def _send_to(
        self,
        server: Server,
        positions: list[int],
        commands: Sequence[Command],
        replies: list[Any],
    ) -> None:
        chosen = [commands[position] for position in positions]
        found = await self._exchange(server, chosen, REPLY_TIMEOUT_S)
        for position, command, reply in zip(positions, chosen, found, strict=True):
            replies[position] = reply
            if isinstance(reply, ELSEWHERE):
                # The others of the batch have their replies now, however long this one takes.
                replies[position] = self._spawn(self._follow(command, server, reply))

    async def _run(
        self,
        command: Command,
        server: Server,
        *,
        asking: bool = False,
        reply_timeout_s: float | None,
    ) -> Any:
        """Reply or exception of one command. ASKING counts for the next one of its connection."""
        ahead: list[Command] = [("ASKING",)] if asking else []
        return (await self._exchange(server, [*ahead, command], reply_timeout_s))[-1]

    async def _exchange(
        self, server: Server, commands: Sequence[Command], reply_timeout_s: float | None
    ) -> list[Any]:
        try:
            if reply_timeout_s is None:
                replies = await self._reader(server).read(commands)
            else:
                replies = await self._link(server).ask(commands)
        except (errors.RedisError, OSError) as error:
            self._stale = True
            return [error] * len(commands)
        if any(is_demoted(reply) or isinstance(reply, _UNSERVED) for reply in replies):
            self._stale = True
        return replies

    async def _follow(
        self,
        command: Command,
        server: Server,
        reply: Any,
        *,
        reply_timeout_s: float | None = REPLY_TIMEOUT_S,
    ) -> Any:
        """Send a command that did not run to where it can; for a bounded time."""
        slot, pause_s, asking = _slot(command), 0.0, False
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + FOLLOW_S
        while isinstance(reply, ELSEWHERE) and clock() < give_up_at:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2 + 0.001, 0.05)
            if isinstance(reply, errors.AskError):
                asking = not isinstance(reply, errors.MovedError)
                server = (reply.host or server[0], reply.port)
                if not asking:
                    self._masters[slot] = server
            else:
                # Keys of one slot are on two servers: the old one knows where this belongs.
                server, asking = self._masters[slot] or server, False
            reply = await self._run(command, server, asking=asking, reply_timeout_s=reply_timeout_s)
        return reply

    async def _learn(self) -> None:
        if self._looking is None:
            if not self._stale:
                return
            self._looking = asyncio.get_running_loop().create_task(self._look_up())
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    def _looked(self, task: "asyncio.Task[None]") -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # Whoever waited has it; nobody may have.

    async def _look_up(self) -> None:
        """Ask the servers in turn, so that one with a view of its own is not asked twice."""
        self._stale = False
        reason: Any = "no server of the cluster knows who serves which slot"
        for _ in range(len(self._known)):
            server = self._known[0]
            self._known.rotate(-1)
            try:
                async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                    (rows,) = await self._link(server).ask([("CLUSTER", "SLOTS")])
            except (errors.RedisError, OSError) as error:
                reason = error
                continue
            if isinstance(rows, Exception):
                reason = rows
            elif rows:
                self._take(rows, server)
                return
        self._stale = True
        raise errors.ConnectionError(f"no server of the cluster answers: {reason}")

    def _take(self, rows: list[Any], asked: Server) -> None:
        masters: list[Server | None] = [None] * SLOTS
        named_now = dict.fromkeys(self._address.hosts)
        for first, last, *servers in rows:
            # A server that does not know its own name is the one that was asked.
            named = [((row[0] or b"").decode() or asked[0], int(row[1])) for row in servers]
            masters[first : last + 1] = [named[0]] * (last + 1 - first)
            named_now |= dict.fromkeys(named)
        self._masters = masters
        stay = [server for server in self._known if server in named_now]
        self._known = deque(dict.fromkeys([*stay, *named_now]))

    def _nobody(self, command: Command) -> Exception:
        self._stale = True
        return errors.ClusterDownError(f"CLUSTERDOWN nobody serves slot {_slot(command)}")

    # Both are kept for good: what is under way at a server that left must come to its end.

    def _link(self, server: Server) -> Link:
        found = self._links.get(server)
        if found is None:
            found = make_link(make_client(self._address, server, REPLY_TIMEOUT_S))
            self._links[server] = found
        return found

    def _reader(self, server: Server) -> Readers:
        found = self._readers.get(server)
        if found is None:
            found = make_readers(make_client(self._address, server, None))
            self._readers[server] = found
        return found

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return task


def _slot(command: Command) -> int:
    """The slot of a command's first key; commands without keys are for any server."""
    name = command[0]
    if name in ("EVALSHA", "EVAL"):
        key = command[3]
    elif name == "XREADGROUP":
        key = command[command.index("STREAMS", 4) + 1]
    elif name == "XREAD":
        key = command[command.index("STREAMS") + 1]
    elif name == "XGROUP":
        key = command[2]
    else:
        key = command[1] if len(command) > 1 else ""
    return key_slot(key if isinstance(key, bytes) else str(key).encode())
