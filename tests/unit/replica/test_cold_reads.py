"""Cold reads: a few at a time for each data directory, in order, and nobody is forgotten."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from kpy.replica.cold_reads import AT_ONCE, ColdReads
from kpy.storage.cold_read import ColdRead

Told = Callable[[OSError | None], None]


class Threads:
    def __init__(self) -> None:
        self.running: list[tuple[Callable[[], None], Told]] = []

    def __call__(self, job: Callable[[], None], done: Told) -> None:
        self.running.append((job, done))

    def finish_first(self, error: OSError | None = None) -> None:
        job, done = self.running.pop(0)
        job()
        done(error)


def read_of(directory: str, ran: list[str], name: str = "", failures: list[OSError] | None = None) -> ColdRead:
    disk = SimpleNamespace(on_error=(failures if failures is not None else []).append)
    log = SimpleNamespace(data_dir=directory, disk=disk)
    return ColdRead(cast("Any", log), 1, lambda: ran.append(name))


def test_a_directory_has_a_few_reads_at_once_and_the_others_wait_in_order() -> None:
    threads, ran, done = Threads(), list[str](), list[int]()
    reads = ColdReads(threads)
    for number in range(AT_ONCE + 2):
        reads.read_in([read_of("/a", ran, str(number))], lambda number=number: done.append(number))
    assert len(threads.running) == AT_ONCE
    reads.read_in([read_of("/b", ran, "other")], lambda: done.append(-1))
    assert len(threads.running) == AT_ONCE + 1
    while threads.running:
        threads.finish_first()
    assert done == [*range(AT_ONCE), -1, AT_ONCE, AT_ONCE + 1]
    assert sorted(ran) == sorted([*map(str, range(AT_ONCE + 2)), "other"])


def test_several_reads_are_done_when_the_last_one_is() -> None:
    threads, done = Threads(), list[int]()
    ColdReads(threads).read_in([read_of("/a", []), read_of("/b", [])], lambda: done.append(1))
    threads.finish_first()
    assert not done
    threads.finish_first()
    assert done == [1]


def test_a_disk_that_fails_is_known_before_the_reader_looks_again() -> None:
    threads, failures, seen = Threads(), list[OSError](), list[int]()
    ColdReads(threads).read_in([read_of("/a", [], failures=failures)], lambda: seen.append(len(failures)))
    threads.finish_first(OSError("broken"))
    assert seen == [1]
