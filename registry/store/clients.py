"""Ground of the transports: redis-py clients with our options, and what their errors mean.

Nothing is sent twice by these clients: a retry after a lost reply would run a command twice.
Replies come back as they are on the wire (RESP2, bytes), so that stores decode one shape.
"""

import re
from typing import Any

from redis import asyncio as redis
from redis import exceptions as errors
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from registry.store.address import Address, Server
from registry.store.link import Link, Readers

CONNECT_TIMEOUT_S = 2.0
REPLY_TIMEOUT_S = 5.0
LOOK_UP_TIMEOUT_S = 1.0

LOST = (errors.ConnectionError, errors.TimeoutError, OSError)
ELSEWHERE = (errors.AskError, errors.TryAgainError)
"""Did not run, and may at once elsewhere, or here later. MovedError is an AskError."""
_REFUSALS = re.compile(
    r"(?:^|-)(?:READONLY|UNBLOCKED|NOREPLICAS|OOM|MISCONF|MASTERDOWN|LOADING|BUSY|CLUSTERDOWN) "
    r"|The user executing the script can't"
)
"""Redis 6.2 hands an error inside a script on in a text of its own: there the code follows `-`."""


def cannot_serve(error: BaseException) -> bool:
    """Whether an error says that Redis is away or cannot do its work now, not that we erred."""
    if isinstance(error, (*LOST, *ELSEWHERE, errors.ClusterError)):
        return True
    if isinstance(error, errors.ReadOnlyError | errors.OutOfMemoryError | errors.NoPermissionError):
        return True
    return isinstance(error, errors.ResponseError) and _REFUSALS.search(str(error)) is not None


def is_demoted(reply: Any) -> bool:
    """Whether a server says that it is no master any more."""
    if isinstance(reply, errors.ReadOnlyError):
        return True
    return isinstance(reply, errors.ResponseError) and (
        "-READONLY " in str(reply) or str(reply).startswith("UNBLOCKED ")
    )


def our_options(reply_timeout_s: float | None) -> dict[str, Any]:
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


def make_client(
    address: Address, server: Server | None, reply_timeout_s: float | None
) -> "redis.Redis":
    options = address.options | our_options(reply_timeout_s)
    if server is None:
        options |= {"connection_class": UnixDomainSocketConnection}
    else:
        options |= {"host": server[0], "port": server[1], "socket_keepalive": True}
    if address.tls:
        options |= {"connection_class": SSLConnection}
    client = redis.Redis.from_pool(redis.ConnectionPool(**options))
    client.response_callbacks.clear()
    return client


def make_link(client: "redis.Redis") -> Link:
    """A shared connection made as the client's are."""
    return Link(client.connection_pool, reply_timeout_s=REPLY_TIMEOUT_S)


def make_readers(client: "redis.Redis") -> Readers:
    """Connections for blocking reads, made as the client's are."""
    return Readers(lambda: Link(client.connection_pool, reply_timeout_s=None))
