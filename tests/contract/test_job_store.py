"""The contract of `JobStore`: a job is accepted once, tried under one attempt, and ends once."""

import pytest

from registry.domain.errors import InvalidIdentifier
from routing.domain.job import TERMINAL, JobState
from routing.domain.outcome import (
    Accepted,
    Again,
    Brief,
    Duplicate,
    Exhausted,
    Fault,
    Finished,
    Glance,
    SessionClosed,
    Stale,
    StoredJob,
    TooManyOpen,
    refused_by,
)
from routing.services.ports import JobStore
from tests.contract.backends import OPEN_LIMIT, SHORT_MS, Backend

JOB = "s:1"
BRIEF = Brief(src="de", tgt="en", priority=5, tenant="t", trace_id="tr", queue="de-en")
PAYLOAD = '{"text":"Grüße"}'.encode()
LIFE_MS = 5_000


@pytest.fixture
async def jobs(backend: Backend) -> JobStore:
    """A job store, beside a session `s` on instance `one`."""
    await backend.sessions().open("s", instance_id="one", token_hash="h", init=b"{}")
    return backend.jobs()


async def accept(store: JobStore, job_id: str = JOB, *, attempt: int = 1) -> object:
    return await store.accept(
        job_id,
        attempt=attempt,
        node_id="n" if attempt else "",
        brief=BRIEF,
        payload=PAYLOAD,
        life_ms=LIFE_MS,
    )


async def finish(
    store: JobStore, *, attempt: int = 0, node_id: str = "", state: str = JobState.SUCCEEDED
) -> Finished | Stale:
    return await store.finish(JOB, attempt=attempt, node_id=node_id, state=state, body=b"end")


async def fail(
    store: JobStore, *, attempt: int, max_attempts: int = 3
) -> Again | Exhausted | Stale:
    return await store.fail_attempt(
        JOB, attempt=attempt, max_attempts=max_attempts, reason='said "no" / ä'
    )


async def stored(store: JobStore, job_id: str = JOB) -> StoredJob:
    job = await store.get(job_id)
    assert job is not None
    return job


class TestAccepting:
    async def test_an_accepted_job_is_stored_as_assigned(self, jobs: JobStore) -> None:
        accepted = await accept(jobs)
        assert isinstance(accepted, Accepted)
        assert accepted.deadline_ms == accepted.accepted_ms + LIFE_MS
        job = await stored(jobs)
        assert 0 < job.remaining_ms <= LIFE_MS
        assert job == StoredJob(
            job_id=JOB,
            state="assigned",
            attempt=1,
            node_id="n",
            deadline_ms=accepted.deadline_ms,
            remaining_ms=job.remaining_ms,
            accepted_ms=accepted.accepted_ms,
            brief=BRIEF,
            payload=PAYLOAD,
            history=[],
            seq=None,
        )

    async def test_attempt_zero_is_stored_as_queued(self, jobs: JobStore) -> None:
        assert isinstance(await accept(jobs, attempt=0), Accepted)
        job = await stored(jobs)
        assert (job.state, job.attempt, job.node_id) == ("queued", 0, "")

    async def test_who_sends_it_again_hears_what_became_of_it(self, jobs: JobStore) -> None:
        await accept(jobs)
        assert await accept(jobs, attempt=0) == Duplicate("assigned")
        await jobs.start(JOB, attempt=1)
        assert await accept(jobs) == Duplicate("running")
        await finish(jobs)
        assert await accept(jobs) == Duplicate("succeeded")

    async def test_why_it_was_given_to_its_node_is_kept_for_each_assignment(
        self, jobs: JobStore
    ) -> None:
        await jobs.accept(
            JOB,
            attempt=1,
            node_id="n",
            brief=BRIEF,
            payload=PAYLOAD,
            life_ms=LIFE_MS,
            decision='{"node":"n","why":"frei ü"}'.encode(),
        )
        assert await jobs.assign(JOB, expected=1, attempt=1, node_id="m", decision=b'{"node":"m"}')
        assert await jobs.assign(JOB, expected=1, attempt=1, node_id="k")
        assert not await jobs.assign(
            JOB, expected=7, attempt=8, node_id="x", decision=b'{"node":"x"}'
        )
        assert (await stored(jobs)).decisions == [{"node": "n", "why": "frei ü"}, {"node": "m"}]
        await finish(jobs)
        assert len((await stored(jobs)).decisions) == 2

    async def test_the_first_decision_of_a_job_that_waited_is_that_of_its_assignment(
        self, jobs: JobStore
    ) -> None:
        await accept(jobs, attempt=0)
        assert (await stored(jobs)).decisions == []
        await jobs.assign(JOB, expected=0, attempt=1, node_id="m", decision=b'{"node":"m"}')
        assert (await stored(jobs)).decisions == [{"node": "m"}]

    async def test_an_unknown_session_takes_no_job(self, backend: Backend) -> None:
        assert await accept(backend.jobs()) == SessionClosed()

    async def test_a_closed_session_takes_no_job(self, backend: Backend, jobs: JobStore) -> None:
        await accept(jobs)
        await backend.sessions().close("s")
        assert await accept(jobs) == SessionClosed()
        assert await accept(jobs, "s:2") == SessionClosed()

    async def test_a_session_has_a_limit_of_unfinished_jobs(self, jobs: JobStore) -> None:
        for index in range(1, OPEN_LIMIT + 1):
            await accept(jobs, f"s:{index}")
        assert await accept(jobs, "s:9") == TooManyOpen()
        assert await accept(jobs, JOB) == Duplicate("assigned")
        await finish(jobs)
        assert isinstance(await accept(jobs, "s:9"), Accepted)

    async def test_a_job_that_was_never_accepted_is_not_there(self, jobs: JobStore) -> None:
        assert await jobs.get(JOB) is None

    async def test_what_names_no_session_is_no_job(self, jobs: JobStore) -> None:
        with pytest.raises(InvalidIdentifier):
            await accept(jobs, "s")


