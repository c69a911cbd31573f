"""The mirror, on the database as history and a catalog of the test's own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection
from structlog.testing import capture_logs

from pools.domain.news import News, Publication, Published, Wanted
from pools.domain.pool import Pool, PoolKind, pool_name
from pools.domain.snapshot import PoolConfig, digest
from pools.models import Pool as PoolRow
from pools.models import PoolVersion
from pools.services import mirror as mirror_module
from pools.services.mirror import Mirror
from pools.store import history as history_module
from pools.store.history import DjangoHistory
from registry.domain.capability import Capabilities
from registry.domain.errors import StoreUnavailable
from registry.domain.node import NodeSnapshot, NodeStatus
from registry.models import Node
from registry.services.recorder import NodeRecorder
from registry.services.views import NodeViews
from registry.store.history import DjangoNodeHistory

pytestmark = pytest.mark.django_db(transaction=True)

BASE_MS = 1_790_000_000_000


class Catalog:
    """What was published, in order. `kept` news are still to be had; `away` while it is not."""

    def __init__(self, *configs: PoolConfig) -> None:
        self.configs = list(configs)
        self.forgotten = 0
        self.away = False
        self.reads = 0

    async def publish(self, config: PoolConfig, *, candidate: str) -> Publication:
        self.configs.append(config)
        return Publication(published=True)

    async def refresh(self, *, candidate: str, epoch: int) -> bool:
        return True

    async def current(self) -> PoolConfig | None:
        self._serve()
        return self.configs[-1] if self.configs else None

    async def ask(self, what: str, *, by: str) -> None: ...

    async def position(self) -> str:
        return str(len(self.configs))

    async def news(self, since: str, *, within_ms: int) -> tuple[str, Sequence[News]]:
        self._serve()
        start = max(int(since), self.forgotten)
        found = self.configs[start:]
        if not found:
            await asyncio.sleep(min(within_ms, 10) / 1000)
            return since, []
        return str(len(self.configs)), [Wanted("regenerate", "a test"), *map(Published, found)]

    def _serve(self) -> None:
        self.reads += 1
        if self.away:
            raise StoreUnavailable("the test took the catalog away")


def config(version: int, *pairs: str, epoch: int = 1, first_id: int = 1) -> PoolConfig:
    pools = tuple(
        Pool(number, pool_name(src, tgt), PoolKind.EXACT, src, tgt)
        for number, (src, tgt) in enumerate((pair.split("-") for pair in pairs), first_id)
    )
    return PoolConfig(
        version=version,
        epoch=epoch,
        generated_at_ms=BASE_MS + version,
        generated_by="leader-1",
        reason="a test",
        next_pool_id=first_id + len(pools),
        pools=pools,
    )


def snapshot(
    node_id: str, *, epoch: int = 1, revision: int = 0, version: str = "1"
) -> NodeSnapshot:
    return NodeSnapshot(
        node_id=node_id,
        instance_id="instance-1",
        connection_epoch=epoch,
        revision=revision,
        status=NodeStatus.READY,
        max_concurrent_jobs=4,
        accept_public_jobs=True,
        capability_by_type=Capabilities((), None).capability_by_type,
        language_capabilities=None,
        registered_at_ms=BASE_MS + epoch * 1000,
        version=version,
        platform="linux\0",
    )


class Membership:
    """The views that a recorder follows, filled by the test."""

    def __init__(self) -> None:
        self.views = NodeViews()

    async def sync(self) -> None: ...


async def rows() -> list[tuple[int, int, str]]:
    found = PoolVersion.objects.order_by("epoch", "version")
    return [row async for row in found.values_list("epoch", "version", "summary")]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 (the mirror has no event for it)
            await asyncio.sleep(0.01)


async def test_once_records_every_version_that_the_news_still_have() -> None:
    catalog = Catalog(
        config(1, "de-en"), config(2, "de-en", "fr-en"), config(3, "fr-en", first_id=2)
    )
    await Mirror(catalog, DjangoHistory()).once()
    assert await rows() == [
        (1, 1, "+1: added de-en"),
        (1, 2, "+1: added fr-en"),
        (1, 3, "-1: removed de-en"),
    ]
    last = await PoolVersion.objects.afirst()
    assert last is not None
    assert last.digest == digest(catalog.configs[-1])
    assert last.pools == [{"id": 2, "name": "fr-en", "kind": "exact", "src": "fr", "tgt": "en"}]


async def test_what_is_in_force_is_recorded_though_its_news_are_gone() -> None:
    catalog = Catalog(config(7, "de-en"))
    catalog.forgotten = 1
    await Mirror(catalog, DjangoHistory()).once()
    assert [version for _, version, _ in await rows()] == [7]


async def test_an_empty_catalog_leaves_an_empty_history() -> None:
    await Mirror(Catalog(), DjangoHistory()).once()
    assert await rows() == []


async def test_a_restart_records_only_what_is_new() -> None:
    catalog = Catalog(config(1, "de-en"))
    await Mirror(catalog, DjangoHistory()).once()
    first = await PoolVersion.objects.aget()
    catalog.configs.append(config(1, "de-en", epoch=2))
    await Mirror(catalog, DjangoHistory()).once()
    assert await rows() == [(1, 1, "+1: added de-en"), (2, 1, "no change")]
    assert (await PoolVersion.objects.aget(epoch=1)).pk == first.pk


async def test_the_difference_is_set_right_when_a_version_is_recorded_late() -> None:
    history = DjangoHistory()
    await history.record(config(1, "de-en"))
    await history.record(config(3, "de-en", "fr-en", "it-en"))
    await history.record(config(2, "de-en", "fr-en"))
    assert [summary for *_, summary in await rows()] == [
        "+1: added de-en",
        "+1: added fr-en",
        "+1: added it-en",
    ]
    assert await PoolRow.objects.filter(retired_at=None).acount() == 3


async def test_a_retired_pool_stays_and_comes_back_under_its_name() -> None:
    history = DjangoHistory()
    await history.record(config(1, "de-en", "fr-en"))
    await history.record(config(2, "de-en"))
    retired = await PoolRow.objects.aget(name="fr-en")
    assert retired.retired_at is not None
    await history.record(config(3, "de-en", "fr-en"))
    back = await PoolRow.objects.aget(name="fr-en")
    assert (back.pk, back.since_version, back.retired_at) == (retired.pk, 3, None)
    stayed = await PoolRow.objects.aget(name="de-en")
    assert stayed.since_version == 1


def test_two_mirrors_at_once_write_each_version_once() -> None:
    catalogs = [Catalog(*(config(n, "de-en", "fr-en") for n in range(1, 16))) for _ in range(4)]

    def mirror(catalog: Catalog) -> None:
        # `async_to_sync` gives each thread its own thread of database work.
        async_to_sync(Mirror(catalog, DjangoHistory()).once)()
        connection.close()

    with ThreadPoolExecutor(len(catalogs)) as threads:
        list(threads.map(mirror, catalogs))
    versions = PoolVersion.objects.order_by("version").values_list("version", "summary")
    assert [version for version, _ in versions] == list(range(1, 16))
    assert [summary for _, summary in versions][1:] == ["no change"] * 14
    assert PoolRow.objects.count() == 2


async def test_an_outage_of_the_catalog_is_told_once_and_nothing_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirror_module, "log", structlog.get_logger())
    catalog = Catalog(config(1, "de-en"))
    catalog.away = True
    with capture_logs() as logs:
        work = asyncio.create_task(Mirror(catalog, DjangoHistory(), retry_ms=1).run())

        async def tried_often() -> bool:
            return catalog.reads > 5

        async def both_recorded() -> bool:
            return len(await rows()) == 2

        await until(tried_often)
        catalog.configs.append(config(2, "de-en", "fr-en"))
        catalog.away = False
        await until(both_recorded)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    events = [line["event"] for line in logs]
    assert events.count("mirror waits") == 1
    assert events.count("mirror goes on") == 1


async def test_an_outage_of_the_database_loses_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: PoolConfig) -> bool:
        raise OperationalError("the test took the database away")

    mirror = Mirror(Catalog(config(1, "de-en"), config(2, "fr-en")), DjangoHistory())
    with monkeypatch.context() as away:
        away.setattr(history_module, "_record", fail)
        with pytest.raises(StoreUnavailable, match="the database cannot be used"):
            await mirror.once()
    await mirror.once()
    assert [version for _, version, _ in await rows()] == [1, 2]


async def test_nodes_are_recorded_when_they_register_and_keep_what_operators_wrote() -> None:
    membership = Membership()
    recorder = NodeRecorder(membership, DjangoNodeHistory())  # type: ignore[arg-type]
    membership.views.put(snapshot("gpu-1"))
    membership.views.put(snapshot("gpu-2"))
    await Mirror(Catalog(), DjangoHistory(), recorder=recorder).once()
    await Node.objects.filter(node_id="gpu-1").aupdate(enabled=False, note="hot")
    membership.views.put(snapshot("gpu-1", epoch=2, version="2"))
    membership.views.put(snapshot("gpu-2", revision=1, version="not a registration"))
    await recorder.turn()
    one, two = [node async for node in Node.objects.all()]
    assert (one.version, one.platform, one.enabled, one.note) == ("2", "linux", False, "hot")
    assert (one.last_registered_at - one.first_seen_at).total_seconds() == 1
    assert (two.version, two.last_registered_at) == ("1", two.first_seen_at)
