"""A log against a plain list, through thousands of histories of work and faults: all from a seed.

    python -m tests.fault.storage_histories --histories 10000 --seed 1
    python -m tests.fault.storage_histories --seed 1 --only 4711        # one history again

A history is some lives of a process on one simulated disk (simulated_disk.py states the fault model). In a life,
batches of plain, idempotent and transactional producers are appended, segments roll, logs are truncated, retained,
compacted, flushed and checkpointed; it ends in a clean stop, a kill, a power cut, or a kill or a power cut in the
middle of a call, after a disk error perhaps. Whatever happened:

- The log is what the model says (storage_model.py), and nothing that was truncated or lost before comes back.
- A kill loses nothing acknowledged. A power cut loses nothing that was flushed, which with flush.messages=1 is
  everything acknowledged. At most one batch more than was acknowledged is there: the one that was being written.
- The indexes fit the log, and a disk error is KAFKA_STORAGE_ERROR until the next start.
"""

import argparse
import logging
import multiprocessing
import os
import random
import struct
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import NewRecord, Record, build_batch, iter_records, read_header
from kpy.records.compression import Codec
from kpy.records.validate import ValidBatch
from kpy.storage.fs import read_file
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import DiskJob, LogDirs
from tests.fault.segment_files import check_segment_files
from tests.fault.simulated_disk import DISK_ERRORS, SimulatedDisk
from tests.fault.storage_fs import Crash
from tests.fault.storage_model import IDEMPOTENT, TRANSACTIONAL, Batch, Model, check_log, is_abort, read_all

ROOT = "/data"
LOG_DIR = f"{ROOT}/t-0"
TOPIC_ID = bytes(range(16))
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"
MAX_LIVES = 4
MAX_STEPS = 25
FAULT_WITHIN_CALLS = 40
KEYS = 6
NO_PRODUCER = -1
CODECS = (Codec.NONE, Codec.NONE, Codec.GZIP, Codec.SNAPPY, Codec.LZ4, Codec.ZSTD)


class FindingError(Exception):
    """A history that ended otherwise than it may; the message says how to see it again."""