class TestWithdrawing:
    async def test_a_withdrawn_job_was_never_there(self, backend: Backend, jobs: JobStore) -> None:
        await accept(jobs)
        assert await jobs.withdraw(JOB, attempt=1)
        assert await jobs.get(JOB) is None
        assert await backend.sessions().open_jobs("s") == []
        assert isinstance(await accept(jobs), Accepted)

    async def test_a_queued_job_can_be_withdrawn(self, jobs: JobStore) -> None:
        await accept(jobs, attempt=0)
        assert await jobs.withdraw(JOB, attempt=0)

    async def test_a_job_that_got_further_stays(self, jobs: JobStore) -> None:
        await accept(jobs)
        assert not await jobs.withdraw(JOB, attempt=2)
        await jobs.start(JOB, attempt=1)
        assert not await jobs.withdraw(JOB, attempt=1)
        await finish(jobs)
        assert not await jobs.withdraw(JOB, attempt=1)

    async def test_a_job_is_withdrawn_once(self, jobs: JobStore) -> None:
        await accept(jobs)
        await jobs.withdraw(JOB, attempt=1)
        assert not await jobs.withdraw(JOB, attempt=1)


class TestClaiming:
    async def test_a_queued_job_is_claimed_and_read(self, jobs: JobStore) -> None:
        await accept(jobs, attempt=0)
        claimed = await jobs.claim(JOB, attempt=1, node_id="m", decision=b"{}")
        assert claimed == await stored(jobs)
        assert (claimed.state, claimed.attempt, claimed.node_id) == ("assigned", 1, "m")
        assert claimed.payload == PAYLOAD

    async def test_of_two_that_claim_the_second_gets_nothing(self, jobs: JobStore) -> None:
        await accept(jobs, attempt=0)
        await jobs.claim(JOB, attempt=1, node_id="m")
        assert await jobs.claim(JOB, attempt=1, node_id="k") is None
        assert (await stored(jobs)).node_id == "m"

    async def test_a_claim_for_an_older_attempt_gets_nothing(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1)
        assert await jobs.claim(JOB, attempt=1, node_id="m") is None
        claimed = await jobs.claim(JOB, attempt=2, node_id="m")
        assert claimed is not None
        assert [entry["node"] for entry in claimed.history] == ["n"]

    async def test_what_is_assigned_ended_or_unknown_cannot_be_claimed(
        self, jobs: JobStore
    ) -> None:
        assert await jobs.claim(JOB, attempt=1, node_id="m") is None
        await accept(jobs)
        assert await jobs.claim(JOB, attempt=1, node_id="m") is None
        await finish(jobs)
        assert await jobs.claim(JOB, attempt=1, node_id="m") is None

    async def test_a_claim_can_be_taken_back(self, jobs: JobStore) -> None:
        await accept(jobs, attempt=0)
        await jobs.claim(JOB, attempt=1, node_id="m")
        assert await jobs.queue(JOB, attempt=1)
        assert await jobs.claim(JOB, attempt=1, node_id="k") is not None


