"""The contract of `InstanceStore`: who is there, and who left without a word."""

from registry.domain.instance import InstanceReport
from registry.services.ports import InstanceStore
from tests.contract.backends import SHORT_MS, Backend


def report(instance_id: str, *, nodes: int = 0) -> InstanceReport:
    return InstanceReport(instance_id, started_at_ms=5, nodes=nodes, pool_index_digest="d")


async def names(store: InstanceStore) -> list[str]:
    return [found.instance_id for found in await store.reports()]


async def test_reports_come_back_by_id_with_the_servers_time(backend: Backend) -> None:
    store = backend.instances()
    await store.report(report("two"))
    await store.report(report("one", nodes=3))
    first, second = await store.reports()
    assert (first.instance_id, first.nodes, first.pool_index_digest) == ("one", 3, "d")
    assert second.instance_id == "two"
    assert 0 < second.last_seen_ms <= first.last_seen_ms


async def test_of_one_instance_the_last_report_counts(backend: Backend) -> None:
    store = backend.instances()
    await store.report(report("one", nodes=1))
    await store.report(report("one", nodes=2))
    assert [found.nodes for found in await store.reports()] == [2]


async def test_an_instance_that_left_has_no_report(backend: Backend) -> None:
    store = backend.instances()
    await store.report(report("one"))
    await store.leave("one")
    await store.leave("never came")
    assert await store.all_reports() == []


async def test_an_instance_that_fell_silent_is_absent_but_not_forgotten(backend: Backend) -> None:
    await backend.instances().report(report("alive"))
    store = backend.instances(ttl_ms=SHORT_MS)
    await store.report(report("silent"))

    async def silent() -> bool:
        return await names(store) == ["alive"]

    await backend.outlast(SHORT_MS, silent)
    assert [found.instance_id for found in await store.all_reports()] == ["alive", "silent"]
    assert await store.absent() == ["silent"]


async def test_an_instance_that_left_work_behind_is_absent_at_once(backend: Backend) -> None:
    store = backend.instances()
    await store.report(report("one"))
    await store.report(report("two"))
    assert await store.absent() == []
    await store.leave("one", unfinished=True)
    await store.leave("two")
    assert await store.absent() == ["one"]


async def test_an_instance_that_speaks_again_is_present_again(backend: Backend) -> None:
    store = backend.instances(ttl_ms=SHORT_MS)
    await store.report(report("one"))

    async def silent() -> bool:
        return await names(store) == []

    await backend.outlast(SHORT_MS, silent)
    await backend.instances().report(report("one"))
    assert await names(store) == ["one"]


async def test_nobody_is_there_after_the_data_is_gone(backend: Backend) -> None:
    store = backend.instances()
    await store.report(report("one"))
    await backend.lose_everything()
    assert await store.all_reports() == []
