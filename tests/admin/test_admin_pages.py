"""The operators' pages: they open, they refuse, and the live page words every state."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import include, path, reverse
from django.utils.html import escape

from pools.models import Pool, PoolVersion
from registry.admin_live import NO_SCHEDULER, LiveContext, live_context, live_urls
from registry.domain.errors import StoreUnavailable
from registry.models import Node
from routing import running

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

urlpatterns = [
    path("admin/live/", include(live_urls(admin.site))),
    path("admin/", admin.site.urls),
]

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
MODELS = ["registry_node", "pools_pool", "pools_poolversion"]
READ_ONLY = ["pools_pool", "pools_poolversion"]


def an_instance(name: str, *, version: int = 3, digest: str = "aa" * 16) -> dict[str, Any]:
    return {
        "id": name,
        "nodes": 2,
        "sessions": 5,
        "last_seen_ms": NOW_MS,
        "pool_config_version": version,
        "pool_index_digest": digest,
    }


def a_state(*instances: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "instance": {"id": "one", "started_at_ms": NOW_MS, "degraded": False},
        "leader": {"instance_id": "one", "epoch": 7, "expires_in_ms": 42_000},
        "pool_config": {
            "version": 3,
            "epoch": 7,
            "generated_by": "one",
            "generated_at_ms": NOW_MS,
            "digest": "cc" * 16,
        },
        "pool_index_digest": "aa" * 16,
        "nodes": {"total": 4, "ready": 3},
        "pools": [{"id": 1, "name": "de-en", "kind": "exact", "nodes": 3}],
        "instances": list(instances) or [an_instance("one"), an_instance("two")],
        **changes,
    }


def badges(context: LiveContext) -> list[str]:
    """The last cell of each instance."""
    return [row[-1]["text"] for row in context["tables"][0]["rows"]]


def card(context: LiveContext, key: str) -> dict[str, str]:
    found = next(card for card in context["cards"] if card["key"] == key)
    return {cell["label"]: cell["text"] for cell in found["cells"]}


@pytest.fixture
def rows() -> None:
    Node.objects.create(node_id="gpu-1", first_seen_at=NOW, last_registered_at=NOW)
    Pool.objects.create(pool_id=1, name="de-en", kind="exact", src="de", tgt="en", since_version=1)
    PoolVersion.objects.create(
        epoch=7,
        version=3,
        generated_at=NOW,
        generated_by="one",
        reason="node <gpu-1> changed",
        digest="cc" * 16,
        pools=[{"id": 1, "name": "de-en", "kind": "exact", "src": "de", "tgt": "en"}],
        added=["de-en"],
        removed=["<b>-en"],
        changed=[],
        summary="+1 -1: added de-en; removed <b>-en",
    )


@pytest.fixture
def viewer(client: Client) -> Client:
    """Staff who may view and nothing else."""
    user = User.objects.create_user("viewer", password="viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(user)
    return client


def store_words(context: LiveContext) -> dict[str, str]:
    """What the page says of each instance's way to the shared store."""
    rows = [{cell["label"]: cell["text"] for cell in row} for row in context["tables"][0]["rows"]]
    return {row["Instance"]: row["Shared store"] for row in rows}


def given(monkeypatch: pytest.MonkeyPatch, state: dict[str, Any] | None) -> None:
    monkeypatch.setattr(running, "live_state", lambda: state)


def detail(model: str) -> str:
    row = apps.get_model(model.replace("_", "."))._default_manager.get()
    return reverse(f"admin:{model}_change", args=[row.pk])


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("model", MODELS)
def test_every_list_and_detail_opens(admin_client: Client, viewer: Client, model: str) -> None:
    for client in (admin_client, viewer):
        for url in (reverse(f"admin:{model}_changelist"), detail(model)):
            assert client.get(url).status_code == 200
            assert client.get(url, {"q": "gpu", "e": ""}).status_code in (200, 302)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("model", MODELS)
def test_strangers_are_sent_to_the_login(client: Client, model: str) -> None:
    for url in (reverse(f"admin:{model}_changelist"), detail(model)):
        answer = client.get(url)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/")


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("model", READ_ONLY)
def test_published_pools_cannot_be_written(admin_client: Client, model: str) -> None:
    assert admin_client.post(detail(model), {"name": "x"}).status_code == 403
    assert admin_client.post(reverse(f"admin:{model}_add"), {"name": "x"}).status_code == 403
    assert admin_client.post(detail(model).replace("change", "delete")).status_code == 403


@pytest.mark.usefixtures("rows")
def test_a_node_takes_an_operators_word_and_nothing_else(admin_client: Client) -> None:
    url = detail("registry_node")
    answer = admin_client.post(url, {"node_id": "other", "note": "rack 4", "platform": "x"})
    assert answer.status_code == 302
    node = Node.objects.get()
    assert (node.node_id, node.enabled, node.note, node.platform) == ("gpu-1", False, "rack 4", "")
    assert admin_client.post(reverse("admin:registry_node_add")).status_code == 403
    assert admin_client.post(url.replace("change", "delete")).status_code == 403