class TestAssigning:
    async def test_a_queued_job_is_given_to_a_node(self, jobs: JobStore) -> None:
        await accept(jobs, attempt=0)
        assert await jobs.assign(JOB, expected=0, attempt=1, node_id="m")
        job = await stored(jobs)
        assert (job.state, job.attempt, job.node_id) == ("assigned", 1, "m")

    async def test_of_two_that_assign_the_second_loses(self, jobs: JobStore) -> None:
        await accept(jobs, attempt=0)
        assert await jobs.assign(JOB, expected=0, attempt=1, node_id="m")
        assert not await jobs.assign(JOB, expected=0, attempt=1, node_id="k")
        assert (await stored(jobs)).node_id == "m"

    async def test_a_running_attempt_is_replaced_by_the_next(self, jobs: JobStore) -> None:
        await accept(jobs)
        await jobs.start(JOB, attempt=1)
        assert await jobs.assign(JOB, expected=1, attempt=2, node_id="m")
        job = await stored(jobs)
        assert (job.state, job.attempt, job.node_id) == ("assigned", 2, "m")

    @pytest.mark.parametrize("state", sorted(TERMINAL))
    async def test_a_job_that_ended_takes_no_step(self, jobs: JobStore, state: str) -> None:
        await accept(jobs)
        await finish(jobs, state=state)
        ended = await stored(jobs)
        assert not await jobs.assign(JOB, expected=1, attempt=2, node_id="m")
        assert not await jobs.queue(JOB, attempt=1)
        await jobs.start(JOB, attempt=1)
        assert await fail(jobs, attempt=1) == Stale("ended")
        assert await stored(jobs) == ended
        assert ended.state == state

    async def test_a_job_that_is_unknown_takes_no_step(self, jobs: JobStore) -> None:
        assert not await jobs.assign(JOB, expected=1, attempt=2, node_id="m")
        assert not await jobs.queue(JOB, attempt=1)
        await jobs.start(JOB, attempt=1)
        assert await fail(jobs, attempt=1) == Stale("unknown")
        assert await finish(jobs) == Stale("unknown")
        assert await jobs.get(JOB) is None

    async def test_an_attempt_goes_back_to_the_queue(self, jobs: JobStore) -> None:
        await accept(jobs)
        assert await jobs.queue(JOB, attempt=1)
        job = await stored(jobs)
        assert (job.state, job.attempt, job.node_id) == ("queued", 1, "")

    async def test_an_older_attempt_cannot_queue_the_job(self, jobs: JobStore) -> None:
        await accept(jobs)
        await jobs.assign(JOB, expected=1, attempt=2, node_id="m")
        assert not await jobs.queue(JOB, attempt=1)
        assert (await stored(jobs)).state == "assigned"

    async def test_an_older_attempt_does_not_start(self, jobs: JobStore) -> None:
        await accept(jobs)
        await jobs.assign(JOB, expected=1, attempt=2, node_id="m")
        await jobs.start(JOB, attempt=1)
        assert (await stored(jobs)).state == "assigned"
        await jobs.start(JOB, attempt=2)
        assert (await stored(jobs)).state == "running"

    async def test_a_queued_job_does_not_start(self, jobs: JobStore) -> None:
        await accept(jobs)
        await jobs.queue(JOB, attempt=1)
        await jobs.start(JOB, attempt=1)
        assert (await stored(jobs)).state == "queued"


class TestFailing:
    async def test_a_failed_attempt_makes_way_for_the_next(self, jobs: JobStore) -> None:
        await accept(jobs)
        assert await fail(jobs, attempt=1) == Again(2)
        job = await stored(jobs)
        assert (job.state, job.attempt, job.node_id) == ("queued", 2, "")
        assert job.history == [{"attempt": 1, "node": "n", "reason": 'said "no" / ä'}]

    async def test_an_attempt_fails_once(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1)
        assert await fail(jobs, attempt=1) == Stale("stale")
        job = await stored(jobs)
        assert (job.attempt, len(job.history)) == (2, 1)

    async def test_the_last_attempts_failure_leaves_none(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1, max_attempts=2)
        await jobs.assign(JOB, expected=2, attempt=2, node_id="m")
        outcome = await fail(jobs, attempt=2, max_attempts=2)
        assert isinstance(outcome, Exhausted)
        assert [(e["attempt"], e["node"]) for e in outcome.history] == [(1, "n"), (2, "m")]
        job = await stored(jobs)
        assert (job.state, job.attempt, job.history) == ("assigned", 2, outcome.history)

    async def test_the_last_attempt_that_fails_again_is_told_once(self, jobs: JobStore) -> None:
        await accept(jobs)
        first = await fail(jobs, attempt=1, max_attempts=1)
        assert await fail(jobs, attempt=1, max_attempts=1) == first
        assert len((await stored(jobs)).history) == 1

    async def test_a_nodes_own_words_are_kept(self, jobs: JobStore) -> None:
        await accept(jobs)
        fault = Fault("OOM", 'no "room", ä')
        assert await jobs.fail_attempt(
            JOB, attempt=1, max_attempts=3, reason="r", node_id="n", fault=fault
        ) == Again(2)
        (entry,) = (await stored(jobs)).history
        assert entry == {
            "attempt": 1, "node": "n", "reason": "r", "code": "OOM", "message": 'no "room", ä',
        }  # fmt: skip
        assert refused_by([entry]) == {"n"}

    async def test_another_nodes_failure_changes_nothing(self, jobs: JobStore) -> None:
        await accept(jobs)
        before = await stored(jobs)
        assert await jobs.fail_attempt(
            JOB, attempt=1, max_attempts=3, reason="r", node_id="m"
        ) == Stale("stale")
        assert await stored(jobs) == before


