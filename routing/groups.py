"""The groups that staff are put into: `viewer` looks, `operator` acts, `admin` changes more.

Made after `manage.py migrate`, each once: what an admin then gives or takes stays so.
"""

from typing import Any

from django.contrib.auth.models import Group, Permission

VIEWS = (
    "registry.view_node",
    "pools.view_pool",
    "pools.view_poolversion",
    "pools.view_poolwish",
    "pools.view_poolfreeze",
    "routing.view_auditentry",
    "routing.view_deadletters",
    "routing.view_tenant",
)
ACTS = (
    *VIEWS,
    "routing.act",
    "routing.replay_deadletters",
    "routing.drop_deadletters",
    "registry.change_node",
)
CHANGES = (
    *ACTS,
    "pools.add_poolwish",
    "pools.change_poolwish",
    "pools.delete_poolwish",
    "pools.change_poolfreeze",
    "routing.view_operatortoken",
    "routing.change_operatortoken",
    "routing.add_tenant",
    "routing.change_tenant",
    "routing.delete_tenant",
)
GROUPS = {"viewer": VIEWS, "operator": ACTS, "admin": CHANGES}


def make_groups(using: str = "default", **_: Any) -> None:
    """Make those groups that are missing."""
    for name, wanted in GROUPS.items():
        group, made = Group.objects.using(using).get_or_create(name=name)
        if made:
            group.permissions.set(_permissions(wanted, using))


def _permissions(names: tuple[str, ...], using: str) -> list[Permission]:
    found = Permission.objects.using(using).select_related("content_type")
    wanted = set(names)
    return [p for p in found if f"{p.content_type.app_label}.{p.codename}" in wanted]
