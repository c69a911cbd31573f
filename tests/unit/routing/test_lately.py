"""The ring of ended tasks: the newest first, and never more than it keeps."""

from routing.services.lately import Ended, Lately


def test_the_ring_keeps_the_newest() -> None:
    now_ms = 0

    def clock() -> int:
        return now_ms

    lately = Lately(clock, kept=2)
    for number in range(3):
        now_ms += 10
        lately.note(f"s:{number}", "succeeded", attempt=1, node_id="n", held_ms=5)
    assert len(lately) == 2
    assert list(lately) == [
        Ended(30, "s:2", "succeeded", 1, "n", 5),
        Ended(20, "s:1", "succeeded", 1, "n", 5),
    ]
