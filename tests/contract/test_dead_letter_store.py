"""The contract of `DeadLetterStore`: one letter a job, in bounds, found from anywhere."""

import asyncio
from dataclasses import replace

from routing.domain.letters import (
    DeadLetter,
    FailedAttempt,
    LetterKind,
    Position,
    ReplayNote,
    job_letter_id,
)
from routing.services.ports import DeadLetterStore
from tests.contract.backends import SHORT_MS, Backend

HISTORY = [
    FailedAttempt(1, "n1", "the node left"),
    FailedAttempt(2, "n2", "the node failed", {"code": "OOM", "message": "no memory"}),
]
PAYLOAD = b'\x00\xff{"audio":"UklGRg=="}'


def letter(job_id: str = "s-1:0") -> DeadLetter:
    return DeadLetter(
        id=job_letter_id(job_id, accepted_ms=7),
        kind=LetterKind.JOB,
        code="NODE_FAILED",
        reason="2 attempts failed",
        job_id=job_id,
        session_id="s-1",
        tenant="acme",
        src="zh",
        tgt="en",
        priority=5,
        trace_id="t",
        accepted_ms=7,
        history=HISTORY,
        payload_bytes=len(PAYLOAD),
    )


async def bury(store: DeadLetterStore, *job_ids: str) -> None:
    for job_id in job_ids:
        assert (await store.bury(letter(job_id), payload=PAYLOAD)).fresh


async def jobs_of(store: DeadLetterStore, instance_id: str = "one") -> list[str]:
    found = await store.read(instance_id, before="", count=1_000)
    return [kept.job_id for _, kept in found]


async def test_a_letter_is_kept_whole_with_its_payload_bytes(backend: Backend) -> None:
    one = backend.letters("one")
    await bury(one, "s-1:0")
    found = await backend.letters("two").get(letter().id)
    assert found is not None
    kept, payload = found
    assert payload == PAYLOAD
    assert kept.buried_at_ms > 1_700_000_000_000
    assert replace(kept, buried_at_ms=0) == replace(letter(), instance_id="one")


async def test_each_instances_letters_are_counted(backend: Backend) -> None:
    one, two = backend.letters("one"), backend.letters("two")
    await bury(one, "s-1:0", "s-1:1")
    await bury(two, "s-2:0")
    assert [await two.count(name) for name in ("one", "two", "three")] == [2, 1, 0]
    await two.drop(letter("s-1:1").id)
    assert await two.count("one") == 1


async def test_burying_one_job_twice_is_one_letter(backend: Backend) -> None:
    one = backend.letters("one")
    await bury(one, "s-1:0")
    again = await one.bury(replace(letter(), reason="other"), payload=b"other")
    assert (again.fresh, again.held) == (False, 1)
    found = await one.get(letter().id)
    assert found is not None
    assert (found[0].reason, found[1]) == ("2 attempts failed", PAYLOAD)


async def test_burying_one_job_at_two_instances_is_one_letter(backend: Backend) -> None:
    one, two = backend.letters("one"), backend.letters("two")
    await bury(one, "s-1:0")
    again = await two.bury(letter(), payload=PAYLOAD)
    assert (again.fresh, again.held) == (False, 0)
    assert await jobs_of(two, "two") == []


async def test_two_who_bury_one_job_at_once_leave_nothing_after_it_is_dropped(
    backend: Backend,
) -> None:
    one, two = backend.letters("one"), backend.letters("two")
    await asyncio.gather(*(store.bury(letter(), payload=PAYLOAD) for store in (one, two, one, two)))
    assert await one.drop(letter().id)
    assert await one.get(letter().id) is None
    assert await jobs_of(one, "one") == await jobs_of(one, "two") == []


async def test_a_used_index_makes_another_letter(backend: Backend) -> None:
    one = backend.letters("one")
    await bury(one, "s-1:0")
    later = replace(letter(), id=job_letter_id("s-1:0", accepted_ms=8), accepted_ms=8)
    assert (await one.bury(later, payload=b"later")).held == 2


