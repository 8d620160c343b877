"""What a broker does every so often: a fault in it is told, and does not end the broker."""

import pytest
import trio
from trio.testing import MockClock

from kpy.server import Chore


def test_a_fault_in_a_chore_is_logged_and_the_chore_is_done_again(caplog: pytest.LogCaptureFixture) -> None:
    done_at_s: list[float] = []

    async def sweeping() -> None:
        done_at_s.append(trio.current_time() - started_s)
        if len(done_at_s) == 1:
            raise ZeroDivisionError("nothing to sweep")
        if len(done_at_s) == 3:
            nursery.cancel_scope.cancel()

    async def main() -> None:
        nonlocal nursery, started_s
        started_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Chore(lambda: 500, sweeping).run)

    nursery: trio.Nursery
    started_s = 0.0
    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert done_at_s == pytest.approx([0.5, 1.0, 1.5])
    (record,) = caplog.records
    assert record.getMessage() == "sweeping met a fault in kpy; trying again in 500 ms"
    assert record.exc_text is not None
    assert "nothing to sweep" in record.exc_text


def test_the_interval_of_a_chore_is_asked_for_anew_each_time() -> None:
    intervals_ms = iter((1000, 10))
    done_at_s: list[float] = []

    async def sweeping() -> None:
        done_at_s.append(trio.current_time())

    async def main() -> None:
        started_s = trio.current_time()
        with pytest.raises(RuntimeError):  # There is no third one.
            await Chore(lambda: next(intervals_ms), sweeping).run()
        assert [each - started_s for each in done_at_s] == pytest.approx([1.0, 1.01])

    trio.run(main, clock=MockClock(autojump_threshold=0))
