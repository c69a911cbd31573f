"""The contract of `InboxStore`: what was sent comes until it is done, and to nobody once closed."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

from routing.domain.outcome import Envelope, EnvelopeKind
from routing.services.ports import InboxStore
from tests.contract.backends import Backend
from tests.support.waiting import eventually

PATIENCE_S = 10.0
ASSIGN = Envelope(
    kind=EnvelopeKind.ASSIGN,
    subject="n",
    body=b"\x00\xff{}",
    job_id="s:1",
    number=2,
    node_id="m",
)
CANCEL = Envelope(kind=EnvelopeKind.CANCEL, subject="s")


def sent(envelope: Envelope, *, by: str = "two") -> Envelope:
    return replace(envelope, sender=by)


async def take(store: InboxStore, count: int = 1) -> list[tuple[str, Envelope]]:
    """The first `count` commands that a new reader gets; it acknowledges none."""
    found: list[tuple[str, Envelope]] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(store.receive()) as batches:  # type: ignore[type-var]
        async for batch in batches:
            found += batch
            if len(found) >= count:
                break
    return found


async def read_on(store: InboxStore, found: list[Envelope]) -> None:
    """Read and acknowledge until the inbox is closed."""
    async for batch in store.receive():
        found += [envelope for _, envelope in batch]
        await store.done([token for token, _ in batch])


async def test_a_command_arrives_whole_and_with_its_sender(backend: Backend) -> None:
    one = backend.inbox("one")
    await one.open()
    assert await backend.inbox("two").send("one", ASSIGN)
    [(_, envelope)] = await take(one)
    assert envelope == sent(ASSIGN)


async def test_commands_arrive_in_order(backend: Backend) -> None:
    one, two = backend.inbox("one"), backend.inbox("two")
    await one.open()
    await two.send("one", ASSIGN)
    await two.send("one", CANCEL)
    assert [envelope for _, envelope in await take(one, 2)] == [sent(ASSIGN), sent(CANCEL)]


async def test_a_waiting_reader_is_woken(backend: Backend) -> None:
    one = backend.inbox("one")
    await one.open()
    reader = asyncio.create_task(take(one))
    await backend.inbox("two").send("one", CANCEL)
    assert [envelope for _, envelope in await reader] == [sent(CANCEL)]


async def test_nothing_can_be_sent_where_there_is_no_inbox(backend: Backend) -> None:
    two = backend.inbox("two")
    assert not await two.send("one", ASSIGN)
    await backend.inbox("one").open()
    assert await two.send("one", ASSIGN)


async def test_inboxes_are_apart(backend: Backend) -> None:
    one, two = backend.inbox("one"), backend.inbox("two")
    await one.open()
    await two.open()
    await two.send("one", ASSIGN)
    await one.send("two", CANCEL)
    assert [envelope for _, envelope in await take(one)] == [sent(ASSIGN)]
    assert [envelope for _, envelope in await take(two)] == [sent(CANCEL, by="one")]


async def test_opening_an_inbox_again_loses_nothing(backend: Backend) -> None:
    one = backend.inbox("one")
    await one.open()
    await backend.inbox("two").send("one", ASSIGN)
    await one.open()
    assert len(await take(one)) == 1


async def test_what_was_not_done_comes_again_to_a_new_reader(backend: Backend) -> None:
    one, two = backend.inbox("one"), backend.inbox("two")
    await one.open()
    await two.send("one", ASSIGN)
    await two.send("one", CANCEL)
    first, second = await take(one, 2)
    await one.done([first[0]])
    assert await take(backend.inbox("one")) == [second]


async def test_what_was_not_done_comes_before_what_is_new(backend: Backend) -> None:
    one, two = backend.inbox("one"), backend.inbox("two")
    await one.open()
    await two.send("one", ASSIGN)
    await take(one)
    await two.send("one", CANCEL)
    assert [envelope for _, envelope in await take(one, 2)] == [sent(ASSIGN), sent(CANCEL)]


async def test_one_reader_gets_each_command_once(backend: Backend) -> None:
    one, two = backend.inbox("one"), backend.inbox("two")
    await one.open()
    found: list[Envelope] = []
    reader = asyncio.create_task(read_on(one, found))
    for number in range(20):
        await two.send("one", replace(CANCEL, number=number))
    await eventually(lambda: len(found) >= 20, what="all commands")
    await eventually(one.close, what="the inbox closes once all is done")
    await reader
    assert [envelope.number for envelope in found] == list(range(20))


async def test_done_twice_is_no_harm(backend: Backend) -> None:
    one = backend.inbox("one")
    await one.open()
    await backend.inbox("two").send("one", ASSIGN)
    [(token, _)] = await take(one)
    await one.done([token])
    await one.done([token])
    assert await one.close()


async def test_an_inbox_with_something_in_it_does_not_close(backend: Backend) -> None:
    one, two = backend.inbox("one"), backend.inbox("two")
    await one.open()
    await two.send("one", ASSIGN)
    assert not await one.close()
    [(token, _)] = await take(one)
    assert not await one.close()
    assert await two.send("one", CANCEL)
    await one.done([token])
    assert not await one.close()


async def test_nothing_can_be_sent_to_a_closed_inbox(backend: Backend) -> None:
    one = backend.inbox("one")
    await one.open()
    assert await one.close()
    assert await one.close()
    assert not await backend.inbox("two").send("one", ASSIGN)


async def test_closing_ends_the_reader_and_leaves_no_inbox_behind(backend: Backend) -> None:
    # The reader heard of the missing inbox before `close` had its reply, and made it again.
    two = backend.inbox("two")
    for number in range(30):
        one = backend.inbox(f"one{number}")
        await one.open()
        found: list[Envelope] = []
        reader = asyncio.create_task(read_on(one, found))
        await two.send(f"one{number}", CANCEL)
        await eventually(lambda seen=found: seen, what="the command")  # type: ignore[misc]
        await eventually(one.close, what="the inbox closes once all is done")
        async with asyncio.timeout(PATIENCE_S):
            await reader
        assert not await two.send(f"one{number}", ASSIGN)


async def test_the_inbox_is_made_again_after_the_data_is_gone(backend: Backend) -> None:
    one, two = backend.inbox("one"), backend.inbox("two")
    await one.open()
    found: list[Envelope] = []
    reader = asyncio.create_task(read_on(one, found))
    await two.send("one", ASSIGN)
    await eventually(lambda: found, what="the first command")
    await backend.lose_everything()
    await eventually(lambda: two.send("one", CANCEL), within_ms=10_000, what="a new inbox")
    await eventually(lambda: len(found) == 2, what="the second command")
    await eventually(one.close, what="the inbox closes once all is done")
    await reader
    assert found == [sent(ASSIGN), sent(CANCEL)]


async def test_a_new_instance_of_the_same_name_gets_an_empty_inbox(backend: Backend) -> None:
    one, two = backend.inbox("one"), backend.inbox("two")
    await one.open()
    await one.close()
    again = backend.inbox("one")
    await again.open()
    await two.send("one", CANCEL)
    assert [envelope for _, envelope in await take(again)] == [sent(CANCEL)]
