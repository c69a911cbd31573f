"""The published configuration in Redis: one string, its version, and a stream of news."""

from collections.abc import Sequence
from pathlib import Path

import structlog

from pools.domain.errors import InvalidPoolConfig
from pools.domain.news import News, Publication, Published, Released, Wanted
from pools.domain.snapshot import PoolConfig, decode, encode
from pools.domain.wishes import NONE, Wishes
from pools.domain.wishes import decode as decode_wishes
from pools.domain.wishes import encode as encode_wishes
from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.scripts import load_scripts
from registry.store.streams import Entry, last_id, wait_entries

log = structlog.get_logger(__name__)

SCRIPTS = load_scripts(Path(__file__).parent / "lua")


class RedisCatalogStore:
    """Implements `CatalogStore`."""

    def __init__(self, connection: Connection, keys: Keys, *, config_ttl_ms: int) -> None:
        self._connection = connection
        self._keys = keys
        self._config_ttl_ms = config_ttl_ms

    async def publish(self, config: PoolConfig, *, candidate: str) -> Publication:
        reply = await self._connection.run(
            SCRIPTS["publish_config"],
            [
                self._keys.leader,
                self._keys.leader_epoch,
                self._keys.pool_config,
                self._keys.pool_version,
                self._keys.pool_changes,
            ],
            [candidate, config.epoch, config.version, encode(config), self._config_ttl_ms],
        )
        if reply.word == "behind":
            return Publication(published=False, behind=reply.integer())
        return Publication(published=reply.word == "published", stale=reply.word == "stale")

    async def refresh(self, *, candidate: str, epoch: int) -> bool:
        reply = await self._connection.run(
            SCRIPTS["refresh_config"],
            [self._keys.leader, self._keys.leader_epoch, self._keys.pool_config],
            [candidate, epoch, self._config_ttl_ms],
        )
        return reply.word != "absent"

    async def current(self) -> PoolConfig | None:
        raw = await self._connection.call("GET", self._keys.pool_config)
        return _readable(raw) if raw is not None else None

    async def set_wishes(self, wishes: Wishes) -> bool:
        reply = await self._connection.run(
            SCRIPTS["set_wishes"],
            [self._keys.pool_wishes, self._keys.pool_changes],
            [encode_wishes(wishes), wishes.by],
        )
        return reply.word == "set"

    async def wishes(self) -> Wishes:
        raw = await self._connection.call("GET", self._keys.pool_wishes)
        return decode_wishes(raw) if raw is not None else NONE

    async def ask(self, what: str, *, by: str) -> None:
        await self._connection.call(
            "XADD", self._keys.pool_changes, "MAXLEN", "~", 1000, "*",
            "kind", "wanted", "what", what, "by", by,
        )  # fmt: skip

    async def position(self) -> str:
        return await last_id(self._connection, self._keys.pool_changes)

    async def news(self, since: str, *, within_ms: int) -> tuple[str, Sequence[News]]:
        entries = await wait_entries(
            self._connection, self._keys.pool_changes, since, within_ms=within_ms
        )
        decoded = (_news(entry) for entry in entries)
        return entries[-1].id if entries else since, [item for item in decoded if item]


def _news(entry: Entry) -> News | None:
    fields = entry.fields
    match fields.get(b"kind"):
        case b"published":
            config = _readable(fields[b"config"])
            return Published(config) if config else None
        case b"released":
            return Released(int(fields[b"epoch"]))
        case b"wanted":
            return Wanted(fields[b"what"].decode(), fields[b"by"].decode())
        case _:
            # From a newer version of the scheduler: not for us.
            return None


def _readable(raw: bytes) -> PoolConfig | None:
    try:
        return decode(raw)
    except InvalidPoolConfig as error:
        log.error("pool configuration not readable", reason=str(error))  # noqa: TRY400 (no stack)
        return None
