"""Nodes' credentials: kept as hashes, shown once, rotated, revoked; all of it audited."""

import asyncio
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import path, reverse
from django.utils import timezone

from routing.domain.credentials import NodeGrant
from routing.models import AuditEntry, NodeCredential
from routing.store.node_keys import DjangoNodeCredentials

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]

urlpatterns = [path("admin/", admin.site.urls)]

store = DjangoNodeCredentials()


def issue(node_id: str | None = "n1", *, days: int | None = None) -> str:
    return asyncio.run(store.issue(node_id=node_id, name="gpu", days=days, by="root"))


def find(secret: str) -> NodeGrant | None:
    return asyncio.run(store.find(secret))


def test_it_is_kept_as_a_hash_and_found_by_its_secret_only() -> None:
    secret = issue()
    row = NodeCredential.objects.get()
    assert find(secret) == NodeGrant(row.pk, "gpu", "n1")
    assert secret not in str(vars(row))
    assert secret.startswith(row.prefix)
    assert row.issued_by == "root"
    wrong = ("", "node_", secret[:-1], secret + "x", row.prefix, row.sha256, "node_" + "\0" * 43)
    assert [find(other) for other in wrong] == [None] * len(wrong)


def test_one_node_may_have_several_and_each_ends_by_itself() -> None:
    old, new = issue(), issue()
    first = NodeCredential.objects.get(prefix=old[: NodeCredential.PREFIX_LENGTH])
    assert asyncio.run(store.bound("n1"))
    assert asyncio.run(store.revoke(first.prefix)) == [(first.pk, str(first))]
    assert asyncio.run(store.revoke(first.prefix)) == []
    assert find(old) is None
    assert find(new) is not None
    NodeCredential.objects.update(expires_at=timezone.now())
    assert find(new) is None
    assert not asyncio.run(store.bound("n1"))


def test_those_that_are_good_are_told_from_those_that_ended() -> None:
    for node_id in ("n1", "n2", "n3"):
        issue(node_id)
    one, two, three = NodeCredential.objects.order_by("node_id")
    NodeCredential.objects.filter(pk=two.pk).update(revoked_at=timezone.now())
    asked = [one.pk, two.pk, three.pk, *range(10_000, 12_000)]
    assert asyncio.run(store.good(asked)) == {one.pk, three.pk}


def test_use_is_noted_to_the_minute() -> None:
    secret = issue()
    find(secret)
    first = NodeCredential.objects.get().last_used_at
    find(secret)
    assert NodeCredential.objects.get().last_used_at == first
    NodeCredential.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    find(secret)
    noted = NodeCredential.objects.get().last_used_at
    assert first is not None
    assert noted is not None
    assert noted >= first


def test_the_command_prints_it_once_and_is_audited() -> None:
    out = StringIO()
    call_command("create_node_credential", "n1", "--name=rack 3", "--days=3", stdout=out)
    secret = out.getvalue().strip()
    grant = find(secret)
    assert grant is not None
    assert (grant.node_id, grant.name) == ("n1", "rack 3")
    assert grant.expires_at_ms is not None
    entry = AuditEntry.objects.get()
    assert (entry.source, entry.action, entry.subject) == (
        "command",
        "create node credential",
        "n1",
    )
    assert secret not in str(vars(entry))


def test_a_command_for_any_node() -> None:
    out = StringIO()
    call_command("create_node_credential", "--any", stdout=out)
    grant = find(out.getvalue().strip())
    assert grant is not None
    assert grant.node_id is None


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("n1", "--any"),
        ("n {1}",),
        ("n1", "--name= "),
        ("n1", "--days=0"),
        ("n1", "--days=99999999"),
    ],
)
def test_one_that_cannot_be_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command("create_node_credential", *arguments)
    assert NodeCredential.objects.count() == 0


