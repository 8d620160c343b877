"""Waiting in the place of trio's loop: it is spared the events of one descriptor, and everything else still happens."""

import math
import os
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import kpy.net.trio_loop
from kpy.net.trio_loop import WaitInPlaceOfTrio


class LoopTurns(trio.abc.Instrument):
    """Counts the turns of the loop, and how often it would sleep."""

    def __init__(self) -> None:
        self.count = 0
        self.sleeps = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1
        self.sleeps += timeout > 0


class Pipe:
    """What is waited for: a byte is told by whoever puts it."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)

    def put(self) -> None:
        os.write(self._writer, b"x")

    def take(self) -> int:
        """How many bytes were put."""
        try:
            return len(os.read(self.reader, 100))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        os.close(self.reader)
        os.close(self._writer)


async def take_all(pipe: Pipe, waiting: WaitInPlaceOfTrio, count: int) -> None:
    while count > 0:
        await waiting.until_readable()
        count -= pipe.take()


@asynccontextmanager
async def taker_of(pipe: Pipe) -> AsyncGenerator[None]:
    """A task beside the caller takes what is put, for good."""

    async def take(task_status: trio.TaskStatus[None]) -> None:
        async with WaitInPlaceOfTrio(pipe.reader) as waiting:
            task_status.started()
            await take_all(pipe, waiting, 1_000_000)

    async with trio.open_nursery() as nursery:
        await nursery.start(take)
        yield
        nursery.cancel_scope.cancel()


def run(main: Callable[[Pipe], Awaitable[None]], clock: trio.abc.Clock | None = None) -> None:
    pipe = Pipe()

    async def bounded() -> None:
        with trio.fail_after(10):
            await main(pipe)

    try:
        trio.run(bounded, clock=clock)
    finally:
        pipe.close()


def answer_from_a_thread(pipe: Pipe, asked: threading.Semaphore, count: int) -> threading.Thread:
    def answer() -> None:
        for _ in range(count):
            asked.acquire()
            pipe.put()

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def turns_for_a_hundred_answers() -> int:
    """How often the loop goes around while a thread answers so often, each time when it was asked."""
    turns = LoopTurns()

    async def main(pipe: Pipe) -> None:
        asked = threading.Semaphore(0)
        thread = answer_from_a_thread(pipe, asked, 100)
        async with WaitInPlaceOfTrio(pipe.reader) as waiting:
            trio.lowlevel.add_instrument(turns)
            for _ in range(100):
                asked.release()
                await take_all(pipe, waiting, 1)
            trio.lowlevel.remove_instrument(turns)
        thread.join()

    run(main)
    return turns.count


def test_the_loop_does_not_go_around_for_what_is_waited_for() -> None:
    assert turns_for_a_hundred_answers() == 0


def test_without_what_trio_does_not_promise_one_waits_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(kpy.net.trio_loop, "_seek", find_nothing)
    assert turns_for_a_hundred_answers() >= 100


def test_all_who_are_runnable_run_first() -> None:
    """Those too whose turn is later in the round of the loop in which the waiting task is run."""

    async def main(pipe: Pipe) -> None:
        done = 0

        async def step_often() -> None:
            nonlocal done
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            done += 1
            if done == 10:
                pipe.put()

        async with WaitInPlaceOfTrio(pipe.reader) as waiting, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(step_often)
            await take_all(pipe, waiting, 1)

    run(main)


def test_tasks_that_were_runnable_before_are_not_forgotten() -> None:
    async def main(pipe: Pipe) -> None:
        async def put() -> None:
            pipe.put()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put)
            async with WaitInPlaceOfTrio(pipe.reader) as waiting:
                await take_all(pipe, waiting, 1)

    run(main)


def test_deadlines_are_met() -> None:
    async def main(pipe: Pipe) -> None:
        async with taker_of(pipe):
            with trio.move_on_after(0.01) as scope:
                await trio.sleep_forever()
            assert scope.cancelled_caught

    run(main)


def test_threads_are_heard() -> None:
    async def main(pipe: Pipe) -> None:
        async with taker_of(pipe):
            for number in range(20):
                assert await trio.to_thread.run_sync(lambda answer=number: answer) == number

    run(main)


def test_signals_are_heard() -> None:
    async def main(pipe: Pipe) -> None:
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            async with taker_of(pipe):
                threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1)).start()
                async for number in signals:
                    assert number == signal.SIGUSR1
                    break

    run(main)


def test_what_others_wait_for_through_trio_comes() -> None:
    async def main(pipe: Pipe) -> None:
        other = Pipe()
        async with taker_of(pipe):
            for _ in range(20):
                thread = threading.Thread(target=other.put)
                thread.start()
                await trio.lowlevel.wait_readable(other.reader)
                assert other.take() == 1
                thread.join()
        other.close()

    run(main)


def test_of_two_who_wait_in_one_loop_neither_starves() -> None:
    async def main(pipe: Pipe) -> None:
        other = Pipe()
        async with WaitInPlaceOfTrio(pipe.reader) as first, WaitInPlaceOfTrio(other.reader) as second:
            for _ in range(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(take_all, pipe, first, 1)
                    nursery.start_soon(take_all, other, second, 1)
                    threading.Thread(target=other.put).start()
                    threading.Thread(target=pipe.put).start()
        other.close()

    run(main)


def test_another_may_wait_when_the_first_is_done() -> None:
    async def main(pipe: Pipe) -> None:
        for _ in range(2):
            turns = LoopTurns()
            async with WaitInPlaceOfTrio(pipe.reader) as waiting:
                trio.lowlevel.add_instrument(turns)
                threading.Thread(target=pipe.put).start()
                await take_all(pipe, waiting, 1)
            assert turns.count == 0
            trio.lowlevel.remove_instrument(turns)

    run(main)


def test_the_loop_can_still_be_waited_for_until_it_is_idle() -> None:
    async def main(pipe: Pipe) -> None:
        async with taker_of(pipe):
            await trio.testing.wait_all_tasks_blocked()

    run(main)


def test_a_clock_still_jumps_when_nothing_else_is_to_do() -> None:
    async def main(pipe: Pipe) -> None:
        async with taker_of(pipe):
            before = trio.current_time()
            await trio.sleep(5)
            assert trio.current_time() - before == pytest.approx(5)

    run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_who_waits_can_be_cancelled() -> None:
    async def main(pipe: Pipe) -> None:
        async with WaitInPlaceOfTrio(pipe.reader) as waiting:
            with trio.move_on_after(0.01) as scope:
                await take_all(pipe, waiting, 1)
            assert scope.cancelled_caught
            scope = trio.CancelScope(deadline=-math.inf)
            with scope:
                await take_all(pipe, waiting, 1)
            assert scope.cancelled_caught

    run(main)


def test_descriptors_are_given_back() -> None:
    async def main(pipe: Pipe) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            async with WaitInPlaceOfTrio(pipe.reader):
                pass
        assert len(os.listdir("/proc/self/fd")) == before

    run(main)
