"""The contract of `QueueStore`: priority first, then age, within a limit."""

import asyncio

from routing.services.ports import QueueStore
from tests.contract.backends import Backend

THEN_MS = 1_790_000_000_000
LIMIT = 10


async def put(
    store: QueueStore,
    job_id: str,
    *,
    queue: str = "de-en",
    priority: int = 5,
    age_ms: int = 0,
    limit: int = LIMIT,
) -> bool:
    return await store.put(
        queue, job_id=job_id, priority=priority, accepted_ms=THEN_MS - age_ms, limit=limit
    )


async def drain(store: QueueStore, *queues: str) -> list[str]:
    """Every job, in the order it is pulled."""
    found = []
    while (job_id := await store.pull(queues)) is not None:
        found.append(job_id)
    return found


async def test_the_oldest_goes_first(backend: Backend) -> None:
    store = backend.queues()
    for job_id, age_ms in (("s:1", 1), ("s:2", 3), ("s:3", 2)):
        assert await put(store, job_id, age_ms=age_ms)
    assert await drain(store, "de-en") == ["s:2", "s:3", "s:1"]


async def test_a_higher_priority_goes_before_any_age(backend: Backend) -> None:
    store = backend.queues()
    await put(store, "s:1", priority=0, age_ms=86_400_000_000)
    await put(store, "s:2", priority=9)
    await put(store, "s:3", priority=8, age_ms=1)
    assert await drain(store, "de-en") == ["s:2", "s:3", "s:1"]


async def test_of_the_same_age_the_lower_id_goes_first(backend: Backend) -> None:
    store = backend.queues()
    for job_id in ("s:3", "s:1", "s:2"):
        await put(store, job_id)
    assert await drain(store, "de-en") == ["s:1", "s:2", "s:3"]


async def test_of_several_queues_the_best_job_goes_first(backend: Backend) -> None:
    store = backend.queues()
    await put(store, "s:1", queue="de-en", age_ms=1)
    await put(store, "s:2", queue="fr-en", age_ms=2)
    await put(store, "s:3", queue="es-en", priority=6)
    assert await drain(store, "de-en", "fr-en", "es-en") == ["s:3", "s:2", "s:1"]


async def test_of_equal_jobs_in_two_queues_the_first_named_queues_goes_first(
    backend: Backend,
) -> None:
    store = backend.queues()
    await put(store, "s:1", queue="de-en")
    await put(store, "s:2", queue="fr-en")
    assert await drain(store, "fr-en", "de-en") == ["s:2", "s:1"]


async def test_only_the_queues_that_are_named_are_pulled(backend: Backend) -> None:
    store = backend.queues()
    await put(store, "s:1", queue="de-en")
    assert await store.pull(["fr-en"]) is None
    assert await store.pull([]) is None
    assert await store.lengths() == {"de-en": 1}


async def test_a_job_is_pulled_once_by_however_many(backend: Backend) -> None:
    store = backend.queues()
    await put(store, "s:1")
    found = await asyncio.gather(*(store.pull(["de-en"]) for _ in range(5)))
    assert sorted(found, key=str) == [None] * 4 + ["s:1"]


async def test_a_full_queue_refuses(backend: Backend) -> None:
    store = backend.queues()
    assert await put(store, "s:1", limit=1)
    assert not await put(store, "s:2", limit=1)
    assert await put(store, "s:2", limit=2)
    assert not await put(store, "s:3", queue="fr-en", limit=0)
    assert await store.lengths() == {"de-en": 2}


async def test_a_job_waits_once_with_the_rank_it_came_with(backend: Backend) -> None:
    store = backend.queues()
    await put(store, "s:1", limit=2)
    await put(store, "s:2", priority=6, limit=2)
    assert await put(store, "s:1", priority=9, limit=2)
    assert await store.lengths() == {"de-en": 2}
    assert await drain(store, "de-en") == ["s:2", "s:1"]


async def test_a_job_that_waits_again_keeps_its_age(backend: Backend) -> None:
    store = backend.queues()
    await put(store, "s:1", age_ms=2)
    await store.pull(["de-en"])
    await put(store, "s:2", age_ms=1)
    await put(store, "s:1", age_ms=2)
    assert await drain(store, "de-en") == ["s:1", "s:2"]


async def test_a_job_leaves_its_queue_once(backend: Backend) -> None:
    store = backend.queues()
    await put(store, "s:1")
    await put(store, "s:2")
    assert await store.leave("de-en", job_id="s:1")
    assert not await store.leave("de-en", job_id="s:1")
    assert await store.lengths() == {"de-en": 1}
    assert await drain(store, "de-en") == ["s:2"]


async def test_leaving_another_queue_changes_nothing(backend: Backend) -> None:
    store = backend.queues()
    await put(store, "s:1", queue="de-en")
    assert not await store.leave("fr-en", job_id="s:1")
    assert await store.lengths() == {"de-en": 1}


async def test_an_empty_queue_has_no_length(backend: Backend) -> None:
    store = backend.queues()
    assert await store.lengths() == {}
    await put(store, "s:1", queue="de-en")
    await put(store, "s:2", queue="fr-en")
    assert await store.lengths() == {"de-en": 1, "fr-en": 1}
    await store.pull(["de-en"])
    await store.leave("fr-en", job_id="s:2")
    assert await store.lengths() == {}


async def test_nothing_waits_after_the_data_is_gone(backend: Backend) -> None:
    store = backend.queues()
    await put(store, "s:1")
    await backend.lose_everything()
    assert await store.lengths() == {}
    assert await store.pull(["de-en"]) is None
