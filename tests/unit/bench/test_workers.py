"""Workers, and what they measure, on real processes and sockets."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.speed.payload import Incoming, decode, job_result, utterance
from bench.stage import ROOT, EmptyServer
from bench.workers import WorkerFailed, worker


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[EmptyServer]:
    server = EmptyServer("empty", os.environ | {"PYTHONPATH": str(ROOT)}, tmp_path)
    yield server
    server.kill()


async def test_a_worker_answers_what_it_is_asked() -> None:
    async with worker("bench.speed.decision") as decider:
        assert len(await decider.ask("decide", nodes=10, count=7)) == 7
        assert len(await decider.ask("decide", nodes=10, count=3)) == 3


async def test_a_worker_that_ends_instead_of_answering_is_an_error() -> None:
    async with worker("bench.speed.decision") as decider:
        with pytest.raises(WorkerFailed, match="ended in no_such_verb"):
            await decider.ask("no_such_verb")


@pytest.mark.parametrize("path", ["/consumer", "/bare"])
async def test_an_empty_application_sends_each_frame_back(empty: EmptyServer, path: str) -> None:
    async with worker("bench.speed.sockets") as sockets, asyncio.timeout(60):
        spent = await sockets.ask("echo", url=empty.url(path), count=20)
        rate = await sockets.ask("echo_rate", url=empty.url(path), sockets=3, seconds=0.2)
    assert len(spent) == 20
    assert min(spent) > 0
    assert rate > 0


def test_a_result_names_the_job_and_the_attempt_that_it_is_of() -> None:
    job = Incoming("job_assign", job_id="s:3", attempt_id=2, session_id="s", utterance_index=3)
    fields = msgspec.json.decode(job_result(job, "n"))
    assert (fields["job_id"], fields["attempt_id"], fields["node_id"]) == ("s:3", 2, "n")


def test_a_client_reads_only_what_it_needs_of_a_frame() -> None:
    frame = decode(utterance("s", 4))
    assert (frame.type, frame.session_id, frame.utterance_index) == ("utterance", "s", 4)
