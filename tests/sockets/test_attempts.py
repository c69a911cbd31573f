"""What a node's failures, and its silence, do to its jobs and to itself, over a real daphne."""

import json
from typing import Any

import pytest

from tests.sockets.test_node_frames import serves, speaking
from tests.support.agents import Frame, Node, translating
from tests.support.cluster import Instance
from tests.support.waiting import eventually

FAULT = {"code": "OOM", "message": "out of memory"}


def acknowledgement(job: Frame, node_id: str, kind: str = "job_ack") -> Frame:
    names = ("job_id", "attempt_id", "session_id", "trace_id")
    return {"type": kind, "node_id": node_id, **{name: job[name] for name in names}}


def error(node_id: str, **details: Any) -> Frame:
    frame = {"type": "node_error", "node_id": node_id, **FAULT}
    return frame | ({"details": details} if details else {})


def history(instance: Instance, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(instance.get(f"/api/v1/jobs/{job_id}")[1])["history"]
    return found


async def test_a_failed_result_is_tried_on_another_node_and_kept_in_the_history(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as failing, speaking(instance, pair) as said:
        await serves(instance, pair)
        await said.say(0)
        job = await failing.expect("job_assign")
        async with Node(instance.node_url, f"{node_id}b", pair) as other:
            await serves(instance, pair, 2)
            await failing.finish(job, success=False, error=FAULT)
            again = await other.expect("job_assign", job_id=job["job_id"], attempt_id=2)
            # The first attempt is over: neither its result nor its failure counts any more.
            await failing.finish(job, text_translated="late")
            await failing.finish(job, success=False, error=FAULT)
            await other.finish(again)
            assert (await said.translated(0))["text_translated"] == "translated"
            assert len(said.terminals) == 1
            (entry,) = history(instance, job["job_id"])
            assert (entry["node_id"], entry["code"], entry["message"]) == (
                node_id,
                "OOM",
                "out of memory",
            )


async def test_a_node_that_gave_a_job_up_does_not_get_it_again_though_it_alone_has_room(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with (
        Node(instance.node_url, node_id, pair, slots=1) as failing,
        speaking(instance, pair) as said,
    ):
        await serves(instance, pair)
        await said.say(0)
        refused = await failing.expect("job_assign")
        async with Node(instance.node_url, f"{node_id}b", pair, slots=1) as busy:
            await serves(instance, pair, 2)
            await said.say(1)
            work = await busy.expect("job_assign")
            await failing.finish(refused, success=False, error=FAULT)
            # It does get another one, behind the one that it refused.
            await said.say(2)
            await failing.finish(await failing.expect("job_assign", utterance_index=2))
            await said.translated(2)
            assert len(failing.jobs) == 2
            await busy.finish(work)
            await busy.finish(await busy.expect("job_assign", utterance_index=0, attempt_id=2))
            await said.translated(0)


async def test_where_every_node_gave_it_up_the_job_fails_with_what_the_last_one_said(
    instance: Instance, node_id: str, pair: str
) -> None:
    def failing(name: str) -> Any:
        return lambda job: [
            {
                **acknowledgement(job, name, "job_result"),
                "utterance_index": 0,
                "success": False,
                "error": FAULT,
            }
        ]

    ids = (node_id, f"{node_id}b")
    async with (
        Node(instance.node_url, ids[0], pair, answer=failing(ids[0])) as one,
        Node(instance.node_url, ids[1], pair, answer=failing(ids[1])) as two,
        speaking(instance, pair) as said,
    ):
        await serves(instance, pair, 2)
        await said.say(0)
        terminal = await said.terminal(0)
        assert (terminal["code"], terminal["message"]) == ("NODE_FAILED", "out of memory")
        assert terminal["details"]["code"] == "OOM"
        assert {entry["node"] for entry in terminal["details"]["attempts"]} == set(ids)
        assert len(one.jobs) == len(two.jobs) == 1


async def test_a_fault_that_is_not_retryable_ends_the_job_at_once(
    instance: Instance, node_id: str, pair: str
) -> None:
    hopeless = FAULT | {"details": {"retryable": False}}
    async with (
        Node(instance.node_url, node_id, pair) as one,
        Node(instance.node_url, f"{node_id}b", pair) as two,
        speaking(instance, pair) as said,
    ):
        await serves(instance, pair, 2)
        await said.say(0)
        await eventually(lambda: one.jobs or two.jobs)
        holder = one if one.jobs else two
        await holder.finish(holder.jobs[0], success=False, error=hopeless)
        assert (await said.terminal(0))["code"] == "NODE_FAILED"
        assert len(one.jobs) + len(two.jobs) == 1


@pytest.mark.parametrize("names", ["job and attempt", "job", "nothing"])
async def test_a_node_error_that_names_a_job_ends_its_attempt(
    instance: Instance, node_id: str, pair: str, names: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as failing, speaking(instance, pair) as said:
        await serves(instance, pair)
        await said.say(0)
        job = await failing.expect("job_assign")
        details = {
            "job and attempt": {"job_id": job["job_id"], "attempt_id": 1},
            "job": {"job_id": job["job_id"]},
            "nothing": {},
        }[names]
        async with Node(
            instance.node_url, f"{node_id}b", pair, answer=translating(f"{node_id}b")
        ) as other:
            await serves(instance, pair, 2)
            await failing.send(error(node_id, **details))
            await said.translated(0)
            assert [job["attempt_id"] for job in other.jobs] == [2]


async def test_a_node_error_of_a_job_that_it_does_not_hold_or_of_none_ends_none(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as node, speaking(instance, pair) as said:
        await serves(instance, pair)
        for index in range(2):
            await said.say(index)
            await node.expect("job_assign", utterance_index=index)
        await node.send(error(node_id, job_id="never:0"))
        await node.send(error(node_id))
        await node.send(error(node_id, job_id=node.jobs[0]["job_id"], attempt_id=7))
        await node.send({**error(node_id), "details": "no object"})
        # It counts against the node all the same.
        await eventually(
            lambda: '"degraded"' in instance.get(f"/api/v1/nodes/{node_id}")[1],
            what="the node to be degraded",
        )
        for job in node.jobs:
            await node.finish(job)
        for index in range(2):
            await said.translated(index)
        assert len(node.jobs) == 2


async def test_a_node_that_acknowledges_is_held_to_it(
    instance: Instance, node_id: str, pair: str
) -> None:
    async with Node(instance.node_url, node_id, pair) as node, speaking(instance, pair) as said:
        await serves(instance, pair)
        await said.say(0)
        # Not yet known to acknowledge: it may take its time.
        first = await node.expect("job_assign")
        await node.send(acknowledgement(first, node_id))
        await said.say(1)
        second = await node.expect("job_assign", utterance_index=1)
        await node.send(acknowledgement(second, node_id, "job_started"))
        await said.say(2)
        lost = await node.expect("job_assign", utterance_index=2)
        async with Node(
            instance.node_url, f"{node_id}b", pair, answer=translating(f"{node_id}b")
        ) as other:
            await node.expect("job_cancel", job_id=lost["job_id"])
            await said.translated(2)
            assert "acknowledge" in history(instance, lost["job_id"])[0]["reason"]
            for job in (first, second):
                await node.finish(job)
            for index in range(2):
                await said.translated(index)
            assert {job["job_id"] for job in other.jobs} <= {lost["job_id"]}


async def test_a_node_that_never_acknowledges_is_held_to_nothing(
    instance: Instance, node_id: str, pair: str
) -> None:
    watcher_id = f"{node_id}w"
    async with (
        Node(instance.node_url, node_id, pair) as node,
        Node(instance.node_url, watcher_id, f"x{pair}") as watcher,
        speaking(instance, pair) as said,
        speaking(instance, f"x{pair}") as other,
    ):
        await serves(instance, pair)
        await serves(instance, f"x{pair}")
        await said.say(0)
        job = await node.expect("job_assign")
        # A later attempt of a node that does acknowledge times out: so the time is over.
        await other.say(0)
        await watcher.send(acknowledgement(await watcher.expect("job_assign"), watcher_id))
        await other.say(1)
        await watcher.expect("job_assign", utterance_index=1)
        await watcher.expect("job_cancel")
        await node.finish(job)
        await said.translated(0)
        assert [frame["type"] for frame in node.frames if frame["type"] == "job_cancel"] == []