class TestTakingBack:
    """A node that was given up comes back, and works on its attempt still."""

    async def test_an_attempt_that_nobody_followed_is_current_again(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1)
        assert await jobs.take_back(JOB, attempt=1, node_id="n")
        job = await stored(jobs)
        assert (job.state, job.attempt, job.node_id, job.history) == ("running", 1, "n", [])
        assert await finish(jobs, attempt=1, node_id="n") == Finished(1, "one", 1, "n")

    async def test_one_that_was_followed_is_not(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1)
        await jobs.assign(JOB, expected=2, attempt=2, node_id="m")
        before = await stored(jobs)
        assert not await jobs.take_back(JOB, attempt=1, node_id="n")
        assert await stored(jobs) == before

    async def test_whoever_would_give_the_next_attempt_comes_too_late(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1)
        await jobs.take_back(JOB, attempt=1, node_id="n")
        assert not await jobs.assign(JOB, expected=2, attempt=2, node_id="m")

    async def test_one_that_was_current_all_the_time_stays_so(self, jobs: JobStore) -> None:
        await accept(jobs)
        before = await stored(jobs)
        assert await jobs.take_back(JOB, attempt=1, node_id="n")
        assert await stored(jobs) == before

    async def test_it_fails_later_like_any_other(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1)
        await jobs.assign(JOB, expected=2, attempt=2, node_id="m")
        await fail(jobs, attempt=2)
        await jobs.take_back(JOB, attempt=2, node_id="m")
        assert await fail(jobs, attempt=2) == Again(3)
        assert [entry["node"] for entry in (await stored(jobs)).history] == ["n", "m"]

    async def test_the_first_too(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1)
        await jobs.take_back(JOB, attempt=1, node_id="n")
        assert await fail(jobs, attempt=1) == Again(2)
        assert [entry["attempt"] for entry in (await stored(jobs)).history] == [1]

    async def test_not_by_another_node_nor_what_the_node_gave_up(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1)
        assert not await jobs.take_back(JOB, attempt=1, node_id="m")
        await jobs.assign(JOB, expected=2, attempt=2, node_id="m")
        await jobs.fail_attempt(
            JOB, attempt=2, max_attempts=3, reason="r", node_id="m", fault=Fault("OOM", "")
        )
        assert not await jobs.take_back(JOB, attempt=2, node_id="m")

    async def test_what_ended_or_never_was_is_not_taken_back(self, jobs: JobStore) -> None:
        assert not await jobs.take_back(JOB, attempt=1, node_id="n")
        await accept(jobs)
        await finish(jobs)
        assert not await jobs.take_back(JOB, attempt=1, node_id="n")


