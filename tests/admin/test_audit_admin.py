"""The audit log and the operators' tokens: kept as they are, shown without secrets, revoked."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import path, reverse
from django.utils import timezone

from routing import running
from routing.domain.operators import AuditRecord, Done, Operator, Source
from routing.models import AuditEntry, OperatorToken
from routing.store.audit import DjangoAuditLog
from routing.store.tokens import DjangoOperatorTokens

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

urlpatterns = [path("admin/", admin.site.urls)]

BY = Operator("root", Source.API, "10.0.0.1")


@pytest.fixture
def entry() -> AuditEntry:
    return AuditEntry.objects.create(
        actor="root",
        source="api",
        action="drain node",
        subject="<gpu-1>",
        outcome="done",
        detail={"sentence": "node <gpu-1> gets nothing new"},
    )


@pytest.fixture
def staff() -> User:
    return User.objects.create_user("staff", is_staff=True)


@pytest.fixture
def viewer(client: Client) -> Client:
    """Staff who may view and nothing else."""
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    return client


def issue(name: str = "ci", *, days: int | None = None) -> str:
    token = asyncio.run(DjangoOperatorTokens().issue(user="staff", name=name, days=days))
    assert token is not None
    return token


def holder(token: str) -> str | None:
    return asyncio.run(DjangoOperatorTokens().holder(token))


# The audit log.


def test_an_entry_is_written_once_and_never_changed(entry: AuditEntry) -> None:
    for row in (entry, AuditEntry.objects.get()):
        row.actor = "someone else"
        with pytest.raises(TypeError, match="only ever added to"):
            row.save()
        with pytest.raises(TypeError, match="only ever added to"):
            row.delete()
    assert AuditEntry.objects.get().actor == "root"


def test_the_audit_log_can_be_read_and_not_be_written(
    admin_client: Client, viewer: Client, entry: AuditEntry
) -> None:
    listed = reverse("admin:routing_auditentry_changelist")
    detail = reverse("admin:routing_auditentry_change", args=[entry.pk])
    for client in (admin_client, viewer):
        page = client.get(listed, {"q": "gpu"}).content.decode()
        assert "node &lt;gpu-1&gt; gets nothing new" in page
        assert client.get(detail).status_code == 200
    for url in (
        reverse("admin:routing_auditentry_add"),
        detail,
        detail.replace("change", "delete"),
    ):
        assert admin_client.post(url, {"actor": "x"}).status_code == 403
    assert AuditEntry.objects.get().actor == "root"


def test_what_does_not_fit_the_database_is_cut_and_not_refused() -> None:
    by = Operator("r" * 400, Source.API, "a\0" * 200)
    record = AuditRecord(by, "drain node", "\0" + "s" * 400, "done", {"reason": "x\0y"})
    asyncio.run(DjangoAuditLog().record(record))
    row = AuditEntry.objects.get()
    assert (len(row.actor), len(row.subject), row.detail) == (300, 300, {"reason": "xy"})
    row.full_clean()


# Tokens.


def test_a_token_names_its_user_and_is_kept_as_a_hash(staff: User) -> None:
    token = issue()
    assert holder(token) == "staff, token ci"
    row = OperatorToken.objects.get()
    assert token not in str(vars(row))
    assert token.startswith(row.prefix)
    assert row.last_used_at is not None
    for wrong in (
        "",
        "sched_",
        token[:-1],
        token + "x",
        row.prefix,
        row.sha256,
        token.upper(),
        "sched_\0",
    ):
        assert holder(wrong) is None


def test_use_is_noted_at_most_once_a_minute(staff: User) -> None:
    token = issue()
    holder(token)
    first = OperatorToken.objects.get().last_used_at
    holder(token)
    assert OperatorToken.objects.get().last_used_at == first
    OperatorToken.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    holder(token)
    noted = OperatorToken.objects.get().last_used_at
    assert noted is not None
    assert first is not None
    assert noted >= first


@pytest.mark.parametrize("change", ["is_active", "is_staff"])
def test_a_token_is_as_good_as_its_user(staff: User, change: str) -> None:
    token = issue()
    User.objects.update(**{change: False})
    assert holder(token) is None


def test_a_token_ends(staff: User) -> None:
    token = issue(days=1)
    assert holder(token) is not None
    OperatorToken.objects.update(expires_at=timezone.now())
    assert holder(token) is None


def test_a_token_is_revoked_in_the_admin_and_never_shown(admin_client: Client, staff: User) -> None:
    token = issue()
    row = OperatorToken.objects.get()
    listed = reverse("admin:routing_operatortoken_changelist")
    detail = reverse("admin:routing_operatortoken_change", args=[row.pk])
    for url in (listed, detail):
        page = admin_client.get(url).content.decode()
        assert row.prefix in page
        assert token not in page
        assert row.sha256 not in page
    chosen = {"action": "revoke", "_selected_action": [row.pk]}
    for _ in range(2):
        assert admin_client.post(listed, chosen).status_code == 302
    assert holder(token) is None
    (entry,) = AuditEntry.objects.all()
    assert (entry.actor, entry.source, entry.action) == ("admin", "admin", "revoke token")
    assert "revoked" in admin_client.get(listed).content.decode()
    assert admin_client.post(detail, {"name": "x"}).status_code == 403
    assert admin_client.post(reverse("admin:routing_operatortoken_add")).status_code == 403


def test_who_may_only_view_cannot_revoke(viewer: Client, staff: User) -> None:
    issue()
    row = OperatorToken.objects.get()
    listed = reverse("admin:routing_operatortoken_changelist")
    viewer.post(listed, {"action": "revoke", "_selected_action": [row.pk]})
    assert OperatorToken.objects.get().revoked_at is None


def test_the_command_prints_the_token_once_and_is_audited(staff: User) -> None:
    out = StringIO()
    call_command("create_operator_token", "--user=staff", "--name=ci", "--days=3", stdout=out)
    assert holder(out.getvalue().strip()) == "staff, token ci"
    row = OperatorToken.objects.get()
    assert row.expires_at is not None
    assert timedelta(days=2) < row.expires_at - timezone.now() <= timedelta(days=3)
    entry = AuditEntry.objects.get()
    assert (entry.source, entry.action, entry.subject) == ("command", "create token", "ci")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--user=nobody", "--name=ci"),
        ("--user=staff", "--name= "),
        ("--user=staff", "--name=" + "x" * 101),
        ("--user=staff", "--name=ci", "--days=0"),
        ("--user=staff", "--name=ci", "--days=999999999"),
    ],
)
def test_a_token_that_cannot_be_is_refused(staff: User, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command("create_operator_token", *arguments)
    assert OperatorToken.objects.count() == 0


# The way of synchronous code to the instance of its process.


class Running:
    """As much of an instance as `act` needs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.actions: Any = self

    async def step_down(self, *, by: Operator) -> Done:
        record = AuditRecord(by, "step down", "leader", "done", {})
        await DjangoAuditLog().record(record)
        return Done("leader", "it is asked")


@pytest.fixture
def instance() -> Iterator[None]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running.set_running(Running(loop))  # type: ignore[arg-type]
    yield
    running.set_running(None)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.usefixtures("instance")
def test_an_action_from_a_view_is_audited_though_its_thread_waits() -> None:
    from asgiref.sync import ThreadSensitiveContext, sync_to_async

    async def as_django_calls_a_view() -> Any:
        async with ThreadSensitiveContext():
            return await sync_to_async(running.act)(lambda actions: actions.step_down(by=BY))

    outcome = asyncio.run(as_django_calls_a_view())
    assert outcome == Done("leader", "it is asked")
    assert AuditEntry.objects.count() == 1


def test_without_an_instance_there_is_nobody_to_act() -> None:
    assert running.act(lambda actions: actions.step_down(by=BY)) is None
