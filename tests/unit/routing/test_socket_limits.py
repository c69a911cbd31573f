"""The bucket of a socket, and the count of sockets."""

import pytest

from routing.domain.limits import Bucket, Limits
from routing.services.access import Gate


def test_a_bucket_gives_a_burst_and_then_its_rate() -> None:
    bucket = Bucket(200, now_ms=0)
    assert [bucket.take(0) for _ in range(400)] == [0] * 400
    assert bucket.take(0) == 5
    assert bucket.take(5) == 0
    assert bucket.take(5) == 5
    assert [bucket.take(10_000) for _ in range(401)] == [0] * 400 + [5]


def test_without_a_rate_everything_fits() -> None:
    bucket = Bucket(0, now_ms=0)
    assert not any(bucket.take(0) for _ in range(10_000))


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(1, now_ms=1_000)
    assert [bucket.take(1_000), bucket.take(1_000)] == [0, 0]
    assert bucket.take(0) > 0
    assert bucket.take(500) > 0


def test_who_goes_on_and_on_overruns_and_who_pauses_does_not() -> None:
    deaf = Bucket(1, now_ms=0)
    for _ in range(4):
        deaf.take(0)
    assert not deaf.overrun
    deaf.take(0)
    assert deaf.overrun
    patient = Bucket(1, now_ms=0)
    for second in range(100):
        for _ in range(3):
            patient.take(second * 3_000)
        assert not patient.overrun


@pytest.mark.parametrize("field", Limits.__slots__)
def test_a_limit_below_none_is_refused_by_its_name(field: str) -> None:
    with pytest.raises(ValueError, match="SCHED_"):
        Limits(**{field: -1})


def test_more_for_an_address_than_for_all_is_refused() -> None:
    with pytest.raises(ValueError, match="SCHED_SOCKETS_PER_ADDRESS"):
        Limits(sockets_per_address=3, sockets_per_process=2)


class Socket:
    def __init__(self, silent: str | None = None) -> None:
        self.silent = silent
        self.code = 0

    def silence(self, now_ms: int, limits: Limits) -> str | None:
        return self.silent

    def close(self, code: int, reason: str) -> None:
        self.code = code


def test_an_address_may_have_so_many_sockets_and_others_are_not_touched() -> None:
    gate = Gate(Limits(sockets_per_address=2))
    sockets = [Socket() for _ in range(3)]
    assert [gate.enter(socket, "a") is None for socket in sockets] == [True, True, False]
    assert gate.enter(Socket(), "b") is None
    gate.leave(sockets[2], "a")
    gate.leave(sockets[0], "a")
    assert gate.enter(Socket(), "a") is None


def test_a_process_may_have_so_many_sockets() -> None:
    gate = Gate(Limits(sockets_per_process=2))
    assert [gate.enter(Socket(), str(n)) is None for n in range(3)] == [True, True, False]


def test_the_count_of_addresses_does_not_grow_without_end() -> None:
    gate = Gate(Limits())
    for number in range(100):
        socket = Socket()
        gate.enter(socket, str(number))
        gate.leave(socket, str(number))
    assert not gate._by_address
    assert not gate._sockets


def test_only_the_silent_are_closed() -> None:
    gate = Gate(Limits())
    silent, awake = Socket("no word"), Socket()
    gate.enter(silent, "a")
    gate.enter(awake, "a")
    gate.sweep(0)
    assert (silent.code, awake.code) == (4408, 0)