class TestFinishing:
    async def test_a_job_ends_as_its_sessions_next_message(
        self, backend: Backend, jobs: JobStore
    ) -> None:
        await accept(jobs)
        assert await finish(jobs, attempt=1, node_id="n") == Finished(1, "one", 1, "n")
        job = await stored(jobs)
        assert (job.state, job.seq, job.payload) == ("succeeded", 1, None)
        sessions = backend.sessions()
        assert await sessions.outbox("s", after=0) == [(1, b"end")]
        assert await sessions.open_jobs("s") == []

    async def test_a_job_ends_once(self, backend: Backend, jobs: JobStore) -> None:
        await accept(jobs)
        await finish(jobs, attempt=1, node_id="n")
        again = Stale("ended", seq=1, instance_id="one")
        assert await finish(jobs, attempt=1, node_id="n") == again
        assert await finish(jobs, state=JobState.EXPIRED) == again
        assert len(await backend.sessions().outbox("s", after=0)) == 1
        assert (await stored(jobs)).state == "succeeded"

    async def test_a_job_that_ended_names_who_holds_its_session_now(
        self, backend: Backend, jobs: JobStore
    ) -> None:
        await accept(jobs)
        await finish(jobs)
        await backend.sessions().resume("s", instance_id="two", token_hash="h")
        assert await finish(jobs) == Stale("ended", seq=1, instance_id="two")

    async def test_an_older_attempts_result_changes_nothing(
        self, backend: Backend, jobs: JobStore
    ) -> None:
        await accept(jobs)
        await jobs.assign(JOB, expected=1, attempt=2, node_id="n")
        before = await stored(jobs)
        assert await finish(jobs, attempt=1, node_id="n") == Stale("stale")
        assert await stored(jobs) == before
        assert await backend.sessions().outbox("s", after=0) == []
        assert await finish(jobs, attempt=2, node_id="n") == Finished(1, "one", 2, "n")

    async def test_another_nodes_result_changes_nothing(self, jobs: JobStore) -> None:
        await accept(jobs)
        assert await finish(jobs, attempt=1, node_id="m") == Stale("stale")
        assert (await stored(jobs)).state == "assigned"

    async def test_the_scheduler_may_end_whichever_attempt_is_current(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1)
        assert await finish(jobs, state=JobState.CANCELLED) == Finished(1, "one", 2, "")

    async def test_the_scheduler_may_end_one_attempt_only(self, jobs: JobStore) -> None:
        await accept(jobs)
        await fail(jobs, attempt=1)
        assert await finish(jobs, attempt=1, state=JobState.FAILED) == Stale("stale")
        assert await finish(jobs, attempt=2, state=JobState.FAILED) == Finished(1, "one", 2, "")

    async def test_jobs_of_a_closed_session_still_end(
        self, backend: Backend, jobs: JobStore
    ) -> None:
        await accept(jobs)
        await backend.sessions().close("s")
        assert await finish(jobs) == Finished(1, "one", 1, "n")

    async def test_messages_are_numbered_in_the_order_jobs_end(
        self, backend: Backend, jobs: JobStore
    ) -> None:
        for index in (1, 2, 3):
            await accept(jobs, f"s:{index}")
        for index in (3, 1, 2):
            await jobs.finish(
                f"s:{index}", attempt=0, node_id="", state=JobState.FAILED, body=b"%d" % index
            )
        found = await backend.sessions().outbox("s", after=0)
        assert found == [(1, b"3"), (2, b"1"), (3, b"2")]


class TestForgetting:
    async def test_a_job_is_kept_for_its_retention(self, backend: Backend, jobs: JobStore) -> None:
        short = backend.jobs(retention_ms=SHORT_MS)
        await accept(short)

        async def forgotten() -> bool:
            return await jobs.get(JOB) is None

        await backend.outlast(SHORT_MS, forgotten)
        assert await finish(jobs) == Stale("unknown")

    async def test_its_end_starts_a_jobs_retention_anew(
        self, backend: Backend, jobs: JobStore
    ) -> None:
        await accept(backend.jobs(retention_ms=SHORT_MS))
        await finish(jobs)
        await backend.elapse(SHORT_MS)
        assert (await stored(jobs)).state == "succeeded"
        assert await backend.sessions().outbox("s", after=0) == [(1, b"end")]

    async def test_other_steps_do_not(self, backend: Backend, jobs: JobStore) -> None:
        await accept(backend.jobs(retention_ms=SHORT_MS))
        await jobs.start(JOB, attempt=1)
        await fail(jobs, attempt=1)
        await jobs.assign(JOB, expected=2, attempt=2, node_id="m")

        async def forgotten() -> bool:
            return await jobs.get(JOB) is None

        await backend.outlast(SHORT_MS, forgotten)

    async def test_a_session_is_unknown_after_the_data_is_gone(
        self, backend: Backend, jobs: JobStore
    ) -> None:
        await accept(jobs)
        await backend.lose_everything()
        assert await accept(jobs) == SessionClosed()
        assert await finish(jobs) == Stale("unknown")


async def test_a_glance_says_where_a_job_stands(jobs: JobStore) -> None:
    assert await jobs.glance(JOB) is None
    await accept(jobs)
    assert await jobs.glance(JOB) == Glance(JobState.ASSIGNED, 1, "n")
    await jobs.start(JOB, attempt=1)
    assert await jobs.glance(JOB) == Glance(JobState.RUNNING, 1, "n")
    await finish(jobs)
    assert await jobs.glance(JOB) == Glance(JobState.SUCCEEDED, 1, "n")
    await accept(jobs, "s:2", attempt=0)
    assert await jobs.glance("s:2") == Glance(JobState.QUEUED, 0, "")
