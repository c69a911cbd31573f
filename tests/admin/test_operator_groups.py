"""The groups that `manage.py migrate` makes, and that it leaves alone afterwards."""

import pytest
from django.contrib.auth.models import Group, User

from routing.groups import GROUPS, make_groups
from routing.templatetags.ops import span

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("group", "acts"), [("viewer", False), ("operator", True), ("admin", True)]
)
def test_only_operators_and_admins_may_act(group: str, acts: bool) -> None:
    user = User.objects.create_user("someone", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    assert user.has_perm("routing.act") is acts
    assert user.has_perm("routing.view_auditentry")


@pytest.mark.parametrize(
    ("group", "acts"), [("viewer", False), ("operator", True), ("admin", True)]
)
def test_all_groups_see_dead_letters_and_operators_replay_and_drop(group: str, acts: bool) -> None:
    user = User.objects.create_user("someone", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    assert user.has_perm("routing.view_deadletters")
    assert user.has_perm("routing.replay_deadletters") is acts
    assert user.has_perm("routing.drop_deadletters") is acts


def test_every_permission_that_a_group_is_to_have_exists() -> None:
    for name, wanted in GROUPS.items():
        assert Group.objects.get(name=name).permissions.count() == len(set(wanted)), name


def test_what_an_admin_took_from_a_group_stays_taken() -> None:
    group = Group.objects.get(name="operator")
    group.permissions.clear()
    make_groups()
    assert group.permissions.count() == 0


def test_a_group_that_was_deleted_is_made_again() -> None:
    Group.objects.get(name="viewer").delete()
    make_groups()
    assert Group.objects.get(name="viewer").permissions.exists()


def test_a_figure_that_is_not_known_yet_is_a_dash() -> None:
    assert span("") == span(None) == "\N{EN DASH}"
