"""Where Redis is: one server, a service that Sentinels watch over, or a cluster."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.exceptions import RedisError

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
DEFAULT_SERVICE = "mymaster"

Server = tuple[str, int]
"""Host and port."""

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OF_SENTINELS = "sentinel_"


class RedisMode(StrEnum):
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Address:
    """`hosts` are the server, the Sentinels or some nodes of the cluster; none for a socket path.

    `url` has the options: credentials, TLS, database.
    """

    mode: RedisMode
    url: str
    hosts: tuple[Server, ...] = ()
    service: str = ""

    @property
    def tls(self) -> bool:
        return self.url.startswith("rediss:")

    @property
    def options(self) -> dict[str, Any]:
        """The client's options for each server: the URL's, less its host."""
        return {
            name: value
            for name, value in _options(self.url).items()
            if not name.startswith(_OF_SENTINELS)
        }

    @property
    def sentinel_options(self) -> dict[str, Any]:
        """The client's options for each Sentinel: TLS like the servers, credentials of its own."""
        found = _options(self.url)
        options = {name: value for name, value in found.items() if name.startswith("ssl_")}
        for name in ("username", "password"):
            if _OF_SENTINELS + name in found:
                options[name] = found[_OF_SENTINELS + name]
        return options


def single(url: str) -> Address:
    """One server, `redis://`, `rediss://` or `unix://`; raises ValueError with one sentence."""
    scheme, separator, rest = url.partition("://")
    if scheme not in ("redis", "rediss", "unix") or not separator or not rest.strip("/"):
        raise ValueError(
            "SCHED_REDIS_URL is not a Redis address; it looks like redis://host:6379/0,"
            " rediss://… for TLS, or unix:///path/to/socket"
        )
    example = "redis://user:password@host:6379/0"
    hosts = () if scheme == "unix" else _hosts(url, DEFAULT_PORT, "SCHED_REDIS_URL", example)
    if len(hosts) > 1:
        raise ValueError(
            "SCHED_REDIS_URL names several hosts; for Sentinels set SCHED_REDIS_MODE=sentinel,"
            " for a cluster SCHED_REDIS_MODE=cluster, for one server it looks like " + example
        )
    return _checked(Address(RedisMode.SINGLE, url, hosts), "SCHED_REDIS_URL", example)


def sentinel(url: str) -> Address:
    """`redis://user:password@sentinel1:26379,sentinel2:26379/service`, credentials of the servers.

    With `rediss://` the Sentinels are spoken to in TLS as well. Their own credentials are options:
    `?sentinel_username=…&sentinel_password=…`. Raises ValueError with one sentence.
    """
    example = "redis://sentinel1:26379,sentinel2:26379/mymaster"
    split = urlsplit(url)
    credentials, at, hosts = split.netloc.rpartition("@")
    if split.scheme not in ("redis", "rediss") or not hosts:
        raise ValueError(f"SCHED_REDIS_URL names no Sentinels; it looks like {example}")
    query = f"?{split.query}" if split.query else ""
    return _checked(
        Address(
            RedisMode.SENTINEL,
            f"{split.scheme}://{credentials}{at}localhost/0{query}",
            _hosts(url, DEFAULT_SENTINEL_PORT, "SCHED_REDIS_URL", example),
            split.path.strip("/") or DEFAULT_SERVICE,
        ),
        "SCHED_REDIS_URL",
        example,
    )


def cluster(urls: list[str]) -> Address:
    """Some nodes of a cluster; credentials and TLS of the first count for all.

    Raises ValueError with one sentence.
    """
    setting = "SCHED_REDIS_CLUSTER_URLS"
    example = "redis://node1:6379,redis://node2:6379,redis://node3:6379"
    splits = [urlsplit(url) for url in urls]
    if not urls or any(
        split.scheme not in ("redis", "rediss") or not split.netloc for split in splits
    ):
        raise ValueError(f"{setting} names no cluster; it looks like {example}")
    hosts = tuple(host for url in urls for host in _hosts(url, DEFAULT_PORT, setting, example))
    address = Address(RedisMode.CLUSTER, urls[0], hosts)
    if address.options.get("db"):
        raise ValueError(
            f"{setting} names a database, and a cluster has only number 0; it looks like {example}"
        )
    return _checked(address, setting, example)


def _options(url: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(parse_url(_with_one_host(url)))
    for name in ("host", "port", "connection_class"):
        found.pop(name, None)
    return found


def _with_one_host(url: str) -> str:
    # The client's own parser reads the port, which `_hosts` has read with a better sentence.
    split = urlsplit(url)
    if split.scheme == "unix":
        return url
    credentials, at, _ = split.netloc.rpartition("@")
    return split._replace(netloc=f"{credentials}{at}localhost").geturl()


def _hosts(url: str, default_port: int, setting: str, example: str) -> tuple[Server, ...]:
    found = []
    for netloc in urlsplit(url).netloc.rpartition("@")[2].split(","):
        try:
            split = urlsplit(f"//{netloc.strip()}")
            host, port = split.hostname, split.port or default_port
        except ValueError:
            raise ValueError(
                f"{setting} has the address '{netloc}', whose port is not a number below 65536;"
                f" it looks like {example}"
            ) from None
        if not host:
            raise ValueError(f"{setting} has an address without a host; it looks like {example}")
        found.append((host, port))
    return tuple(found)


def _checked(address: Address, setting: str, example: str) -> Address:
    try:
        options = address.options
    except ValueError as error:
        # The client's sentence names the option, never its neighbours, which may be secrets.
        raise ValueError(f"{setting}: {error} It looks like {example}") from None
    options.pop("path", None)
    for name in ("max_connections", "timeout"):
        options.pop(name, None)  # These are the pool's.
    try:
        (SSLConnection if address.tls else Connection)(**options)
    except TypeError as error:
        unknown = str(error).rpartition("argument ")[2] or "?"
        raise ValueError(
            f"{setting} has an option that the client does not know, {unknown};"
            f" it looks like {example}"
        ) from None
    except (ValueError, RedisError) as error:
        raise ValueError(f"{setting}: {error}; it looks like {example}") from None
    for name in _FILES:
        if name in options and not Path(options[name]).is_file():
            raise ValueError(
                f"{setting} names {name}={options[name]}, which is no file;"
                f" it looks like rediss://host:6379/0?{name}=/etc/ssl/redis.pem"
            )
    return address
