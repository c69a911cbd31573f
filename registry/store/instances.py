"""Instances in Redis: one report per process in a hash, and a presence key that expires."""

import asyncio

import msgspec

from registry.domain.instance import InstanceReport
from registry.store.connection import Connection
from registry.store.keys import Keys
from registry.store.nodes import SCRIPTS

_report = msgspec.json.Decoder(InstanceReport)


class RedisInstanceStore:
    """Implements `InstanceStore`."""

    def __init__(self, connection: Connection, keys: Keys, *, presence_ttl_ms: int) -> None:
        self._connection = connection
        self._keys = keys
        self._presence_ttl_ms = presence_ttl_ms

    async def report(self, report: InstanceReport) -> None:
        instance_id = report.instance_id
        # Presence first: one that is known and not present is swept.
        await self._connection.call(
            "SET",
            self._keys.instance_presence(instance_id),
            "serving" if report.serves else "standing by",
            "PX",
            self._presence_ttl_ms,
        )
        await self._connection.run(
            SCRIPTS["report_instance"],
            [self._keys.instances],
            [instance_id, msgspec.json.encode(report)],
        )

    async def reports(self) -> list[InstanceReport]:
        found = await self.all_reports()
        answers = await self._present([report.instance_id for report in found])
        return [report for report, present in zip(found, answers, strict=True) if present]

    async def all_reports(self) -> list[InstanceReport]:
        """Reports of all instances that have not left, those whose presence expired included."""
        values = await self._connection.call("HVALS", self._keys.instances)
        return sorted((_stamped(value) for value in values), key=lambda r: r.instance_id)

    async def absent(self) -> list[str]:
        ids = [report.instance_id for report in await self.all_reports()]
        answers = await self._present(ids)
        return [instance_id for instance_id, there in zip(ids, answers, strict=True) if not there]

    async def leave(self, instance_id: str, *, unfinished: bool = False) -> None:
        await self._connection.call("DEL", self._keys.instance_presence(instance_id))
        if not unfinished:
            await self._connection.call("HDEL", self._keys.instances, instance_id)

    async def _present(self, instance_ids: list[str]) -> list[int]:
        keys = map(self._keys.instance_presence, instance_ids)
        answers: list[int] = await asyncio.gather(
            *(self._connection.call("EXISTS", key) for key in keys)
        )
        return answers


def _stamped(value: bytes) -> InstanceReport:
    last_seen_ms, _, report = value.partition(b"|")
    return msgspec.structs.replace(_report.decode(report), last_seen_ms=int(last_seen_ms))
