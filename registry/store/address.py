"""Where Redis is: one server, a service that Sentinels watch over, or a cluster."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import parse_url

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
DEFAULT_SERVICE = "mymaster"


class RedisMode(StrEnum):
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Address:
    """`options` are the client's: credentials, TLS, database. `hosts` unless mode is single."""

    mode: RedisMode
    url: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """Connection options of the URL, less its host: the same for every server."""
        found: dict[str, Any] = dict(parse_url(self.url))
        for name in ("host", "port"):
            found.pop(name, None)
        connection_class = found.pop("connection_class", None)
        if connection_class is not None and "SSL" in connection_class.__name__:
            found["ssl"] = True
        return found


def single(url: str) -> Address:
    """One server, `redis://`, `rediss://` or `unix://`; raises ValueError with one sentence."""
    scheme, separator, rest = url.partition("://")
    if scheme not in ("redis", "rediss", "unix") or not separator or not rest:
        raise ValueError(
            "SCHED_REDIS_URL is not a Redis address; it looks like redis://host:6379/0,"
            " rediss://… for TLS, or unix:///path/to/socket"
        )
    parse_url(url)
    return Address(RedisMode.SINGLE, url)


def sentinel(url: str) -> Address:
    """`redis://user:password@sentinel1:26379,sentinel2:26379/service`, credentials of the servers.

    Raises ValueError with one sentence.
    """
    split = urlsplit(url)
    credentials, _, hosts = split.netloc.rpartition("@")
    service = split.path.strip("/") or DEFAULT_SERVICE
    if split.scheme not in ("redis", "rediss") or not hosts:
        raise ValueError(
            "SCHED_REDIS_URL names no Sentinels; it looks like"
            " redis://sentinel1:26379,sentinel2:26379/mymaster"
        )
    at = f"{credentials}@" if credentials else ""
    query = f"?{split.query}" if split.query else ""
    servers = f"{split.scheme}://{at}localhost/0{query}"
    return Address(
        RedisMode.SENTINEL, servers, _hosts(hosts.split(","), DEFAULT_SENTINEL_PORT), service
    )


def cluster(urls: list[str]) -> Address:
    """Some nodes of a cluster; credentials and TLS of the first count for all.

    Raises ValueError with one sentence.
    """
    hosts = [urlsplit(url) for url in urls]
    if not urls or any(host.scheme not in ("redis", "rediss") or not host.netloc for host in hosts):
        raise ValueError(
            "SCHED_REDIS_CLUSTER_URLS names no cluster; it looks like"
            " redis://node1:6379,redis://node2:6379,redis://node3:6379"
        )
    netlocs = [host.netloc.rpartition("@")[2] for host in hosts]
    return Address(RedisMode.CLUSTER, urls[0], _hosts(netlocs, DEFAULT_PORT))


def _hosts(netlocs: list[str], default_port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for netloc in netlocs:
        split = urlsplit(f"//{netloc.strip()}")
        try:
            port = split.port or default_port
        except ValueError:
            raise ValueError(f"the port of Redis address '{netloc}' is not a number") from None
        if not split.hostname:
            raise ValueError(f"Redis address '{netloc}' names no host")
        found.append((split.hostname, port))
    return tuple(found)
