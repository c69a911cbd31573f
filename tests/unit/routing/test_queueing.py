"""Flows, weights, and who may join a queue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.domain.outcome import Brief
from routing.domain.queueing import (
    Flow,
    Lease,
    flow_named,
    flow_of,
    lease_of,
    may_queue,
    parse_weights,
    queue_of,
)

codes = st.text("abAB-_9", min_size=1, max_size=5)


@given(pool=codes, src=codes, tgt=codes, tenant=st.text(max_size=20), avoid=st.sets(codes))
def test_a_flow_and_a_lease_are_what_their_names_say(
    pool: str, src: str, tgt: str, tenant: str, avoid: set[str]
) -> None:
    flow = Flow(pool, src, tgt, 7, ",".join(sorted(avoid)), tenant)
    assert flow_named(flow.name) == flow
    assert flow.avoided == avoid
    lease = Lease("s:1:4", 2, 1_790_000_000_000, flow)
    assert lease_of(lease.token) == lease


def test_a_job_waits_apart_from_the_nodes_that_failed_it() -> None:
    brief = Brief("de", "en", 5, "acme", "tr", queue_of("*-en", "de", "en"))
    assert flow_of(brief) == Flow("*-en", "de", "en", 5, "", "acme")
    assert flow_of(brief, failed_on=["n2", "n1", "n2"]).avoid == "n1,n2"


def test_weights_are_read() -> None:
    assert parse_weights("") == {}
    assert parse_weights(" acme=3, beta = 1,,a=b=100") == {"acme": 3, "beta": 1, "a=b": 100}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("acme", "acme=3,beta=1"),
        ("=3", "acme=3,beta=1"),
        ("acme=three", "acme=three"),
        ("acme=0", "from 1 to 100"),
        ("acme=101", "from 1 to 100"),
        ("acme=1,acme=2", "twice"),
    ],
)
def test_wrong_weights_are_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"SCHED_TENANT_WEIGHTS") as refusal:
        parse_weights(text)
    assert says in str(refusal.value)


@given(
    limit=st.integers(1, 20),
    order=st.lists(st.sampled_from("abcdef"), max_size=120),
    weights=st.dictionaries(st.sampled_from("abc"), st.integers(1, 100)),
)
def test_a_queue_stays_within_twice_its_limit_and_below_it_refuses_nobody(
    limit: int, order: list[str], weights: dict[str, int]
) -> None:
    waiting: dict[str, int] = {}
    for tenant in order:
        total = sum(waiting.values())
        if may_queue(tenant, waiting, limit=limit, weights=weights):
            waiting[tenant] = waiting.get(tenant, 0) + 1
        else:
            assert total >= limit
    assert sum(waiting.values()) <= 2 * limit