@pytest.mark.usefixtures("rows")
def test_a_viewer_cannot_change_a_node(viewer: Client) -> None:
    assert viewer.post(detail("registry_node"), {"note": "x"}).status_code == 403


@pytest.mark.usefixtures("rows")
def test_a_pool_version_shows_its_difference_and_escapes_it(admin_client: Client) -> None:
    page = admin_client.get(detail("pools_poolversion")).content.decode()
    assert '<ul class="names added"><li>+ de-en</li></ul>' in page
    assert "&lt;b&gt;-en</li>" in page
    assert "<b>-en" not in page
    assert '<th scope="row">de-en</th>' in page


def test_the_index_leads_to_the_live_page(admin_client: Client) -> None:
    page = admin_client.get(reverse("admin:index")).content.decode()
    assert f'<a href="{reverse("live")}">' in page
    assert "Scheduler" in page


def test_the_live_page_shows_a_state_and_serves_it_as_json(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, a_state())
    page = admin_client.get(reverse("live"))
    assert page.status_code == 200
    text = page.content.decode()
    for shown in ("42 s left", "de-en", "consistent", "2026-11-24 12:00:00 UTC", "cc" * 16):
        assert shown in text
    assert re.findall(r"<caption>(Instances|Pools)</caption>", text) == ["Instances", "Pools"]
    assert text.count("aria-live") == 1
    answer = admin_client.get(reverse("live-state"))
    assert answer.status_code == 200
    assert answer["Cache-Control"].startswith("max-age=0")
    assert answer.json()["tables"] == live_context(a_state())["tables"]


def test_the_live_page_runs_under_a_strict_content_security_policy(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, a_state())
    text = admin_client.get(reverse("live")).content.decode()
    assert re.findall(r"<script(?![^>]*\ssrc=)[^>]*>", text) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", text) == []


def test_without_a_scheduler_the_live_page_says_what_to_do(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, None)
    page = admin_client.get(reverse("live"))
    assert page.status_code == 200
    assert escape(NO_SCHEDULER) in page.content.decode()
    answer = admin_client.get(reverse("live-state"))
    assert answer.status_code == 200
    assert answer.json()["message"] == NO_SCHEDULER


def test_while_the_store_is_away_the_live_page_says_so(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise StoreUnavailable("it does not answer")

    monkeypatch.setattr(running, "live_state", away)
    assert "it does not answer" in admin_client.get(reverse("live")).content.decode()
    answer = admin_client.get(reverse("live-state"))
    assert answer.status_code == 200
    assert "it does not answer" in answer.json()["message"]


def test_the_live_page_is_for_staff(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, a_state())
    for name in ("live", "live-state"):
        assert client.get(reverse(name)).status_code == 302
    client.force_login(User.objects.create_user("someone", password="someone"))
    for name in ("live", "live-state"):
        assert client.get(reverse(name)).status_code == 302


def test_the_live_page_opens_for_a_viewer_and_takes_no_post(
    viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, a_state())
    for name in ("live", "live-state"):
        assert viewer.get(reverse(name)).status_code == 200
        assert viewer.post(reverse(name)).status_code == 405


def test_the_one_that_differs_from_the_most_is_named() -> None:
    three = [an_instance("one"), an_instance("two"), an_instance("late", version=2)]
    assert badges(live_context(a_state(*three))) == ["consistent", "consistent", "differs"]


def test_on_a_tie_all_differ() -> None:
    two = [an_instance("one"), an_instance("two", digest="bb" * 16)]
    assert badges(live_context(a_state(*two))) == ["differs", "differs"]


def test_a_single_instance_is_consistent() -> None:
    assert badges(live_context(a_state(an_instance("one")))) == ["consistent"]


def test_an_empty_cluster_says_that_nobody_leads_and_why_there_are_no_pools(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {
        "version": 0,
        "epoch": 0,
        "generated_by": "",
        "generated_at_ms": 0,
        "digest": "00" * 16,
    }
    state = a_state(leader=None, pool_config=nothing, nodes={"total": 0, "ready": 0}, pools=[])
    context = live_context(state)
    assert card(context, "leader")["Instance"] == "nobody"
    assert card(context, "config")["Version"] == "\N{EN DASH}"
    given(monkeypatch, state)
    assert "No pools yet." in admin_client.get(reverse("live")).content.decode()


def test_the_live_page_says_of_each_instance_whether_it_goes_on_alone() -> None:
    peer = {**an_instance("two"), "degraded": True}
    assert store_words(live_context(a_state(an_instance("one"), peer))) == {
        "one": "in step",
        "two": "away: goes on alone",
    }


def test_the_live_page_shows_its_own_instance_also_when_nobody_can_report() -> None:
    alone = a_state(instance={"id": "one", "started_at_ms": NOW_MS, "degraded": True})
    alone["instances"] = []
    assert store_words(live_context(alone)) == {"one": "away: goes on alone"}
