"""The words and figures of the parts of pages about work: tasks, queues and dead letters.

Not promised: one moment for all parts. Each is as fresh as its source.
"""

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, urlencode

from registry.domain.errors import InvalidIdentifier
from routing.domain.job import TERMINAL, JobState
from routing.domain.letters import LetterFilter, LetterKind, replay_job_id
from routing.ops_wiring import Ops
from routing.services.deadlines import Minded
from routing.services.overview import JobDetail
from routing.services.reasons import because

Drawn = dict[str, dict[str, Any]]

LIVE_SHOWN = 30
LIVE_LOOKED_AT = 150
ENDED_SHOWN = 50
LETTERS_SHOWN = 50
FILTERS = ("tenant", "code", "src", "tgt")
STATES = tuple(state.value for state in JobState)


async def tasks(ops: Ops, state: str) -> Drawn:
    """The cluster's counts, and the tasks of this instance: all, or those of a state."""
    samples = ops.pulse.history.samples
    return {
        "tasks": {
            "running": sum(f.running for f in ops.pulse.latest),
            "unfinished": sum(f.unfinished for f in ops.pulse.latest),
            "queued": ops.queues.total,
            "sample": samples[-1] if samples else None,
        },
        "live": await _live(ops, state),
        "ended": _ended(ops, state),
        "shares": {"instances": [f for f in ops.pulse.latest if f.serves]},
    }


async def _live(ops: Ops, state: str) -> dict[str, Any]:
    """The longest first. Where each stands is asked of the store, without what it carries."""
    minded = ops.routing.deadlines.longest(LIVE_LOOKED_AT if state else LIVE_SHOWN)
    rows = await asyncio.gather(*(_live_row(ops, each) for each in minded))
    shown = [row for row in rows if row is not None and state in ("", row["state"])]
    return {
        "rows": shown[:LIVE_SHOWN],
        "total": len(ops.routing.deadlines),
        "instance_id": ops.routing.instance_id,
        "state": state,
        "looked_at": len(minded),
    }


async def _live_row(ops: Ops, minded: Minded) -> dict[str, Any] | None:
    try:
        found = await ops.routing.jobs.glance(minded.job_id)
    except InvalidIdentifier:
        return None
    if found is None or found.state in TERMINAL:
        return None  # it ended a moment ago
    return {
        "id": minded.job_id,
        "state": found.state,
        "attempt": found.attempt,
        "node": found.node_id if found.state != JobState.QUEUED else "",
        "for_ms": minded.for_ms,
    }


def _ended(ops: Ops, state: str) -> dict[str, Any]:
    lately = ops.routing.lately
    fitting = (each for each in lately if state in ("", each.state))
    return {
        "rows": list(islice(fitting, ENDED_SHOWN)),
        "kept": len(lately),
        "instance_id": ops.routing.instance_id,
        "state": state,
    }


async def task(ops: Ops, job_id: str) -> Drawn:
    job = await ops.routing.overview.job(job_id)
    if job is None:
        return {"task": {"id": job_id, "job": None}}
    waits = job.state == JobState.QUEUED
    why = ops.boards.why(job.src_lang, job.tgt_lang, labels=job.labels) if waits else None
    return {
        "task": {
            "id": job_id,
            "job": job,
            "final": job.state in TERMINAL,
            "steps": steps(job),
            "why": why,
        }
    }


def steps(job: JobDetail) -> list[dict[str, Any]]:
    """The timeline of a job: what happened, in order, with the reason of each choice."""
    found: list[dict[str, Any]] = [
        {"what": "Accepted", "at_ms": job.accepted_at_ms, "tone": "done"},
    ]
    failed = {past.attempt: past for past in job.history}
    decided = {each.attempt: each for each in job.decisions}
    current = {job.attempt} if job.node_id else set()
    for attempt in sorted(failed.keys() | decided.keys() | current):
        past, why = failed.get(attempt), decided.get(attempt)
        if past is None and why is not None and why.node is None:
            continue  # it was to wait: that is the last step, or it ended so
        found.append(
            {
                "what": f"Attempt {attempt}" + (" failed" if past else ""),
                "node": past.node_id if past else job.node_id,
                "reason": past.reason if past else "",
                "code": past.code if past else None,
                "placed": why,
                "because": because(why) if why is not None else "",
                "tone": "failed" if past else job.state,
            }
        )
    if job.state in TERMINAL:
        what = f"Ended as {job.state}"
        found.append({"what": what, "reason": f"message {job.seq}", "tone": job.state})
    elif job.state == JobState.QUEUED:
        found.append({"what": "Waits for a slot", "tone": "queued"})
    return found


async def queues(ops: Ops, _: str) -> Drawn:
    flows = await ops.queues.flows()
    return {
        "queues": {"queues": ops.queues.queues()},
        "flows": {
            "flows": flows,
            "more": ops.queues.flow_count - len(flows),
            "tenants": ops.queues.tenants(),
        },
    }


def letter_topic(chosen: Mapping[str, str]) -> str:
    """The topic of a page of letters, by what was chosen: filters, and where it begins."""
    filled = {name: value for name, value in chosen.items() if value}
    return f"letters:{urlencode(filled)}" if filled else "letters"


async def letters(ops: Ops, subject: str) -> Drawn:
    """A page of dead letters, of a topic that `letter_topic` named."""
    chosen = dict(parse_qsl(subject))
    cursor = chosen.pop("cursor", "")
    wanted = LetterFilter(**{name: chosen.get(name, "") for name in FILTERS})
    on, problem, items, following = ops.routing.letters, "", [], None
    try:
        page = await on.page(wanted, cursor=cursor, limit=LETTERS_SHOWN)
        items, following = page.items, page.next
    except ValueError as error:
        problem = f"There is no such page: {error}."
    return {
        "letters": {
            "letters": items,
            "total": await on.total(),
            "filtered": wanted != LetterFilter(),
            "problem": problem,
            "first": urlencode(chosen) if cursor else None,
            "next": urlencode(chosen | {"cursor": following}) if following else "",
        }
    }


async def letter(ops: Ops, letter_id: str) -> Drawn:
    found = await ops.routing.letters.get(letter_id)
    replayed = None
    if found is None or found.kind is LetterKind.JOB:
        replayed = await ops.routing.overview.job(replay_job_id(letter_id))
    return {"letter": {"id": letter_id, "letter": found, "replayed": replayed}}
