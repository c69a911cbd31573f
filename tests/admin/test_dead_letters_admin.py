"""The admin's page of dead letters: who may see it, and what may be done there."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import include, path, reverse
from django.utils.html import escape

from registry.admin_live import live_urls
from registry.domain.errors import StoreUnavailable
from registry.store.memory import MemoryInstanceStore, MemoryServer
from routing import running
from routing.admin_letters import NO_SCHEDULER, letter_urls
from routing.domain.letters import DeadLetter, FailedAttempt, LetterKind
from routing.domain.operators import ActionOutcome, AuditRecord, Done, NotNow, Source
from routing.services.deadletters import DeadLetters
from routing.services.letter_actions import LetterActions
from routing.store.memory import MemoryDeadLetterStore, MemoryJobStore

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

urlpatterns = [
    path("admin/live/", include(live_urls(admin.site))),
    path("admin/deadletters/", include(letter_urls(admin.site))),
    path("admin/", admin.site.urls),
]

LONG_MS = 60_000
NOW_MS = 1_790_000_000_000


class Yard:
    """As much of an instance as the page needs. `replayable` are the ids a node could take."""

    def __init__(self) -> None:
        self.server = MemoryServer(clock=lambda: NOW_MS)
        self.store = MemoryDeadLetterStore(
            self.server, instance_id="one", limit=1_000, keep_ms=LONG_MS, retention_ms=LONG_MS
        )
        jobs = MemoryJobStore(self.server, retention_ms=LONG_MS, open_limit=9, outbox_limit=9)
        self.letters = DeadLetters(
            self.store,
            jobs,
            MemoryInstanceStore(self.server, presence_ttl_ms=LONG_MS),
            instance_id="one",
            leads=lambda: False,
        )
        self.actions = LetterActions(self.letters, self, self)
        self.records: list[AuditRecord] = []
        self.replayable: set[str] = set()

    async def replay(self, letter_id: str) -> ActionOutcome:
        if letter_id not in self.replayable:
            return NotNow(letter_id, "no node supports it")
        await self.store.drop(letter_id)
        return Done(letter_id, "replayed")

    async def record(self, record: AuditRecord) -> None:
        self.records.append(record)

    def bury(self, *names: str, **more: Any) -> None:
        for name in names:
            letter = DeadLetter(
                id=name,
                kind=LetterKind.JOB,
                code="NODE_FAILED",
                reason="2 attempts failed",
                job_id=f"job-of-{name}",
                payload_bytes=6,
                history=[FailedAttempt(1, "n1", "the <b>node</b> left", {"code": "OOM"})],
                **{"src": "zh", "tgt": "en", "tenant": "acme"} | more,
            )
            asyncio.run(self.store.bury(letter, payload=b"SECRET"))

    @property
    def left(self) -> set[str]:
        return {letter.id for _, letter in asyncio.run(self.store.read("one", before="", count=99))}


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> Yard:
    yard = Yard()

    def ask(question: Callable[[LetterActions], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run(question(yard.actions))

    monkeypatch.setattr(running, "ask_letters", ask)
    return yard


def staff(*rights: str) -> Client:
    user = User.objects.create_user("some", password="some", is_staff=True)
    names = [f"{right}_deadletters" for right in rights]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    assert user.user_permissions.count() == len(rights)
    client = Client()
    client.force_login(user)
    return client


def url() -> str:
    return reverse("deadletters")


def shown(client: Client, **query: str) -> str:
    answer = client.get(url(), query)
    assert answer.status_code == 200
    return answer.content.decode()


def told(client: Client, **form: Any) -> list[str]:
    """What the page says after an action."""
    answer = client.post(url(), form)
    assert answer.status_code == 302
    assert answer["Location"] == url()
    return [str(message) for message in get_messages(answer.wsgi_request)]


def test_the_page_shows_letters_escaped_and_not_what_they_carry(yard: Yard) -> None:
    yard.bury("letter-1")
    page = shown(staff("view"))
    for text in ("job job-of-letter-1", "NODE_FAILED", "acme", "1 attempt", "OOM", "6 bytes"):
        assert text in page
    assert escape("the <b>node</b> left") in page
    assert "<b>node" not in page
    assert "SECRET" not in page


def test_the_page_filters_and_leads_on(yard: Yard) -> None:
    yard.bury("other", tenant="other")
    yard.bury(*(f"letter-{number:03}" for number in range(101)))
    client = staff("view")
    first = shown(client, tenant="acme")
    assert first.count("job job-of-") == 100
    assert "job-of-letter-000" not in first
    following = first.split('<p class="paginator"><a href="')[1].split('"')[0]
    page = client.get(url() + following.replace("&amp;", "&")).content.decode()
    assert "job-of-letter-000" in page
    assert page.count("job job-of-") == 1
    assert shown(client, tenant="other").count("job job-of-") == 1


def test_strangers_are_sent_away(yard: Yard) -> None:
    assert Client().get(url()).status_code == 302
    assert staff().get(url()).status_code == 403


def test_who_may_only_view_is_offered_nothing_and_may_do_nothing(yard: Yard) -> None:
    yard.bury("letter-1")
    client = staff("view")
    assert 'name="action"' not in shown(client)
    for word in ("replay", "drop"):
        assert client.post(url(), {"action": word, "ids": ["letter-1"]}).status_code == 403
    assert yard.left == {"letter-1"}
    assert yard.records == []


def test_each_right_is_for_its_own_action(yard: Yard) -> None:
    yard.bury("letter-1")
    client = staff("view", "drop")
    assert 'value="drop"' in shown(client)
    assert 'value="replay"' not in shown(client)
    assert client.post(url(), {"action": "replay", "ids": ["letter-1"]}).status_code == 403


def test_selected_letters_are_dropped_and_no_other(yard: Yard) -> None:
    yard.bury("letter-1", "letter-2", "letter-3")
    client = staff("view", "drop")
    assert told(client, action="drop", ids=["letter-1", "letter-3", "gone"]) == [
        "Dropped: 2.",
        "Replayed or dropped before: 1.",
    ]
    assert yard.left == {"letter-2"}
    assert [(r.operator.name, r.operator.source, r.subject, r.outcome) for r in yard.records] == [
        ("some", Source.ADMIN, "letter-1", "done"),
        ("some", Source.ADMIN, "letter-3", "done"),
        ("some", Source.ADMIN, "gone", "not found"),
    ]


def test_what_no_node_can_take_stays_and_is_told(yard: Yard) -> None:
    yard.bury("letter-1", "letter-2")
    yard.replayable = {"letter-1"}
    said = told(staff("view", "replay"), action="replay", ids=["letter-1", "letter-2"])
    assert said[0] == "Replayed: 1."
    assert said[1].startswith("Still there: 1.")
    assert yard.left == {"letter-2"}


@pytest.mark.parametrize(
    "form", [{"action": "drop"}, {"ids": ["letter-1"]}, {"action": "x", "ids": ["letter-1"]}]
)
def test_without_a_choice_nothing_is_done(yard: Yard, form: dict[str, Any]) -> None:
    yard.bury("letter-1")
    assert told(staff("view", "drop", "replay"), **form) == [
        "Nothing was done: select letters and an action."
    ]
    assert yard.left == {"letter-1"}


def test_a_page_that_is_none_is_told(yard: Yard) -> None:
    assert "There is no such page" in shown(staff("view"), cursor="x")


def test_without_an_instance_or_its_store_the_page_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = staff("view", "drop")
    assert escape(NO_SCHEDULER) in shown(client)
    assert told(client, action="drop", ids=["x"]) == [NO_SCHEDULER]

    def away(question: object) -> None:
        raise StoreUnavailable("it does not answer")

    monkeypatch.setattr(running, "ask_letters", away)
    assert "it does not answer" in shown(client)
    assert "it does not answer" in told(client, action="drop", ids=["x"])[-1]


def test_the_index_leads_to_the_letters_for_those_who_may_see_them(yard: Yard) -> None:
    assert f'<a href="{url()}">' in staff("view").get(reverse("admin:index")).content.decode()


def test_the_index_hides_the_letters_from_others(yard: Yard) -> None:
    assert f'<a href="{url()}">' not in staff().get(reverse("admin:index")).content.decode()