def test_the_admin_issues_one_and_shows_it_on_one_page_only(admin_client: Client) -> None:
    listed = reverse("admin:routing_nodecredential_changelist")
    page = admin_client.post(
        reverse("admin:routing_nodecredential_add"), {"node_id": "n1", "name": "gpu"}
    )
    assert page.status_code == 200
    assert "no-store" in page["Cache-Control"]
    row = NodeCredential.objects.get()
    secret = page.content.decode().partition('id="secret">')[2].partition("<")[0]
    assert find(secret) == NodeGrant(row.pk, "gpu", "n1")
    assert row.issued_by == "admin"
    for url in (
        listed,
        reverse("admin:routing_nodecredential_change", args=[row.pk]),
        reverse("admin:routing_nodecredential_history", args=[row.pk]),
        reverse("admin:routing_auditentry_changelist"),
    ):
        shown = admin_client.get(url).content.decode()
        assert row.prefix in shown or "history" in url
        assert secret not in shown
        assert row.sha256 not in shown
    cookies = " ".join(morsel.value for morsel in admin_client.cookies.values())
    assert secret not in cookies
    assert [entry.action for entry in AuditEntry.objects.all()] == ["create node credential"]


def test_the_admin_refuses_an_id_that_no_node_can_have(admin_client: Client) -> None:
    page = admin_client.post(
        reverse("admin:routing_nodecredential_add"), {"node_id": "{x}", "name": "gpu"}
    )
    assert "errorlist" in page.content.decode()
    assert NodeCredential.objects.count() == 0


def test_the_admin_revokes_and_changes_nothing_else(admin_client: Client) -> None:
    secret = issue()
    row = NodeCredential.objects.get()
    detail = reverse("admin:routing_nodecredential_change", args=[row.pk])
    assert admin_client.post(detail, {"node_id": "n2"}).status_code == 403
    assert admin_client.post(detail.replace("change", "delete")).status_code == 403
    chosen = {"action": "revoke", "_selected_action": [row.pk]}
    listed = reverse("admin:routing_nodecredential_changelist")
    for _ in range(2):
        assert admin_client.post(listed, chosen).status_code == 302
    assert find(secret) is None
    assert [entry.action for entry in AuditEntry.objects.all()] == ["revoke node credential"]
    assert "revoked" in admin_client.get(listed).content.decode()


def test_who_may_only_view_neither_issues_nor_revokes(client: Client) -> None:
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    issue()
    row = NodeCredential.objects.get()
    client.post(
        reverse("admin:routing_nodecredential_changelist"),
        {"action": "revoke", "_selected_action": [row.pk]},
    )
    assert client.post(reverse("admin:routing_nodecredential_add")).status_code == 403
    assert NodeCredential.objects.get().revoked_at is None


def test_a_command_revokes_by_the_whole_beginning_only(settings: object) -> None:
    secret = issue()
    settings.SCHED_REDIS_MODE = "off"  # type: ignore[attr-defined]
    for other in ("node_", secret[:-5], "node_xxxxxxxx"):
        with pytest.raises(CommandError, match="begins so"):
            call_command("revoke_node_credential", other)
    out = StringIO()
    call_command("revoke_node_credential", secret[: NodeCredential.PREFIX_LENGTH], stdout=out)
    assert "revoked: 1" in out.getvalue()
    assert find(secret) is None


def test_a_session_token_by_command(settings: object) -> None:
    settings.SCHED_SESSION_KEYS = "k1:" + "x" * 32  # type: ignore[attr-defined]
    out = StringIO()
    call_command(
        "create_session_token", "--tenant=acme", "--pairs=zh-en,*-de", "--rate=5", stdout=out
    )
    from routing.wiring import session_tokens

    grant = session_tokens().verify(out.getvalue().strip())
    assert (grant.tenant, grant.rate, grant.in_flight) == ("acme", 5, None)
    assert grant.pairs == {"zh-en", "*-de"}


@pytest.mark.parametrize("arguments", [("--minutes=0",), ("--minutes=9999",), ("--rate=0",)])
def test_a_session_token_that_cannot_be_is_refused(
    settings: object, arguments: tuple[str, ...]
) -> None:
    settings.SCHED_SESSION_KEYS = "k1:" + "x" * 32  # type: ignore[attr-defined]
    with pytest.raises(CommandError):
        call_command("create_session_token", "--tenant=acme", *arguments)


def test_without_a_key_there_is_no_session_token() -> None:
    with pytest.raises(CommandError, match="SCHED_SESSION_KEYS"):
        call_command("create_session_token", "--tenant=acme")
