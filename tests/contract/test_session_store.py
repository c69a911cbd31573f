"""The contract of `SessionStore`: who holds a session, and what its client has yet to get."""

import msgspec
import pytest

from routing.domain.outcome import (
    Brief,
    JournalEntry,
    Resumed,
    ResumeRefused,
    Stale,
    StoredSession,
)
from routing.services.ports import SessionStore
from tests.contract.backends import SHORT_MS, Backend, RedisBackend

INIT = b'{"src":"de"}'
BRIEF = Brief(src="de", tgt="en", priority=5, tenant="t", trace_id="tr", queue="de-en")
UNKNOWN = ResumeRefused(forbidden=False)
FORBIDDEN = ResumeRefused(forbidden=True)


async def open_session(store: SessionStore, *, instance_id: str = "one") -> bool:
    return await store.open("s", instance_id=instance_id, token_hash="h", init=INIT)


async def resume(
    store: SessionStore, *, instance_id: str = "two", token_hash: str = "h"
) -> Resumed | ResumeRefused:
    return await store.resume("s", instance_id=instance_id, token_hash=token_hash)


async def accept(backend: Backend, index: int, *, life_ms: int = 1_000) -> None:
    await backend.jobs().accept(
        f"s:{index}", attempt=1, node_id="n", brief=BRIEF, payload=b"{}", life_ms=life_ms
    )


async def finish(backend: Backend, index: int) -> None:
    """End a job of the session with its index as the message."""
    await accept(backend, index)
    await backend.jobs().finish(
        f"s:{index}", attempt=0, node_id="", state="failed", body=b"%d" % index
    )


@pytest.fixture
async def sessions(backend: Backend) -> SessionStore:
    """A session store with a session `s` on instance `one`."""
    store = backend.sessions()
    assert await open_session(store)
    return store


async def test_a_session_is_opened_once(sessions: SessionStore) -> None:
    assert not await open_session(sessions, instance_id="two")
    assert await resume(sessions) == Resumed(2, 0, "one", INIT)


async def test_each_resume_moves_the_session_under_a_higher_epoch(sessions: SessionStore) -> None:
    assert await resume(sessions, instance_id="two") == Resumed(2, 0, "one", INIT)
    assert await resume(sessions, instance_id="three") == Resumed(3, 0, "two", INIT)


async def test_a_resume_tells_the_last_seq(backend: Backend, sessions: SessionStore) -> None:
    await finish(backend, 1)
    await finish(backend, 2)
    assert await resume(sessions) == Resumed(2, 2, "one", INIT, top=2)


async def test_a_wrong_token_resumes_nothing(sessions: SessionStore) -> None:
    assert await resume(sessions, token_hash="other") == FORBIDDEN
    assert await resume(sessions) == Resumed(2, 0, "one", INIT)


async def test_an_unknown_session_cannot_be_resumed(backend: Backend) -> None:
    assert await resume(backend.sessions()) == UNKNOWN


async def test_a_closed_session_cannot_be_resumed(sessions: SessionStore) -> None:
    await sessions.close("s")
    assert await resume(sessions) == UNKNOWN
    assert await resume(sessions, token_hash="other") == UNKNOWN


async def test_a_closed_session_cannot_be_opened_again(sessions: SessionStore) -> None:
    await sessions.close("s")
    assert not await open_session(sessions)


async def test_a_session_can_be_looked_at_without_its_secrets(
    backend: Backend, sessions: SessionStore
) -> None:
    assert await sessions.get("s") == StoredSession("s", "one", 1, 0, closed=False, open_jobs=[])
    await accept(backend, 2, life_ms=3_000)
    await accept(backend, 3, life_ms=1_000)
    await finish(backend, 1)
    await resume(sessions, instance_id="two")
    assert await sessions.get("s") == StoredSession(
        "s", "two", 2, 1, closed=False, open_jobs=["s:3", "s:2"]
    )
    await sessions.close("s")
    found = await sessions.get("s")
    assert found is not None
    assert found.closed
    assert await sessions.get("unknown") is None


async def test_unfinished_jobs_come_by_deadline(backend: Backend, sessions: SessionStore) -> None:
    await accept(backend, 1, life_ms=3_000)
    await accept(backend, 2, life_ms=1_000)
    await accept(backend, 3, life_ms=2_000)
    assert await sessions.open_jobs("s") == ["s:2", "s:3", "s:1"]


async def test_closing_names_what_is_unfinished(backend: Backend, sessions: SessionStore) -> None:
    await accept(backend, 1)
    await finish(backend, 2)
    assert await sessions.close("s") == ["s:1"]
    assert await sessions.close("s") == ["s:1"]


