"""The clients under a `Connection`: how a batch of commands gets to Redis in each of its forms.

Nothing is sent twice by these clients: a retry after a lost reply would run a command twice. What
a server refused to run because another one has to (MOVED, ASK, TRYAGAIN) is sent there. Replies
come back as they are on the wire (RESP2, bytes), so that stores decode one shape.

redis-py's own cluster client is not used: it fails a whole batch when one master is away and then
closes the connections of all others, and sends ASKING and its command over different connections.

Not promised: that commands of one batch run in their order when a slot moves.
"""

import asyncio
import re
from collections import defaultdict, deque
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from redis import asyncio as redis
from redis import exceptions as errors
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot

from registry.store.address import Address, RedisMode, Server

Argument = str | bytes | int | float
Command = tuple[Argument, ...]

CONNECT_TIMEOUT_S = 2.0
REPLY_TIMEOUT_S = 5.0
LOOK_UP_TIMEOUT_S = 1.0
FOLLOW_S = 5.0
"""How long a command goes after a slot that moves; then its caller hears that it did not run."""
WATCH_S = 0.25
"""How often Sentinels are asked who the master is."""
SLOTS = 16384

_LOST = (errors.ConnectionError, errors.TimeoutError, OSError)
_ELSEWHERE = (errors.AskError, errors.TryAgainError)
"""Did not run, and may at once elsewhere, or here later. MovedError is an AskError."""
_REFUSALS = re.compile(
    r"(?:^|-)(?:READONLY|UNBLOCKED|NOREPLICAS|OOM|MISCONF|MASTERDOWN|LOADING|BUSY|CLUSTERDOWN) "
    r"|The user executing the script can't"
)
"""Redis 6.2 hands an error inside a script on in a text of its own: there the code follows `-`."""


class Transport(Protocol):
    """A client of one Redis in one of its forms."""

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """For each command its reply, or exception, or a task that will return either.

        Raises when no server can be reached.
        """

    async def wait(self, command: Command) -> Any:
        """Run a blocking read, for as long as it takes."""

    async def close(self) -> None: ...


def transport(address: Address) -> Transport:
    """The client for an address."""
    if address.mode is RedisMode.CLUSTER:
        return _ClusterTransport(address)
    if address.mode is RedisMode.SENTINEL:
        return _SentinelTransport(address)
    return _ServerTransport(address)


def cannot_serve(error: BaseException) -> bool:
    """Whether an error says that Redis is away or cannot do its work now, not that we erred."""
    if isinstance(error, (*_LOST, *_ELSEWHERE, errors.ClusterError)):
        return True
    if isinstance(error, errors.ReadOnlyError | errors.OutOfMemoryError | errors.NoPermissionError):
        return True
    return isinstance(error, errors.ResponseError) and _REFUSALS.search(str(error)) is not None


class _ServerTransport:
    """One server."""

    def __init__(self, address: Address) -> None:
        server = address.hosts[0] if address.hosts else None
        self._client = _client(address, server, REPLY_TIMEOUT_S)
        self._blocking = _client(address, server, None)

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        replies = await _pipeline(self._client, commands)
        if any(_is_demoted(reply) for reply in replies):
            await self._leave(inuse_connections=False)
        return replies

    async def wait(self, command: Command) -> Any:
        try:
            return await _read(self._blocking, command)
        except errors.ResponseError as error:
            if _is_demoted(error):
                await self._leave(inuse_connections=False)
            raise

    async def close(self) -> None:
        await self._client.aclose()
        await self._blocking.aclose()

    async def _leave(self, *, inuse_connections: bool) -> None:
        # They lead to a server that is no master any more; new ones find the one that is.
        for client in (self._client, self._blocking):
            await client.connection_pool.disconnect(inuse_connections=inuse_connections)