async def test_letters_are_read_newest_first_and_on_from_where_one_was(backend: Backend) -> None:
    one = backend.letters("one")
    await bury(one, *(f"s-1:{number}" for number in range(5)))
    first = await one.read("one", before="", count=2)
    assert [kept.job_id for _, kept in first] == ["s-1:4", "s-1:3"]
    place = first[-1][0]
    rest = await one.read("one", before=place.before("one"), count=10)
    assert [kept.job_id for _, kept in rest] == ["s-1:2", "s-1:1", "s-1:0"]
    assert Position.parse(place.cursor) == place


async def test_letters_of_one_moment_in_other_streams_are_on_one_side_of_a_place(
    backend: Backend,
) -> None:
    one = backend.letters("one")
    await bury(one, "s-1:0")
    [(place, _)] = await one.read("one", before="", count=1)
    # Seen from a letter of the same moment: an instance of a lower name comes after it.
    lower, higher = place._replace(instance_id="none"), place._replace(instance_id="zero")
    assert await one.read("one", before=lower.before("one"), count=1) == []
    assert len(await one.read("one", before=higher.before("one"), count=1)) == 1


async def test_who_has_letters_is_known_to_all(backend: Backend) -> None:
    one, two = backend.letters("one"), backend.letters("two")
    assert await one.instances() == []
    await bury(one, "s-1:0")
    await bury(two, "s-1:1")
    assert await backend.letters("three").instances() == ["one", "two"]


async def test_an_instance_that_is_forgotten_is_named_again_when_it_buries(
    backend: Backend,
) -> None:
    one = backend.letters("one")
    await bury(one, "s-1:0")
    assert await one.drop(letter().id)
    assert (await one.trim("one")).held == 0
    await one.forget("one")
    assert await one.instances() == []
    await bury(one, "s-1:0")
    assert await one.instances() == ["one"]
    assert await jobs_of(one) == ["s-1:0"]


async def test_dropping_twice_finds_nothing_the_second_time(backend: Backend) -> None:
    one, two = backend.letters("one"), backend.letters("two")
    await bury(one, "s-1:0", "s-1:1")
    assert await two.drop(letter().id)
    assert not await two.drop(letter().id)
    assert await one.get(letter().id) is None
    assert await jobs_of(one) == ["s-1:1"]


async def test_the_oldest_make_way_with_their_payloads(backend: Backend) -> None:
    one = backend.letters("one", limit=3)
    await bury(one, "s-1:0", "s-1:1", "s-1:2")
    burial = await one.bury(letter("s-1:3"), payload=PAYLOAD)
    assert (burial.fresh, burial.held, burial.dropped) == (True, 3, 1)
    assert await jobs_of(one) == ["s-1:3", "s-1:2", "s-1:1"]
    assert await one.get(letter("s-1:0").id) is None
    # It is gone for good: buried again, it is a new letter.
    assert (await one.bury(letter("s-1:0"), payload=PAYLOAD)).fresh


async def test_a_lower_limit_takes_hold_at_once(backend: Backend) -> None:
    many = [f"s-1:{number}" for number in range(250)]
    await bury(backend.letters("one", limit=1_000), *many)
    trimmed = await backend.letters("one", limit=10).trim("one")
    assert (trimmed.held, trimmed.dropped) == (10, 240)


async def test_a_letter_goes_when_its_time_is_over(backend: Backend) -> None:
    two = backend.letters("two", keep_ms=SHORT_MS)
    await bury(backend.letters("one"), "s-1:0", "s-1:1")
    assert (await two.trim("one")).held == 2
    await backend.elapse(SHORT_MS + 1)
    trimmed = await two.trim("one")
    assert (trimmed.held, trimmed.dropped) == (0, 2)
    assert await two.get(letter().id) is None


async def test_what_is_not_there_can_be_asked_for(backend: Backend) -> None:
    one = backend.letters("one")
    assert await one.get("job~s-9:9~1") is None
    assert not await one.drop("job~s-9:9~1")
    assert await one.read("nobody", before="", count=10) == []
    assert (await one.trim("nobody")).held == 0


async def test_a_replays_note_lasts_as_long_as_its_session(backend: Backend) -> None:
    one, note = backend.letters("one"), ReplayNote(letter().id, HISTORY)
    assert await one.replay_note("replay-1") is None
    await one.note_replay("replay-1", note)
    assert await backend.letters("two").replay_note("replay-1") == note
    await backend.elapse(SHORT_MS + 1)
    assert await one.replay_note("replay-1") is None