async def test_an_unknown_session_is_empty(backend: Backend) -> None:
    store = backend.sessions()
    assert await store.close("s") == []
    assert await store.open_jobs("s") == []
    assert await store.outbox("s", after=0) == []
    await store.touch("s")
    await store.trim("s", upto=1)
    assert await resume(store) == UNKNOWN


async def test_the_outbox_gives_what_comes_after(backend: Backend, sessions: SessionStore) -> None:
    for index in (1, 2, 3):
        await finish(backend, index)
    assert await sessions.outbox("s", after=0) == [(1, b"1"), (2, b"2"), (3, b"3")]
    assert await sessions.outbox("s", after=2) == [(3, b"3")]
    assert await sessions.outbox("s", after=3) == []


async def test_what_was_trimmed_does_not_come_again(
    backend: Backend, sessions: SessionStore
) -> None:
    for index in (1, 2, 3):
        await finish(backend, index)
    await sessions.trim("s", upto=2)
    await sessions.trim("s", upto=1)
    assert await sessions.outbox("s", after=0) == [(3, b"3")]


async def test_numbers_go_on_after_everything_was_trimmed(
    backend: Backend, sessions: SessionStore
) -> None:
    await finish(backend, 1)
    await sessions.trim("s", upto=1)
    await finish(backend, 2)
    assert await sessions.outbox("s", after=0) == [(2, b"2")]


async def test_trimming_ahead_of_the_numbers_loses_nothing_later(
    backend: Backend, sessions: SessionStore
) -> None:
    await sessions.trim("s", upto=9)
    await finish(backend, 1)
    assert await sessions.outbox("s", after=0) == [(1, b"1")]


class TestForgetting:
    async def test_a_session_is_kept_for_its_retention(self, backend: Backend) -> None:
        short = backend.sessions(retention_ms=SHORT_MS)
        await open_session(short)

        async def forgotten() -> bool:
            # A wrong token changes nothing: it only asks whether the session is there.
            return await resume(short, token_hash="other") == UNKNOWN

        await backend.outlast(SHORT_MS, forgotten)
        assert await open_session(short)

    async def test_a_touched_session_lives_on(self, backend: Backend) -> None:
        await open_session(backend.sessions(retention_ms=SHORT_MS))
        await backend.jobs(retention_ms=SHORT_MS).accept(
            "s:1", attempt=1, node_id="n", brief=BRIEF, payload=b"{}", life_ms=1_000
        )
        sessions = backend.sessions()
        await sessions.touch("s")
        await backend.elapse(SHORT_MS)
        assert await sessions.open_jobs("s") == ["s:1"]
        assert isinstance(await resume(sessions), Resumed)

    async def test_a_resumed_session_keeps_what_its_client_has_yet_to_get(
        self, backend: Backend
    ) -> None:
        # Only the session itself lived on at first, not its outbox.
        await open_session(backend.sessions(retention_ms=SHORT_MS))
        short = backend.jobs(retention_ms=SHORT_MS)
        for index in (1, 2):
            await short.accept(
                f"s:{index}", attempt=1, node_id="n", brief=BRIEF, payload=b"{}", life_ms=1_000
            )
        await short.finish("s:1", attempt=0, node_id="", state="failed", body=b"1")
        sessions = backend.sessions()
        assert isinstance(await resume(sessions), Resumed)
        await backend.elapse(SHORT_MS)
        assert await sessions.outbox("s", after=0) == [(1, b"1")]
        assert await sessions.open_jobs("s") == ["s:2"]

    async def test_a_refused_resume_prolongs_nothing(self, redis_backend: RedisBackend) -> None:
        await open_session(redis_backend.sessions(retention_ms=SHORT_MS))
        await resume(redis_backend.sessions(), token_hash="other")
        key = redis_backend.keys.session_meta("s")
        assert await redis_backend.connection.call("PTTL", key) <= SHORT_MS


class TestMinding:
    async def test_who_minds_a_session_is_known_until_he_stops(
        self, sessions: SessionStore
    ) -> None:
        await sessions.watch("s-2", instance_id="a")
        await sessions.watch("s-1", instance_id="a")
        await sessions.watch("s-1", instance_id="b")
        assert await sessions.watched("a") == ["s-1", "s-2"]
        await sessions.unwatch("s-1", instance_id="a")
        assert await sessions.watched("a") == ["s-2"]
        assert await sessions.watched("b") == ["s-1"]
        assert await sessions.watched("nobody") == []