class History:
    """One history. `run` raises FindingError or AssertionError."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.is_compacted = rng.random() < 0.3
        self.flushes = rng.random() < 0.5
        self.config = LogConfig(
            cleanup_policy=frozenset({"compact" if self.is_compacted else "delete"}),
            segment_bytes=rng.choice([250, 600, 2000]),
            index_interval_bytes=rng.choice([0, 100, 400]),
            retention_bytes=rng.choice([-1, 1500]),
            retention_ms=-1,
            file_delete_delay_ms=rng.choice([0, 20]),
            delete_retention_ms=rng.choice([0, 30]),
            min_cleanable_dirty_ratio=0.0,
            flush_messages=1 if self.flushes else (1 << 63) - 1,
        )
        self.disk = SimulatedDisk()
        self.model = Model(self.is_compacted, self.flushes)
        self.now_ms = 1_000_000
        self.leader_epoch = 0
        self.acknowledged = 0
        work: list[Callable[[], None]] = [self.roll, self.flush, self.upkeep, self.change_leader, self.truncate]
        work += [self.compact] if self.is_compacted else [self.retention, self.delete_records]
        # Each history does only some of what can be done, so that each kind of work meets itself often, too.
        self.work = [each for each in work if rng.random() < 0.6]

    def run(self) -> int:
        """Live, die and look, some times over; how many batches were acknowledged."""
        self.dirs = self.open()
        self.make_log()
        for _ in range(self.rng.randint(1, MAX_LIVES)):
            self.live()
            self.check()
        self.stop_cleanly()
        self.check_files()
        return self.acknowledged

    @property
    def log(self) -> Log:
        return self.dirs.logs["t", 0]

    def open(self) -> LogDirs:
        return LogDirs.open(
            [ROOT],
            broker_id=1,
            cluster_id=CLUSTER_ID,
            now_ms=self.now_ms,
            config_for=lambda topic: self.config,
            rng=random.Random(1),
            fs=self.disk,
        )

    def make_log(self) -> None:
        if ("t", 0) not in self.dirs.logs:
            self.dirs.create_log("t", 0, TOPIC_ID, self.config)

    # Lives and their ends.

    def live(self) -> None:
        rng = self.rng
        end = rng.choice(
            ["stop", "kill", "cut", "kill in a call", "cut in a call", "error then kill", "error then cut"]
        )
        if end.endswith("in a call"):
            self.disk.arm(rng.randrange(FAULT_WITHIN_CALLS), None)
        elif end.startswith("error"):
            self.disk.arm(rng.randrange(FAULT_WITHIN_CALLS), rng.choice(DISK_ERRORS), rng.random() < 0.5)
        try:
            for _ in range(rng.randrange(MAX_STEPS)):
                self.now_ms += rng.randrange(20)
                self.disk.clock_ms = self.now_ms
                if self.work and rng.random() < 0.3:
                    rng.choice(self.work)()
                else:
                    self.append()
            if end == "stop":
                self.stop_cleanly()
                self.dirs = self.open()
                self.recovered(lost_up_to=self.model.end)
                return
        except Crash:
            pass
        except ApiError as error:
            if not end.startswith("error") or error.code is not ErrorCode.KAFKA_STORAGE_ERROR:
                raise
            self.everything_is_refused()
        # A truncation that was interrupted may still come undone later; a power cut settles what has become of it.
        self.end_process(power_cut="cut" in end or self.model.truncating_to is not None)

    def end_process(self, power_cut: bool) -> None:
        """The process is gone. Now and then the next one dies while it recovers, too."""
        self.disk = self.disk.power_cut(self.rng) if power_cut else self.disk.killed()
        while self.rng.random() < 0.2:
            self.disk.arm(self.rng.randrange(FAULT_WITHIN_CALLS), None)
            try:
                self.dirs = self.open()
            except Crash:
                cut_again = self.rng.random() < 0.5
                power_cut = power_cut or cut_again
                self.disk = self.disk.power_cut(self.rng) if cut_again else self.disk.killed()
            else:
                self.disk.disarm()
                break
        else:
            self.dirs = self.open()
        if power_cut and self.is_compacted:
            self.adopt_with_gaps()
        self.recovered(lost_up_to=self.model.flushed_end if power_cut else self.model.end)

    def everything_is_refused(self) -> None:
        """After a disk error nothing is acknowledged, until the next start."""
        end = self.log.log_end_offset
        for attempt in (
            lambda: self.log.append_as_leader(_valid(b"refused"), 0, 0),
            lambda: self.log.read(end, 1, end, True),
        ):
            with pytest.raises(ApiError) as refused:
                attempt()
            assert refused.value.code is ErrorCode.KAFKA_STORAGE_ERROR

    def stop_cleanly(self) -> None:
        self.dirs.close()
        self.model.flushed_end = self.model.end

    def recovered(self, lost_up_to: int) -> None:
        """Compare what a start has found with the model, and make the model what was found."""
        model = self.model
        if ("t", 0) not in self.dirs.logs:
            assert lost_up_to == 0, f"the log is gone, with {lost_up_to} offsets"
            self.make_log()
        log, candidates = self.log, list(model.batches)
        if model.maybe is not None:
            candidates.append(model.maybe)
        floor = lost_up_to if model.truncating_to is None else min(lost_up_to, model.truncating_to)
        end, start = log.log_end_offset, log.log_start_offset
        highest = max([model.end, *(each.header.last_offset + 1 for each in candidates[-1:])])
        assert floor <= end <= highest, f"the log ends at {end}, expected {floor} to {highest}"
        # Deleted files and the checkpoint of the log start may be back, never more of the log be gone than was asked.
        assert start <= model.log_start, f"the log starts at {start}, not at {model.log_start}"
        model.batches = [each for each in candidates if each.header.last_offset < end]
        is_inside = any(each.header.base_offset < end <= each.header.last_offset for each in candidates)
        assert end == start or not is_inside, f"the log ends at {end}, inside a batch"
        model.end, model.flushed_end = end, min(model.flushed_end, end)
        model.hide_below(start)
        model.maybe = model.truncating_to = None
        log.high_watermark = end

    def adopt_with_gaps(self) -> None:
        """A compacted log may lack the unflushed tail of a segment and go on with the next: recovery cannot tell.

        Each key still has the value that was flushed last, or a later one.
        """
        model, log = self.model, self.dirs.logs.get(("t", 0))
        if log is None:
            return
        batches = [Batch(read_header(data), data, is_abort(data)) for data in read_all(log, self.read_bytes())]
        certain_end = min(model.flushed_end, model.end if model.truncating_to is None else model.truncating_to)
        newest: dict[bytes | None, int] = {}
        for each in batches:
            newest.update({record.key: record.offset for record in iter_records(memoryview(each.data))})
        last_flushed: dict[bytes | None, Record] = {}
        for each in model.batches:
            for record in iter_records(memoryview(each.data)):
                if record.value is None or each.header.is_transactional:
                    last_flushed.pop(record.key, None)  # Tombstones and aborted records may be gone in the end.
                elif each.header.last_offset < certain_end:
                    last_flushed[record.key] = record
        for record in last_flushed.values():
            assert newest.get(record.key, -1) >= record.offset, f"{record} was flushed, and there is no later one"
        model.batches, model.end, model.maybe = batches, log.log_end_offset, None

    # Work.

    def append(self) -> None:
        """A batch of a producer drawn at random, or the end of an open transaction."""
        rng, model = self.rng, self.model
        _, begun = model.transactions()
        if begun and rng.random() < 0.3:
            producer_id = rng.choice(sorted(begun))
            abort = rng.random() < 0.5
            data = _marker(producer_id, abort, self.now_ms)
        else:
            producer_id, abort = rng.choice([NO_PRODUCER, NO_PRODUCER, IDEMPOTENT, *TRANSACTIONAL]), None
            data = self.new_batch(producer_id)
        header = read_header(data)
        stamped = header._replace(base_offset=model.end, partition_leader_epoch=self.leader_epoch)
        stamp = struct.pack(">qii", model.end, header.batch_length, self.leader_epoch)
        model.maybe = batch = Batch(stamped, stamp + data[16:], abort)
        info = self.log.append_as_leader(ValidBatch(header, memoryview(data), -1), self.leader_epoch, self.now_ms)
        assert (info.base_offset, info.last_offset, info.is_duplicate) == (model.end, stamped.last_offset, False)
        if self.log.must_flush:
            self.flush_for_producers()
        model.maybe = None
        model.batches.append(batch)
        model.end = stamped.last_offset + 1
        self.log.high_watermark = model.end
        self.acknowledged += 1
        if self.flushes:
            model.flushed_end = model.end

    def flush_for_producers(self) -> None:
        """A round of the group commit, which runs in a thread while the log goes on."""
        job = self.log.flush_job(include_active=True)
        assert job is not None
        try:
            job.run()
        except OSError as error:
            self.log.disk.on_error(error)
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR) from error
        if self.rng.random() < 0.1:
            self.log.roll()
        self.log.flushed(job)

    def new_batch(self, producer_id: int) -> bytes:
        rng = self.rng
        records = [
            NewRecord(
                self.now_ms - rng.randrange(30),
                b"%d" % rng.randrange(KEYS),
                None if rng.random() < 0.2 else rng.randbytes(rng.randrange(90)),
            )
            for _ in range(rng.randint(1, 4))
        ]
        if producer_id == NO_PRODUCER:
            return build_batch(records, codec=rng.choice(CODECS))
        known = self.log.producer_state.producers.get(producer_id)
        # What is known outlives the batches that told it; of a producer with a marker only, 0 is expected.
        sequence = known.last_sequence + 1 if known else self.model.next_sequence(producer_id)
        return build_batch(
            records,
            codec=rng.choice(CODECS),
            producer_id=producer_id,
            producer_epoch=0,
            base_sequence=sequence,
            transactional=producer_id in TRANSACTIONAL,
        )

    def roll(self) -> None:
        self.log.roll()

    def flush(self) -> None:
        self.log.flush()
        self.model.flushed_end = self.model.end

    def upkeep(self) -> None:
        """What a broker does every few seconds."""
        self.carry_out(self.dirs.flush_jobs)
        self.carry_out(self.dirs.checkpoint_jobs)
        self.carry_out(lambda: self.dirs.removal_jobs(self.now_ms))

    def carry_out(self, jobs: Callable[[], Iterable[DiskJob]]) -> None:
        for job in jobs():
            try:
                job.run()
            except OSError as error:
                self.dirs.fail(job.path, error)
                break
            # A broker's jobs run in a thread, while clients go on.
            if self.rng.random() < 0.3:
                self.append()
            job.done()
        self.raise_if_offline()
        self.model.flushed_end = max(self.model.flushed_end, min(self.log.flushed_offset, self.model.end))

    def raise_if_offline(self) -> None:
        """Upkeep has no client to tell of a failed disk; its directory is offline all the same."""
        if self.dirs.offline_paths():
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR)

    def change_leader(self) -> None:
        self.leader_epoch += 1
        self.log.start_leader_epoch(self.leader_epoch)

    def truncate(self) -> None:
        """As a follower does, which checkpoints before it appends again."""
        model = self.model
        floor = max(model.log_start, model.compacted_to)
        if floor >= model.end:
            return
        boundaries = [each.header.base_offset for each in model.batches if each.header.base_offset >= floor]
        if self.is_compacted:
            # In front of a gap, where a restarted log ends is where its last batch does.
            ends = {each.header.last_offset + 1 for each in model.batches}
            offsets = [each for each in boundaries if each in ends]
        else:
            offsets = [*boundaries, *range(floor, model.end)]
        if not offsets:
            return
        offset = self.rng.choice(offsets)
        cut = [each for each in model.batches if each.header.last_offset < offset]
        bases = [each.header.base_offset for each in model.batches[:1]]
        model.truncating_to = cut[-1].header.last_offset + 1 if cut else min([offset, *bases])
        self.log.truncate_to(offset)
        self.dirs.checkpoint(self.now_ms)
        self.raise_if_offline()
        end = self.log.log_end_offset
        assert model.truncating_to <= end <= offset, f"truncated to {end}, asked for {offset}"
        model.batches, model.end, model.truncating_to = cut, end, None
        model.log_start, model.flushed_end = min(model.log_start, end), min(model.flushed_end, end)
        model.hidden_below = min(model.hidden_below, end)

    def delete_records(self) -> None:
        offset = self.rng.randint(self.model.log_start, self.model.end)
        self.model.hide_below(offset)
        self.log.advance_log_start_offset(offset)

    def retention(self) -> None:
        # Its new log start is on the disk as soon as a file has been renamed.
        self.model.log_start = self.model.end
        self.dirs.retention(self.now_ms)
        self.raise_if_offline()
        self.model.hide_below(self.log.log_start_offset)

    def compact(self) -> None:
        self.model.compacted_to = self.model.end
        self.dirs.clean(self.now_ms)
        self.raise_if_offline()

    # Looking.

    def check(self) -> None:
        check_log(self.log, self.model, self.read_bytes())

    def read_bytes(self) -> int:
        return self.rng.choice([1, 300, 5000])

    def check_files(self) -> None:
        """What a clean stop leaves is what kafka-dump-log accepts."""
        names = [name for name in self.disk.list(LOG_DIR) if name.count(".") == 1]
        check_segment_files(names, lambda name: read_file(self.disk, f"{LOG_DIR}/{name}"))


def _valid(value: bytes) -> ValidBatch:
    data = build_batch([NewRecord(1, b"0", value)])
    return ValidBatch(read_header(data), memoryview(data), -1)


def _marker(producer_id: int, abort: bool, now_ms: int) -> bytes:
    key, value = struct.pack(">hh", 0, 0 if abort else 1), struct.pack(">hi", 0, 0)
    return build_batch(
        [NewRecord(now_ms, key, value)], producer_id=producer_id, producer_epoch=0, transactional=True, control=True
    )


class Tally(NamedTuple):
    histories: int
    acknowledged: int


def run(seed: int, numbers: range) -> Tally:
    """The histories of these numbers. Raises FindingError."""
    # Recoveries say what they found; here that is what is meant to happen.
    logging.disable(logging.ERROR)
    acknowledged = 0
    for number in numbers:
        try:
            acknowledged += History(seed * 0x9E3779B97F4A7C15 + number).run()
        except (Exception, Crash) as error:  # Whatever is raised is what is being looked for.
            again = f"python -m tests.fault.storage_histories --seed {seed} --only {number}"
            raise FindingError(
                f"history {number} of seed {seed}: {type(error).__name__}: {error}; see {again}"
            ) from error
    return Tally(len(numbers), acknowledged)


def run_all(seed: int, count: int, workers: int | None = None) -> Tally:
    """So many histories, on all cores."""
    workers = workers or len(os.sched_getaffinity(0))
    # A fresh interpreter has no threads of a test runner.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        tallies = pool.starmap(run, [(seed, range(worker, count, workers)) for worker in range(workers)])
    return Tally(sum(each.histories for each in tallies), sum(each.acknowledged for each in tallies))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fault.storage_histories", description=__doc__.split("\n")[0])
    parser.add_argument("--histories", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run the history of this number alone, with its traceback")
    options = parser.parse_args()
    if options.only is not None:
        History(options.seed * 0x9E3779B97F4A7C15 + options.only).run()
        return 0
    started = time.monotonic()
    try:
        tally = run_all(options.seed, options.histories)
    except FindingError as finding:
        print(finding, file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    print(f"{tally.histories:,} histories in {seconds:.0f} s: {tally.acknowledged:,} batches acknowledged, none lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
