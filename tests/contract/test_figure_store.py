"""The contract of `FigureStore`: what each process posts, all see, until it is old."""

from routing.domain.alerts import Alert, Severity
from routing.domain.figures import ClusterFigures, Figures
from tests.contract.backends import LONG_MS, SHORT_MS, Backend

ALERT = Alert("no leader", "cluster", Severity.CRITICAL, "Nobody leads.", "Look.", 5)


async def test_everyone_gets_everyones_figures_by_id(backend: Backend) -> None:
    store = backend.figures()
    two = Figures("two", finished_per_s=1.5)
    assert await store.post(two) == [two]
    one = Figures("one", leading_epoch=3, cluster=ClusterFigures({"zh>en": 4}, (ALERT,), 2))
    assert await store.post(one) == [one, two]


async def test_of_one_process_the_last_figures_count(backend: Backend) -> None:
    store = backend.figures()
    await store.post(Figures("one", nodes=1))
    assert await store.post(Figures("one", nodes=2)) == [Figures("one", nodes=2)]


async def test_figures_that_are_not_renewed_are_gone(backend: Backend) -> None:
    await backend.figures(life_ms=SHORT_MS).post(Figures("gone"))
    await backend.elapse(SHORT_MS + 1)
    assert await backend.figures(life_ms=SHORT_MS).post(Figures("one")) == [Figures("one")]


async def test_one_that_goes_is_forgotten_though_others_post_on(backend: Backend) -> None:
    long = backend.figures(life_ms=LONG_MS)
    await long.post(Figures("gone"))
    await backend.elapse(SHORT_MS + 1)
    assert await backend.figures(life_ms=SHORT_MS).post(Figures("one")) == [Figures("one")]