class TestAfterDataLoss:
    async def test_a_lost_session_is_restored_where_its_client_stands(
        self, backend: Backend
    ) -> None:
        store = backend.sessions()
        assert await restore(store, seq=7)
        assert await resume(store) == Resumed(4, 7, "one", INIT)
        await finish(backend, 0)
        assert await store.outbox("s", after=7) == [(8, b"0")]

    async def test_a_known_session_stays_as_it_is(self, sessions: SessionStore) -> None:
        assert not await restore(sessions, seq=0)
        assert await resume(sessions) == Resumed(2, 0, "one", INIT)

    async def test_a_known_session_goes_on_behind_what_its_client_was_sent(
        self, backend: Backend, sessions: SessionStore
    ) -> None:
        assert not await restore(sessions, seq=7)
        await finish(backend, 0)
        assert await sessions.outbox("s", after=0) == [(8, b"0")]

    async def test_a_lost_job_ends_once_as_the_next_message(
        self, backend: Backend, sessions: SessionStore
    ) -> None:
        await finish(backend, 0)
        assert await backend.jobs().file("s:1", state="failed", brief=BRIEF, body=b"lost") == 2
        assert await backend.jobs().file("s:1", state="failed", brief=BRIEF, body=b"lost") is None
        assert await sessions.outbox("s", after=0) == [(1, b"0"), (2, b"lost")]
        job = await backend.jobs().get("s:1")
        assert job is not None
        assert (job.state, job.seq) == ("failed", 2)

    async def test_a_job_that_is_known_or_of_no_session_is_not_lost(
        self, backend: Backend, sessions: SessionStore
    ) -> None:
        await accept(backend, 0)
        assert await backend.jobs().file("s:0", state="failed", brief=BRIEF, body=b"lost") is None
        assert await backend.jobs().file("no:0", state="failed", brief=BRIEF, body=b"lost") is None


async def restore(store: SessionStore, *, seq: int) -> bool:
    return await store.restore("s", instance_id="one", token_hash="h", init=INIT, epoch=3, seq=seq)


class TestSettling:
    async def test_what_was_sent_without_the_store_keeps_its_places(
        self, backend: Backend, sessions: SessionStore
    ) -> None:
        await finish(backend, 0)
        await finish(backend, 1)  # as message 2, which its client has not seen
        assert await settle(sessions, 1, 7, 8) == 4
        assert await sessions.outbox("s", after=0) == [
            (1, b"0"),
            (2, b'"7"'),
            (3, b'"8"'),
            (4, b"1"),
        ]
        job = await backend.jobs().get("s:7")
        assert job is not None
        assert (job.state, job.seq) == ("succeeded", 2)
        await finish(backend, 9)
        assert await sessions.outbox("s", after=4) == [(5, b"9")]

    async def test_settling_again_after_a_lost_reply_changes_nothing(
        self, sessions: SessionStore
    ) -> None:
        assert await settle(sessions, 0, 7) == 1
        assert await settle(sessions, 0, 7) == 1
        assert await sessions.outbox("s", after=0) == [(1, b'"7"')]

    async def test_a_store_that_lost_the_last_messages_goes_on_behind_what_was_sent(
        self, sessions: SessionStore
    ) -> None:
        assert await settle(sessions, 5, 7) == 6
        assert await sessions.outbox("s", after=5) == [(6, b'"7"')]

    async def test_a_job_that_was_written_but_never_acknowledged_ends_with_it(
        self, backend: Backend, sessions: SessionStore
    ) -> None:
        await accept(backend, 7)
        assert await settle(sessions, 0, 7) == 1
        assert await sessions.open_jobs("s") == []
        stale = await backend.jobs().finish(
            "s:7", attempt=1, node_id="n", state="succeeded", body=b"late"
        )
        assert isinstance(stale, Stale)

    async def test_a_job_that_ended_in_the_store_too_ends_once(
        self, backend: Backend, sessions: SessionStore
    ) -> None:
        await finish(backend, 7)  # as message 1, which its client has not seen
        await finish(backend, 8)
        assert await settle(sessions, 0, 7) == 2
        assert await sessions.outbox("s", after=0) == [(1, b'"7"'), (2, b"8")]

    async def test_an_unknown_session_cannot_be_settled(self, backend: Backend) -> None:
        assert await settle(backend.sessions(), 0, 7) is None


async def settle(store: SessionStore, base: int, *indexes: int) -> int | None:
    brief = msgspec.json.encode(BRIEF).decode()
    entries = [JournalEntry(f"s:{i}", "succeeded", f'"{i}"', brief) for i in indexes]
    return await store.settle("s", base=base, entries=entries, token="journal")


async def test_a_session_whose_count_went_back_goes_on_behind_what_was_sent(
    backend: Backend, sessions: SessionStore
) -> None:
    await finish(backend, 0)
    await backend.jobs().accept(
        "s:1", attempt=0, node_id="", brief=BRIEF, payload=b"{}", life_ms=1_000, sent_seq=7
    )
    await finish(backend, 1)
    assert await sessions.outbox("s", after=7) == [(8, b"1")]
