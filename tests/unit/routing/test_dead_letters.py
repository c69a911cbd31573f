"""Dead letters over memory stores: what is buried when, and what becomes of it in a race."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from registry.domain.instance import InstanceReport
from registry.store.memory import MemoryInstanceStore, MemoryServer
from routing.domain.job import JobState
from routing.domain.letters import (
    DeadLetter,
    FailedAttempt,
    LetterFilter,
    LetterKind,
    ReplayNote,
    job_letter_id,
    replay_job_id,
    replay_session_id,
)
from routing.domain.operators import AlreadySo, NotFound, NotNow
from routing.domain.outcome import Accepted, Brief, Envelope, Finished
from routing.services.deadletters import DeadLetters
from routing.services.delivery import Delivery
from routing.services.replays import Replays
from routing.store.memory import (
    MemoryDeadLetterStore,
    MemoryInboxStore,
    MemoryJobStore,
    MemorySessionStore,
)

LONG_MS = 60_000
KEEP_MS = 1_000
JOB = "s-1:0"
PAYLOAD = b'{"audio":"UklGRg=="}'
BRIEF = Brief(src="zh", tgt="en", priority=5, tenant="acme", trace_id="t", queue="zh>en")
HISTORY: list[dict[str, Any]] = [
    {"attempt": 1, "node": "n1", "reason": "the node left"},
    {"attempt": 2, "node": "n2", "reason": "the node failed", "code": "OOM", "message": "m"},
]
ALL = LetterFilter()


class World:
    """A server whose time a test moves, and what instances share there."""

    def __init__(self) -> None:
        self.now_ms = 1_790_000_000_000
        self.server = MemoryServer(clock=lambda: self.now_ms)
        self.jobs = MemoryJobStore(
            self.server, retention_ms=LONG_MS, open_limit=100, outbox_limit=100
        )
        self.sessions = MemorySessionStore(self.server, retention_ms=LONG_MS)
        self.instances = MemoryInstanceStore(self.server, presence_ttl_ms=LONG_MS)

    def store(self, instance_id: str = "one", *, limit: int = 10) -> MemoryDeadLetterStore:
        return MemoryDeadLetterStore(
            self.server,
            instance_id=instance_id,
            limit=limit,
            keep_ms=KEEP_MS,
            retention_ms=LONG_MS,
        )

    def letters(
        self, instance_id: str = "one", *, limit: int = 10, leads: bool = False
    ) -> DeadLetters:
        return DeadLetters(
            self.store(instance_id, limit=limit),
            self.jobs,
            self.instances,
            instance_id=instance_id,
            leads=lambda: leads,
        )

    async def job(self, job_id: str = JOB) -> None:
        session_id = job_id.rpartition(":")[0]
        await self.sessions.open(session_id, instance_id="one", token_hash="-", init=b"{}")
        written = await self.jobs.accept(
            job_id, attempt=1, node_id="n1", brief=BRIEF, payload=PAYLOAD, life_ms=LONG_MS
        )
        assert isinstance(written, Accepted)

    def ending(self, state: JobState, job_id: str = JOB) -> Callable[[], Awaitable[bool]]:
        """Ends the job; False when it had ended before."""

        async def end() -> bool:
            outcome = await self.jobs.finish(job_id, attempt=0, node_id="", state=state, body=b"{}")
            return isinstance(outcome, Finished)

        return end


@pytest.fixture
def world() -> World:
    return World()


async def give_up(
    letters: DeadLetters,
    end: Callable[[], Awaitable[bool]],
    *,
    job_id: str = JOB,
    history: list[dict[str, Any]] = HISTORY,
) -> bool:
    return await letters.bury_and(
        end, job_id, code="NODE_FAILED", reason="2 attempts failed", history=history
    )


async def letters_of(letters: DeadLetters) -> list[DeadLetter]:
    return (await letters.page(ALL)).items


async def test_the_letter_is_there_before_the_job_has_ended(world: World) -> None:
    await world.job()
    letters = world.letters()
    seen: list[DeadLetter] = []

    async def end() -> bool:
        seen.extend(await letters_of(letters))
        return await world.ending(JobState.FAILED)()

    assert await give_up(letters, end)
    [letter] = seen
    assert await letters_of(letters) == [letter]
    assert (letter.kind, letter.job_id, letter.code) == (LetterKind.JOB, JOB, "NODE_FAILED")
    assert letter.history == [
        FailedAttempt(1, "n1", "the node left"),
        FailedAttempt(2, "n2", "the node failed", {"code": "OOM", "message": "m"}),
    ]
    assert letter.payload_bytes == len(PAYLOAD)
    assert (letters.held, letters.buried) == (1, 1)


async def test_a_result_that_came_first_takes_the_letter_away(world: World) -> None:
    await world.job()
    letters = world.letters()

    async def too_late() -> bool:
        assert await world.ending(JobState.SUCCEEDED)()
        return await world.ending(JobState.FAILED)()

    assert not await give_up(letters, too_late)
    assert await letters_of(letters) == []


async def test_a_job_that_ended_before_leaves_no_letter(world: World) -> None:
    await world.job()
    await world.ending(JobState.CANCELLED)()
    letters = world.letters()
    assert not await give_up(letters, world.ending(JobState.FAILED))
    assert await letters_of(letters) == []
    assert letters.buried == 0


async def test_two_who_give_one_job_up_at_once_leave_one_letter(world: World) -> None:
    await world.job()
    one, two = world.letters("one"), world.letters("two")

    async def second() -> bool:
        assert await give_up(two, world.ending(JobState.FAILED))
        return await world.ending(JobState.FAILED)()

    assert not await give_up(one, second)
    assert len(await letters_of(one)) == 1
    assert one.buried + two.buried == 1


async def test_who_dies_before_the_end_leaves_the_letter_that_the_next_one_finds(
    world: World,
) -> None:
    await world.job()

    async def die() -> bool:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await give_up(world.letters("one"), die)
    two = world.letters("two")
    assert await give_up(two, world.ending(JobState.FAILED))
    [letter] = await letters_of(two)
    assert (letter.instance_id, two.buried) == ("one", 0)


async def test_without_a_failed_attempt_there_is_no_letter(world: World) -> None:
    await world.job()
    letters = world.letters()
    assert await give_up(letters, world.ending(JobState.EXPIRED), history=[])
    assert await letters_of(letters) == []


async def test_the_letter_of_a_replay_has_the_history_before_it(world: World) -> None:
    earlier = [FailedAttempt(1, "n0", "long ago")]
    session_id = replay_session_id("job~s-0:0~1")
    await world.job(f"{session_id}:0")
    await world.store().note_replay(session_id, ReplayNote("job~s-0:0~1", earlier))
    letters = world.letters()
    await give_up(
        letters, world.ending(JobState.FAILED, f"{session_id}:0"), job_id=f"{session_id}:0"
    )
    [letter] = await letters_of(letters)
    assert letter.replay_of == "job~s-0:0~1"
    assert [one.node for one in letter.history] == ["n0", "n1", "n2"]


# Lists.


async def buried(world: World, *placed: tuple[str, str], tenant: str = "acme") -> None:
    """Letters of these instances with these names, each a millisecond after the one before."""
    for instance_id, name in placed:
        world.now_ms += 1
        letter = DeadLetter(
            id=name, kind=LetterKind.JOB, code="X", reason="", tenant=tenant, src="zh", tgt="en"
        )
        await world.store(instance_id, limit=1_000).bury(letter, payload=b"")


async def test_pages_go_through_the_letters_of_all_instances_newest_first(world: World) -> None:
    placed = [("abc"[number % 3], f"letter-{number}") for number in range(10)]
    await buried(world, *placed)
    letters, seen, cursor = world.letters(), [], ""
    while True:
        page = await letters.page(ALL, cursor=cursor, limit=3)
        seen += [letter.id for letter in page.items]
        if page.next is None:
            break
        cursor = page.next
        assert await letters.count(ALL, cursor=cursor) == 10 - len(seen)
    assert seen == [f"letter-{number}" for number in reversed(range(10))]


async def test_a_page_that_is_just_full_names_no_next_one(world: World) -> None:
    await buried(world, ("a", "x"), ("b", "y"))
    page = await world.letters().page(ALL, limit=2)
    assert (len(page.items), page.next) == (2, None)


async def test_letters_of_one_moment_are_listed_once_across_pages(world: World) -> None:
    for instance_id in "abc":
        await buried(world, (instance_id, f"of-{instance_id}"))
        world.now_ms -= 1
    letters, seen, cursor = world.letters(), [], ""
    for _ in range(3):
        page = await letters.page(ALL, cursor=cursor, limit=1)
        seen += [letter.id for letter in page.items]
        cursor = page.next or ""
    assert sorted(seen) == ["of-a", "of-b", "of-c"]
    assert cursor == ""


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (LetterFilter(tenant="acme"), 1),
        (LetterFilter(tenant="other"), 150),
        (LetterFilter(tenant="nobody"), 0),
        (LetterFilter(code="X"), 151),
        (LetterFilter(code="Y"), 0),
        (LetterFilter(src="zh", tgt="en"), 151),
        (LetterFilter(src="zh", tgt="fr"), 0),
    ],
)
async def test_only_what_fits_is_listed(world: World, wanted: LetterFilter, found: int) -> None:
    await buried(world, ("a", "first"))
    await buried(world, *(("a", f"n{number}") for number in range(150)), tenant="other")
    letters = world.letters()
    assert len((await letters.page(wanted, limit=500)).items) == found
    assert await letters.count(wanted) == found


@pytest.mark.parametrize("cursor", ["x", "1-2", "~", "a-b~one", "1-1~", "9" * 16 + "-1~one"])
async def test_a_cursor_that_is_none_is_refused(world: World, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await world.letters().page(ALL, cursor=cursor)


# Old letters.


async def test_each_lets_go_of_its_own_and_the_leader_of_what_the_dead_left(world: World) -> None:
    await buried(world, ("one", "mine"), ("dead", "left"), ("two", "theirs"))
    for name in ("one", "two"):
        await world.instances.report(InstanceReport(instance_id=name, started_at_ms=0))
    world.now_ms += KEEP_MS
    follower, leader = world.letters("one"), world.letters("one", leads=True)
    await follower.tidy()
    assert (follower.held, follower.dropped) == (0, 1)
    assert [letter.id for letter in await letters_of(follower)] == ["theirs", "left"]
    await leader.tidy()
    assert [letter.id for letter in await letters_of(leader)] == ["theirs"]
    assert await world.store().instances() == ["one", "two"]


async def test_what_made_way_is_counted(world: World) -> None:
    letters = world.letters(limit=2)
    for number in range(5):
        await world.job(f"s-1:{number}")
        await give_up(
            letters, world.ending(JobState.FAILED, f"s-1:{number}"), job_id=f"s-1:{number}"
        )
    assert (letters.held, letters.buried, letters.dropped) == (2, 5, 3)


# Commands.


async def test_a_command_that_nobody_can_act_on_is_buried_and_does_not_come_again(
    world: World,
) -> None:
    inbox = MemoryInboxStore(world.server, instance_id="one")
    await inbox.open()
    delivery, letters = Delivery(inbox, instance_id="one"), world.letters()
    letters.listen(delivery)

    async def fail(envelope: Envelope) -> None:
        raise KeyError("what")

    delivery.on("bad", fail)
    other = MemoryInboxStore(world.server, instance_id="two")
    await other.send("one", Envelope("novel", "n1", b"body", "s-1:0"))
    await other.send("one", Envelope("bad", "n2"))
    await delivery.pump()
    bad, novel = await letters_of(letters)
    assert (novel.kind, novel.code, novel.subject) == (LetterKind.COMMAND, "novel", "n1")
    assert (novel.reason, novel.job_id, novel.payload_bytes) == ("unknown kind", "s-1:0", 4)
    assert (bad.code, bad.reason) == ("bad", "KeyError: 'what'")
    assert await inbox.close()


# Replays that there is nothing for.


def replays(world: World) -> Replays:
    delivery = Delivery(MemoryInboxStore(world.server, instance_id="one"), instance_id="one")
    nothing: Any = None  # None of these comes as far as the intake.
    return Replays(world.store(), world.jobs, world.sessions, nothing, delivery, instance_id="one")


async def test_a_letter_whose_job_ended_well_after_all_is_not_replayed(world: World) -> None:
    await world.job()
    letters = world.letters()
    job = await world.jobs.get(JOB)
    assert job is not None
    await letters.bury(job, code="X", reason="", history=HISTORY)  # and the process dies
    await world.ending(JobState.SUCCEEDED)()
    letter_id = job_letter_id(JOB, accepted_ms=job.accepted_ms)
    assert isinstance(await replays(world).replay(letter_id), AlreadySo)
    assert await letters_of(letters) == []


async def test_a_letter_whose_job_has_not_ended_is_not_replayed_yet(world: World) -> None:
    await world.job()
    letters = world.letters()
    job = await world.jobs.get(JOB)
    assert job is not None
    await letters.bury(job, code="X", reason="", history=HISTORY)
    letter_id = job_letter_id(JOB, accepted_ms=job.accepted_ms)
    assert isinstance(await replays(world).replay(letter_id), NotNow)
    assert len(await letters_of(letters)) == 1


async def test_a_command_is_not_replayed(world: World) -> None:
    letter = DeadLetter(id="command~one~1", kind=LetterKind.COMMAND, code="novel", reason="")
    await world.store().bury(letter, payload=b"")
    assert isinstance(await replays(world).replay(letter.id), NotNow)
    assert len(await letters_of(world.letters())) == 1


async def test_a_letter_that_is_gone_was_replayed_or_never_was(world: World) -> None:
    assert isinstance(await replays(world).replay("job~s-1:0~1"), NotFound)
    await world.job(replay_job_id("job~s-1:0~1"))
    assert isinstance(await replays(world).replay("job~s-1:0~1"), AlreadySo)
