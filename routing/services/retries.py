"""Trying again: when a node gives a job up, says no word of it, or a deadline passes.

The failed attempt is fenced off in the store before the next one begins, so its result, should it
still come, changes nothing. A node that gave a job up itself is not asked again; where no other
node does the pair, the job fails at once. Nodes that failed it otherwise come last.
"""

import asyncio

import structlog

from registry.domain.ids import split_job_id
from registry.domain.node import NodeStatus
from registry.services.membership import LocalNode, Membership
from routing.domain import wire
from routing.domain.job import TERMINAL, JobLimits, JobState
from routing.domain.outcome import Again, Exhausted, Fault, Stale, StoredJob, refused_by
from routing.services.assignment import Assignment, Unheard
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
        membership: Membership,
        *,
        limits: JobLimits,
        ack_timeout_ms: int,
    ) -> None:
        self._jobs = jobs
        self._slots = slots
        self._waiting = waiting
        self._assignment = assignment
        self._completion = completion
        self._placement = placement
        self._sessions = sessions
        self._deadlines = deadlines
        self._membership = membership
        self._limits = limits
        self._ack_timeout_ms = ack_timeout_ms
        self.retried = 0
        assignment.on_undelivered = self.try_again

    async def try_again(
        self, job_id: str, attempt: int, *, node_id: str, reason: str, timed_out: bool = False
    ) -> None:
        """End an attempt that failed: begin the next one, or fail the job when none is left."""
        await self._fail(
            job_id,
            attempt,
            node_id=node_id,
            reason=reason,
            max_attempts=self._limits.max_attempts,
            timed_out=timed_out,
        )

    async def refused(self, node: LocalNode, job_id: str, attempt: int, fault: Fault) -> None:
        """A node of ours gave an attempt up: tried on a node that has not done so, if there is one.

        Of what the node does not hold, by its number, nothing is changed.
        """
        node_id = node.snapshot.node_id
        job = await persist(lambda: self._jobs.get(job_id), what="refused job")
        if job is None or (job.attempt, job.node_id) != (attempt, node_id):
            log.info("news of a job ignored", job_id=job_id, attempt=attempt, why="refused late")
            await self._let_go(node_id, job_id, attempt)
            return
        hopeless = not fault.retryable or not self._others(job, node_id)
        await self._fail(
            job_id,
            attempt,
            node_id=node_id,
            reason=f"the node said {fault.code}: {fault.message}"[:1000],
            max_attempts=attempt if hopeless else self._limits.max_attempts,
            fault=fault,
            hopeless=hopeless,
        )
        await self._membership.record_outcome(node, succeeded=False)

    def named(self, node_id: str, details: wire.FaultDetails) -> tuple[str, int] | None:
        """The job and attempt that a node's error is about; None when it is about the node.

        The job it names, if the node holds it; without a name, the only one that it holds.
        """
        held = self._assignment.held_by(node_id)
        if details.job_id is None and len(held) == 1:
            job_id, only = next(iter(held.items()))
            return job_id, only.attempt
        if details.job_id is None or details.job_id not in held:
            return None
        return details.job_id, details.attempt_id or held[details.job_id].attempt

    async def unheard(self) -> None:
        """Give up the attempts that their nodes did not acknowledge in time."""
        await asyncio.gather(*map(self._unheard, self._assignment.unheard()))

    async def _unheard(self, unheard: Unheard) -> None:
        node_id, job_id, attempt = unheard.node_id, unheard.job_id, unheard.attempt
        reason = f"the node did not acknowledge it in {self._ack_timeout_ms} ms"
        node = self._membership.local(node_id)
        if node is not None:
            node.link.send(wire.job_cancel(job_id, reason=reason))
        await self.try_again(job_id, attempt, node_id=node_id, reason=reason)
        if node is not None:
            await self._membership.record_outcome(node, succeeded=False)

    async def watch_session(self, session_id: str) -> list[StoredJob]:
        """A session came to this process: its unfinished jobs are watched here from now on."""
        found = await asyncio.gather(
            *map(self._jobs.get, await self._sessions.open_jobs(session_id))
        )
        jobs = [job for job in found if job is not None and job.state not in TERMINAL]
        for job in jobs:
            self._watch(job)
            self._deadlines.add(
                job.job_id, attempt=job.attempt, within_ms=job.remaining_ms, last=True
            )
        return jobs

    async def place(self, job: StoredJob) -> None:
        """Give a job's next attempt to a node, else let it wait."""
        failed_on = frozenset(str(entry["node"]) for entry in job.history)
        refused = refused_by(job.history)
        plan = self._placement.plan_for(job.brief, avoid=failed_on)
        nodes = plan.nodes.without(refused) if plan is not None else None
        if not nodes or not await self._assignment.place(job, nodes):
            await self._waiting.put_back(job)
            await self._waiting.offer()

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
        await self._completion.tell_node(
            job.node_id, job.job_id, job.attempt, reason=reason, failed=True
        )
        await self.try_again(
            job.job_id, job.attempt, node_id=job.node_id, reason=reason, timed_out=True
        )
        now = await self._jobs.get(job.job_id)
        if now is not None and now.state not in TERMINAL:
            self._watch(now)

    async def _fail(
        self,
        job_id: str,
        attempt: int,
        *,
        node_id: str,
        reason: str,
        max_attempts: int,
        timed_out: bool = False,
        fault: Fault | None = None,
        hopeless: bool = False,
    ) -> None:
        outcome, _ = await asyncio.gather(
            persist(
                lambda: self._jobs.fail_attempt(
                    job_id,
                    attempt=attempt,
                    max_attempts=max_attempts,
                    reason=reason,
                    node_id=node_id,
                    fault=fault,
                ),
                what="fail attempt",
            ),
            self._let_go(node_id, job_id, attempt),
        )
        if not isinstance(outcome, Stale):
            self._placement.note_failure(node_id)
        if isinstance(outcome, Exhausted):
            await self._completion.give_up(
                job_id,
                timed_out=timed_out,
                history=outcome.history,
                fault=fault if hopeless else None,
            )
        elif isinstance(outcome, Again):
            self.retried += 1
            log.info("job tried again", job_id=job_id, attempt=outcome.attempt, reason=reason)
            await self._begin_next(job_id)

    async def _begin_next(self, job_id: str) -> None:
        job = await persist(lambda: self._jobs.get(job_id), what="next attempt")
        if job is None or job.state in TERMINAL:
            return
        if not job.remaining_ms:
            await self._completion.time_out(
                job_id, reason="its deadline passed", history=job.history
            )
            return
        await persist(lambda: self.place(job), what="place again")

    async def _let_go(self, node_id: str, job_id: str, attempt: int) -> None:
        if self._assignment.holds(node_id, job_id, attempt):
            self._assignment.forget(node_id, job_id)
        await persist(
            lambda: self._slots.release(node_id, job_id=job_id, attempt=attempt), what="release"
        )

    def _others(self, job: StoredJob, node_id: str) -> bool:
        """Whether a node is up that does the pair and has not given this job up itself."""
        refused = refused_by(job.history) | {node_id}
        return any(
            view.snapshot.node_id not in refused
            and view.snapshot.status in (NodeStatus.READY, NodeStatus.DEGRADED)
            and self._placement.accepts(view.snapshot.node_id, job.brief)
            for view in self._membership.views
        )

    def _watch(self, job: StoredJob) -> None:
        queued = job.state == JobState.QUEUED
        limit_ms = self._limits.queue_timeout_ms if queued else self._limits.timeout_ms
        self._deadlines.add(job.job_id, attempt=job.attempt, within_ms=limit_ms, queued=queued)
