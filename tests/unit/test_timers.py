"""Deadlines by name: against a plain dictionary, and in size."""

import random

from kpy.timers import STALE_ENTRIES_KEPT, Timers


def test_keys_come_out_in_the_order_of_their_deadlines() -> None:
    timers: Timers[str] = Timers()
    timers.arm("b", 20)
    timers.arm("a", 10)
    timers.arm("c", 10)
    assert timers.next_deadline_ms() == 10
    assert [timers.pop_due(20) for _ in range(4)] == ["a", "c", "b", None]
    assert timers.next_deadline_ms() is None


def test_a_deadline_can_be_pushed_back_drawn_near_and_cancelled() -> None:
    timers: Timers[str] = Timers()
    timers.arm("a", 10)
    timers.arm("a", 30)
    assert timers.pop_due(29) is None
    assert timers.next_deadline_ms() == 30
    timers.arm("a", 5)
    assert timers.pop_due(5) == "a"
    assert timers.pop_due(1_000) is None
    timers.arm("a", 7)
    timers.cancel("a")
    timers.cancel("a")
    assert timers.next_deadline_ms() is None


def test_timers_do_what_a_dictionary_searched_every_time_would_do() -> None:
    chance = random.Random(1)
    timers: Timers[int] = Timers()
    model: dict[int, int] = {}
    now_ms = 0
    for _ in range(5_000):
        key = chance.randrange(12)
        what = chance.random()
        if what < 0.6:
            model[key] = now_ms + chance.randrange(100)
            timers.arm(key, model[key])
        elif what < 0.7:
            model.pop(key, None)
            timers.cancel(key)
        else:
            now_ms += chance.randrange(20)
            popped: list[int] = []
            while (due := timers.pop_due(now_ms)) is not None:
                popped.append(due)
            assert sorted(popped) == sorted(each for each, deadline_ms in model.items() if deadline_ms <= now_ms)
            assert [model[each] for each in popped] == sorted(model.pop(each) for each in popped)
        assert timers.next_deadline_ms() == min(model.values(), default=None)
        assert timers.deadline_ms(key) == model.get(key)


def test_cancelled_deadlines_do_not_pile_up() -> None:
    timers: Timers[int] = Timers()
    for key in range(10_000):
        timers.arm(key, 1_000_000)
        timers.cancel(key)
    assert len(timers._heap) <= STALE_ENTRIES_KEPT + 1
