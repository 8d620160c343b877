"""Purgatory: fetches wait for bytes, for a deadline, or for nothing any more."""

import weakref
from collections.abc import Awaitable, Callable

import trio
import trio.testing

from kpy.replica.purgatory import STALE_TIMERS, ParkedFetch, Purgatory


class Log:
    """As much of a log as the purgatory asks: where its segments begin."""

    def __init__(self) -> None:
        self.segment_bases = [0]
        self.log_start_offset = self.log_end_offset = 0

    def ends_in_later_segment(self, offset: int, end_offset: int) -> bool:
        return any(offset < base <= end_offset for base in self.segment_bases)


class Partition:
    """As much of a partition as the purgatory touches."""

    def __init__(self) -> None:
        self.log = Log()
        self.waiting: dict[ParkedFetch, None] = {}
        self.waiting_followers: dict[ParkedFetch, None] = {}
        self.high_watermark = self.last_stable_offset = 0


def simulate(scenario: Callable[[Purgatory], Awaitable[None]]) -> None:
    """Runs `scenario` beside the purgatory's timer on a clock that jumps ahead whenever everybody waits."""

    async def main() -> None:
        purgatory = Purgatory()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(purgatory.run)
            await scenario(purgatory)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def parked(partition: Partition, missing_bytes: int, finished: list[float]) -> ParkedFetch:
    return ParkedFetch([partition], missing_bytes, lambda: finished.append(trio.current_time()))  # type: ignore[list-item]


def test_a_fetch_ends_with_the_append_that_completes_its_bytes() -> None:
    async def scenario(purgatory: Purgatory) -> None:
        partition, finished = Partition(), list[float]()
        purgatory.park(parked(partition, 100, finished), 500)
        purgatory.appended(partition, 0, 60)
        assert not finished
        purgatory.appended(partition, 0, 40)
        assert len(finished) == 1
        assert not partition.waiting
        assert len(purgatory) == 0

    simulate(scenario)


def test_a_fetch_ends_with_the_first_bytes_of_another_segment() -> None:
    async def scenario(purgatory: Purgatory) -> None:
        partition, consumed, followed = Partition(), list[float](), list[float]()
        purgatory.park(parked(partition, 1000, consumed), 500)
        follower = parked(partition, 1000, followed)
        follower.of_follower = True
        purgatory.park(follower, 500)
        partition.high_watermark = partition.log.log_end_offset = 3
        purgatory.appended(partition, 0, 60)
        purgatory.appended_for_followers(partition, 0, 60)
        partition.log.segment_bases.append(3)
        assert not consumed + followed
        partition.log.log_end_offset = 4
        purgatory.appended_for_followers(partition, 3, 10)
        assert (len(consumed), len(followed)) == (0, 1), "it is not committed yet"
        partition.high_watermark = 4
        purgatory.appended(partition, 3, 10)
        assert len(consumed) == 1

    simulate(scenario)


def test_a_reader_of_committed_records_is_not_woken_by_what_is_undecided_but_by_its_end() -> None:
    async def scenario(purgatory: Purgatory) -> None:
        partition, committed, uncommitted = Partition(), list[float](), list[float]()
        fetch = parked(partition, 50, committed)
        fetch.committed_only = True
        purgatory.park(fetch, 500)
        purgatory.park(parked(partition, 50, uncommitted), 500)
        partition.high_watermark = 3
        purgatory.appended(partition, 0, 60)
        assert (len(committed), len(uncommitted)) == (0, 1)
        partition.high_watermark = partition.last_stable_offset = 4
        purgatory.decided(partition)
        assert len(committed) == 1
        partition.high_watermark = partition.last_stable_offset = 5
        fetch = parked(partition, 50, committed)
        fetch.committed_only = True
        purgatory.park(fetch, 500)
        purgatory.appended(partition, 0, 60)
        assert len(committed) == 2

    simulate(scenario)


def test_a_fetch_ends_at_its_deadline_and_only_once() -> None:
    async def scenario(purgatory: Purgatory) -> None:
        partition, finished = Partition(), list[float]()
        start = trio.current_time()
        purgatory.park(parked(partition, 1, finished), 500)
        await trio.sleep(2)
        assert finished == [start + 0.5]
        purgatory.appended(partition, 0, 10)
        assert len(finished) == 1

    simulate(scenario)


def test_a_later_fetch_with_an_earlier_deadline_is_in_time() -> None:
    async def scenario(purgatory: Purgatory) -> None:
        partition, late, early = Partition(), list[float](), list[float]()
        start = trio.current_time()
        purgatory.park(parked(partition, 1, late), 10_000)
        await trio.sleep(1)
        purgatory.park(parked(partition, 1, early), 200)
        await trio.sleep(1)
        assert early == [start + 1.2]
        assert not late

    simulate(scenario)


def test_a_fetch_whose_client_is_gone_is_never_finished() -> None:
    async def scenario(purgatory: Purgatory) -> None:
        partition, finished = Partition(), list[float]()
        fetch = parked(partition, 1, finished)
        purgatory.park(fetch, 100)
        purgatory.forget(fetch)
        purgatory.appended(partition, 0, 10)
        await trio.sleep(1)
        assert not finished

    simulate(scenario)


def test_within_a_round_fetches_are_answered_at_its_end() -> None:
    async def scenario(purgatory: Purgatory) -> None:
        partition, finished = Partition(), list[float]()
        purgatory.park(parked(partition, 1, finished), 500)
        purgatory.begin_round()
        purgatory.appended(partition, 0, 10)
        assert not finished
        purgatory.end_round()
        assert len(finished) == 1

    simulate(scenario)


def test_timers_of_finished_fetches_do_not_pile_up() -> None:
    async def scenario(purgatory: Purgatory) -> None:
        partition, finished = Partition(), list[float]()
        for _ in range(10_000):
            purgatory.park(parked(partition, 1, finished), 60_000)
            purgatory.appended(partition, 0, 1)
        assert len(finished) == 10_000
        assert len(purgatory._timers) <= STALE_TIMERS + 2

    simulate(scenario)


def test_a_timer_does_not_keep_what_a_finished_fetch_would_have_answered() -> None:
    class Answer:
        def send(self) -> None:
            return

    async def scenario(purgatory: Purgatory) -> None:
        partition, answer = Partition(), Answer()
        let_go = weakref.ref(answer)
        purgatory.park(ParkedFetch([partition], 1, answer.send), 60_000)  # type: ignore[list-item]
        del answer
        purgatory.appended(partition, 0, 1)
        assert len(purgatory._timers) == 1
        assert let_go() is None

    simulate(scenario)


def test_whoever_asks_in_a_round_is_called_once_when_it_ends_and_outside_of_one_not_at_all() -> None:
    async def scenario(purgatory: Purgatory) -> None:
        called: list[str] = []
        assert not purgatory.after_round(lambda: called.append("before"))
        purgatory.begin_round()
        assert purgatory.after_round(lambda: called.append("in it"))
        assert called == []
        purgatory.end_round()
        purgatory.begin_round()
        purgatory.end_round()
        assert called == ["in it"]

    simulate(scenario)
