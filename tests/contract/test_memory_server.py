"""What only the memory side must do: give back what expired, and keep logs short."""

from weakref import WeakSet

from registry.store.memory import Log, MemoryServer, Shelf


class Thing:
    """Something whose end can be seen."""


def test_what_expired_is_given_back_though_nobody_asks_for_it() -> None:
    now_ms = 0
    shelf: Shelf[Thing] = Shelf(MemoryServer(clock=lambda: now_ms))
    alive: WeakSet[Thing] = WeakSet()
    for now_ms in range(10_000):
        thing = Thing()
        alive.add(thing)
        shelf.put(f"thing {now_ms}", thing, ttl_ms=10)
    assert len(alive) <= 1_000


def test_a_shelf_keeps_what_has_not_expired() -> None:
    shelf: Shelf[int] = Shelf(MemoryServer(clock=lambda: 0))
    for number in range(3_000):
        shelf.put(f"thing {number}", number, ttl_ms=10)
    assert [shelf.get(f"thing {number}") for number in range(3_000)] == list(range(3_000))


def test_a_log_keeps_the_newest_items() -> None:
    log: Log[int] = Log(MemoryServer(clock=lambda: 0), kept=10)
    for number in range(1_000):
        log.append(number)
    assert log.after(0)[-10:] == list(range(990, 1_000))
    assert len(log.after(0)) < 20
    assert log.after(log.end - 3) == [997, 998, 999]
    assert log.after(log.end) == []
