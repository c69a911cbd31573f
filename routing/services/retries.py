"""Trying again: when a node leaves, does not answer, or a deadline passes.

The failed attempt is fenced off in the store before the next one begins, so its result, should it
still come, changes nothing.
"""

import asyncio

import structlog

from registry.domain.ids import split_job_id
from registry.services.membership import LocalNode
from routing.domain.job import TERMINAL, JobLimits, JobState
from routing.domain.outcome import Again, Exhausted, Stale, StoredJob
from routing.services.assignment import Assignment
from routing.services.completion import Completion
from routing.services.deadlines import Deadlines, Watched
from routing.services.persist import persist
from routing.services.placement import Placement
from routing.services.ports import JobStore
from routing.services.sessions import Sessions
from routing.services.slots import Slots
from routing.services.waiting import Waiting

log = structlog.get_logger(__name__)


class Retries:
    """Brings jobs further whose attempt came to nothing."""

    def __init__(
        self,
        jobs: JobStore,
        slots: Slots,
        waiting: Waiting,
        assignment: Assignment,
        completion: Completion,
        placement: Placement,
        sessions: Sessions,
        deadlines: Deadlines,
        *,
        limits: JobLimits,
    ) -> None:
        self._jobs = jobs
        self._slots = slots
        self._waiting = waiting
        self._assignment = assignment
        self._completion = completion
        self._placement = placement
        self._sessions = sessions
        self._deadlines = deadlines
        self._limits = limits
        self.retried = 0
        assignment.on_undelivered = self.try_again

    async def try_again(
        self, job_id: str, attempt: int, *, node_id: str, reason: str, timed_out: bool = False
    ) -> None:
        """End an attempt that failed: begin the next one, or fail the job when none is left."""
        self._assignment.forget(node_id, job_id)
        outcome, _ = await asyncio.gather(
            persist(
                lambda: self._jobs.fail_attempt(
                    job_id, attempt=attempt, max_attempts=self._limits.max_attempts, reason=reason
                ),
                what="fail attempt",
            ),
            persist(
                lambda: self._slots.release(node_id, job_id=job_id, attempt=attempt),
                what="release",
            ),
        )
        if not isinstance(outcome, Stale):
            self._placement.note_failure(node_id)
        if isinstance(outcome, Exhausted):
            await self._completion.give_up(job_id, timed_out=timed_out, history=outcome.history)
        elif isinstance(outcome, Again):
            self.retried += 1
            log.info("job tried again", job_id=job_id, attempt=outcome.attempt, reason=reason)
            job = await self._jobs.get(job_id)
            if job is not None:
                await self._place(job)

    async def node_joined(self, node: LocalNode, running: set[tuple[str, int]]) -> None:
        """A node (re)connected: try again what it was given and no longer works on; fill it."""
        node_id = node.snapshot.node_id
        for job_id, attempt in await self._slots.held(node_id):
            if (job_id, attempt) in running:
                self._assignment.adopt(node_id, job_id, attempt)
            else:
                await self.try_again(
                    job_id, attempt, node_id=node_id, reason="the node came back without the job"
                )
        await self._waiting.fill(node)

    async def node_left(self, node_id: str) -> None:
        """A node's connection is gone: try again elsewhere what it was given."""
        held = await persist(lambda: self._slots.held(node_id), what="held slots")
        await asyncio.gather(
            *(
                self.try_again(job_id, attempt, node_id=node_id, reason="the node left")
                for job_id, attempt in held
            )
        )

    async def watch_session(self, session_id: str) -> None:
        """A session came to this process: its unfinished jobs are watched here from now on."""
        for job_id in await self._sessions.open_jobs(session_id):
            job = await self._jobs.get(job_id)
            if job is not None and job.state not in TERMINAL:
                self._watch(job)
                self._deadlines.add(
                    job_id, attempt=job.attempt, within_ms=job.remaining_ms, last=True
                )

    async def turn(self) -> None:
        """Act on the deadlines that passed. Raises StoreUnavailable; nothing is forgotten then."""
        due = self._deadlines.due()
        outcomes = await asyncio.gather(*map(self.expire, due), return_exceptions=True)
        failures: list[BaseException] = []
        for watched, outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                failures.append(outcome)
                self._deadlines.add(
                    watched.job_id,
                    attempt=watched.attempt,
                    within_ms=0,
                    queued=watched.queued,
                    last=watched.last,
                )
        if failures:
            raise failures[0]

    async def expire(self, watched: Watched) -> None:
        """A deadline of a job passed: look at what became of it, and act."""
        job = await self._jobs.get(watched.job_id)
        if job is None:
            self._deadlines.forget(watched.job_id)
            await self._completion.lost(watched.job_id)
        elif job.state in TERMINAL:
            # It ended, and word of it may have been lost on the way here.
            self._deadlines.forget(job.job_id)
            session_id = split_job_id(job.job_id)[0]
            await self._sessions.deliver(session_id, seq=job.seq or 0, body=b"")
        elif watched.last:
            await self._completion.time_out(
                job.job_id, reason="its deadline passed", history=job.history
            )
        elif (max(watched.attempt, 1), watched.queued) == (
            max(job.attempt, 1),  # One that waits for its first may have been given and taken back.
            job.state == JobState.QUEUED,
        ):
            await self._attempt_over(job)
        else:
            self._watch(job)

    async def _attempt_over(self, job: StoredJob) -> None:
        if job.state == JobState.QUEUED:
            reason = f"no slot became free in {self._limits.queue_timeout_ms} ms"
            await self._completion.time_out(job.job_id, reason=reason, history=job.history)
            return
        reason = f"the node did not answer in {self._limits.timeout_ms} ms"
        await self._completion.tell_node(job.node_id, job.job_id, job.attempt, reason=reason)
        await self.try_again(
            job.job_id, job.attempt, node_id=job.node_id, reason=reason, timed_out=True
        )
        now = await self._jobs.get(job.job_id)
        if now is not None and now.state not in TERMINAL:
            self._watch(now)

    async def _place(self, job: StoredJob) -> None:
        failed_on = frozenset(str(entry["node"]) for entry in job.history)
        plan = self._placement.plan_for(job.brief, avoid=failed_on)
        if plan is None or not await self._assignment.place(job, plan.nodes):
            await self._waiting.put_back(job)
            await self._waiting.look_again(job.job_id)

    def _watch(self, job: StoredJob) -> None:
        queued = job.state == JobState.QUEUED
        limit_ms = self._limits.queue_timeout_ms if queued else self._limits.timeout_ms
        self._deadlines.add(job.job_id, attempt=job.attempt, within_ms=limit_ms, queued=queued)
