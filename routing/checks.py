"""System checks: `manage.py check` names every setting the scheduler refuses, and the cure."""

from collections.abc import Callable
from typing import Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from pools.wiring import pool_rules
from registry.domain.errors import InvalidTiming
from registry.wiring import lease_timing, liveness
from routing.wiring import (
    job_limits,
    node_patience,
    open_doors,
    selection_rules,
    session_tokens,
    shut_doors,
    socket_limits,
    tenant_weights,
)

CHECKED: tuple[tuple[str, Callable[[], object]], ...] = (
    ("scheduler.E001", lease_timing),
    ("scheduler.E002", liveness),
    ("scheduler.E003", pool_rules),
    ("scheduler.E004", job_limits),
    ("scheduler.E005", selection_rules),
    ("scheduler.E006", tenant_weights),
    ("scheduler.E007", node_patience),
    ("scheduler.E008", session_tokens),
    ("scheduler.E009", socket_limits),
)


@checks.register("scheduler")
def check_settings(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """One error for each group of settings that cannot work."""
    found: list[checks.CheckMessage] = []
    for check_id, build in CHECKED:
        try:
            build()
        except (ImproperlyConfigured, InvalidTiming) as error:
            found.append(checks.Error(str(error), id=check_id))
    return found


@checks.register("scheduler")
def check_shut_doors(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """A warning where no session can come in: nothing breaks, so migrations may go on."""
    return [
        checks.Warning(
            f"{setting} is empty, and SCHED_SESSION_AUTH is 'required': no session can connect",
            hint=(
                f"set {setting} to KEY_ID:SECRET, with a secret of 32 bytes or more, such as"
                " `python -c \"import secrets; print('k1:' + secrets.token_urlsafe(48))\"` prints;"
                " or, within a network that you trust, SCHED_SESSION_AUTH=open"
            ),
            id="scheduler.W002",
        )
        for setting in shut_doors()
    ]


@checks.register("scheduler", deploy=True)
def check_doors(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """A warning for each kind of socket that anyone may open."""
    return [
        checks.Warning(
            f"{setting} is open: whoever reaches the port may connect",
            hint="leave it open only within a network that you trust",
            id="scheduler.W001",
        )
        for setting in open_doors()
    ]
