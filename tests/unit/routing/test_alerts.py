"""Alerts: which values are beyond a threshold, and how long they must be."""

from dataclasses import replace

import pytest

from routing.domain.alerts import (
    Alert,
    AlertRules,
    Breach,
    InstanceReading,
    Readings,
    Severity,
    breaches,
    settle,
)

RULES = AlertRules()
ONE = InstanceReading("one", pools=3, pool_version=7, index_digest="d", sync_delay_ms=90, leaked=0)
TWO = replace(ONE, id="two")
CALM = Readings(leader=True, instances=[ONE, TWO])


def names(readings: Readings) -> list[str]:
    return [breach.rule for breach in breaches(readings, RULES)]


def test_a_calm_cluster_has_no_alert() -> None:
    assert names(CALM) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"leader": False}, "no leader"),
        ({"instances": []}, "no instance"),
        ({"instances": [ONE, replace(TWO, pools=4)]}, "pools differ"),
        ({"instances": [ONE, replace(TWO, index_digest="e")]}, "pools differ"),
        ({"instances": [replace(ONE, sync_delay_ms=RULES.sync_delay_ms + 1)]}, "sync delay"),
        ({"leader_changes": RULES.leader_changes + 1}, "leader changes"),
        ({"queues": {"zh>en": RULES.queue_standing_ms + 1}}, "queue age"),
        ({"attempts_ended": 100, "attempts_failed": 6}, "error rate"),
        ({"dead_letters": 1}, "dead letters"),
        ({"connections": {"gpu-1": RULES.flaps + 1}}, "node flapping"),
        ({"instances": [replace(ONE, leaked=RULES.leaked_slots + 1)]}, "slots leaking"),
    ],
)
def test_each_rule_tells_of_what_is_beyond_its_threshold(
    changes: dict[str, object], rule: str
) -> None:
    found = breaches(replace(CALM, **changes), RULES)  # type: ignore[arg-type]
    assert [breach.rule for breach in found] == [rule]
    assert found[0].sentence.endswith(".")
    assert found[0].cure


@pytest.mark.parametrize(
    "changes",
    [
        {"instances": [replace(ONE, sync_delay_ms=RULES.sync_delay_ms)]},
        {"leader_changes": RULES.leader_changes},
        {"queues": {"zh>en": RULES.queue_standing_ms}},
        {"attempts_ended": 100, "attempts_failed": 5},
        {"attempts_ended": RULES.error_sample - 1, "attempts_failed": RULES.error_sample - 1},
        {"dead_letters": None},
        {"connections": {"gpu-1": RULES.flaps}},
        {"instances": [replace(ONE, leaked=RULES.leaked_slots)]},
    ],
)
def test_no_rule_tells_of_what_is_just_at_its_threshold(changes: dict[str, object]) -> None:
    assert names(replace(CALM, **changes)) == []  # type: ignore[arg-type]


def test_the_critical_come_first() -> None:
    found = breaches(replace(CALM, dead_letters=3, leader=False), RULES)
    assert [breach.severity for breach in found] == [Severity.CRITICAL, Severity.WARNING]


def a_breach(subject: str = "one", *, lasting_ms: int = 100) -> Breach:
    return Breach("sync delay", subject, Severity.WARNING, "Late.", "Look.", lasting_ms)


def test_a_breach_becomes_an_alert_when_it_has_lasted() -> None:
    since, alerts = settle({}, [a_breach()], now_ms=1_000)
    assert alerts == ()
    since, alerts = settle(since, [a_breach()], now_ms=1_099)
    assert alerts == ()
    _, alerts = settle(since, [a_breach()], now_ms=1_100)
    assert alerts == (Alert("sync delay", "one", Severity.WARNING, "Late.", "Look.", 1_000),)


def test_a_breach_that_passed_starts_anew() -> None:
    since, _ = settle({}, [a_breach()], now_ms=1_000)
    since, _ = settle(since, [], now_ms=1_050)
    _, alerts = settle(since, [a_breach()], now_ms=1_100)
    assert alerts == ()


def test_the_same_rule_lasts_for_each_subject_apart() -> None:
    since, _ = settle({}, [a_breach("one")], now_ms=1_000)
    _, alerts = settle(since, [a_breach("one"), a_breach("two")], now_ms=1_100)
    assert [alert.subject for alert in alerts] == ["one"]


def test_thresholds_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="flaps must not be negative"):
        AlertRules(flaps=-1)