class _SentinelTransport(_ServerTransport):
    """Whichever server is the master of a Sentinel service now.

    Sentinels let a replaced master take writes for some ten seconds more before they demote it;
    those are lost. So they are asked again and again, and connections to it are closed at once.
    """

    def __init__(self, address: Address) -> None:
        self._service = address.service
        self._sentinels = _sentinels(address)
        self._client = self._make(address, REPLY_TIMEOUT_S)
        self._blocking = self._make(address, None)
        self._master: Server | None = None
        self._watching: asyncio.Task[None] | None = None

    def _make(self, address: Address, reply_timeout_s: float | None) -> "redis.Redis":
        options: dict[str, Any] = {"ssl": True} if address.tls else {}
        options |= address.options | _ours(reply_timeout_s)
        client: redis.Redis = self._sentinels.master_for(address.service, **options)
        client.response_callbacks.clear()
        return client

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        self._watch()
        return await super().send(commands)

    async def wait(self, command: Command) -> Any:
        self._watch()
        return await super().wait(command)

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await super().close()
        await self._sentinels.aclose()

    def _watch(self) -> None:
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._keep_watching())

    async def _keep_watching(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                master = await self._sentinels.discover_master(self._service)
            except (errors.RedisError, OSError):
                continue  # Nobody knows better; who needs a connection hears why there is none.
            if self._master not in (None, master):
                await self._leave(inuse_connections=True)
            self._master = master


class _ClusterTransport:
    """A cluster: each command goes to the master of its key's slot, and after it when it moves."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._known = deque(address.hosts)
        self._masters: list[Server | None] = [None] * SLOTS
        self._stale = True
        self._looking: asyncio.Task[None] | None = None
        self._following: set[asyncio.Task[Any]] = set()
        self._clients: dict[tuple[Server, float | None], redis.Redis] = {}

    async def send(self, commands: Sequence[Command]) -> list[Any]:
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
        if isinstance(reply, _ELSEWHERE):
            reply = await self._follow(command, master, reply, reply_timeout_s=None)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def close(self) -> None:
        tasks = [*self._following, *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients.values():
            await client.aclose()

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
            if isinstance(reply, _ELSEWHERE):
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
            replies = await _pipeline(self._client(server, reply_timeout_s), commands)
        except (errors.RedisError, OSError) as error:
            self._stale = True
            return [error] * len(commands)
        if any(_is_demoted(reply) or isinstance(reply, _UNSERVED) for reply in replies):
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
        while isinstance(reply, _ELSEWHERE) and clock() < give_up_at:
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
                    client = self._client(server, REPLY_TIMEOUT_S)
                    (rows,) = await _pipeline(client, [("CLUSTER", "SLOTS")])
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

    def _client(self, server: Server, reply_timeout_s: float | None) -> "redis.Redis":
        # Kept for good: what is under way at a server that left must come to its end.
        found = self._clients.get((server, reply_timeout_s))
        if found is None:
            found = _client(self._address, server, reply_timeout_s)
            self._clients[server, reply_timeout_s] = found
        return found

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.get_running_loop().create_task(work)
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return task


_UNSERVED = (errors.ClusterDownError, errors.MovedError)


def _is_demoted(reply: Any) -> bool:
    """Whether a server says that it is no master any more."""
    if isinstance(reply, errors.ReadOnlyError):
        return True
    return isinstance(reply, errors.ResponseError) and (
        "-READONLY " in str(reply) or str(reply).startswith("UNBLOCKED ")
    )


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


async def _pipeline(client: "redis.Redis", commands: Sequence[Command]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return replies


async def _read(client: "redis.Redis", command: Command) -> Any:
    """One command without a pipeline, whose end would stand between the reply and its reader."""
    pool = client.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        await connection.send_command(*command)
        return await connection.read_response()
    finally:
        await pool.release(connection)


def _ours(reply_timeout_s: float | None) -> dict[str, Any]:
    """Options that an address cannot change: what stores decode, and that nothing is sent twice."""
    return {
        "protocol": 2,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "driver_info": None,  # Two commands less for each connection, and one right less.
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": reply_timeout_s,
    }


def _client(
    address: Address, server: Server | None, reply_timeout_s: float | None
) -> "redis.Redis":
    options = address.options | _ours(reply_timeout_s)
    if server is None:
        options |= {"connection_class": UnixDomainSocketConnection}
    else:
        options |= {"host": server[0], "port": server[1], "socket_keepalive": True}
    if address.tls:
        options |= {"connection_class": SSLConnection}
    client = redis.Redis.from_pool(redis.ConnectionPool(**options))
    client.response_callbacks.clear()
    return client


def _sentinels(address: Address) -> Sentinel:
    return Sentinel(  # type: ignore[no-untyped-call]
        list(address.hosts),
        sentinel_kwargs={
            **({"ssl": True} if address.tls else {}),
            **address.sentinel_options,
            "socket_connect_timeout": LOOK_UP_TIMEOUT_S,
            "socket_timeout": LOOK_UP_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
        },
        socket_keepalive=True,
    )
