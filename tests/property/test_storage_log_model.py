"""A Log behaves like a plain list of batches, whatever happens to it between the appends.

The model keeps the stamped bytes of every batch. Appends, rolls, truncations, deletions and restarts, clean and not,
are drawn at random, with segments and index intervals so small that every boundary is met; after each step all of the
log is read back in fetches of random sizes.
"""

import random
import shutil
import struct
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kpy.records.batch import NewRecord, build_batch, iter_batches, iter_records, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.fs import OsFs
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

TOPIC_ID = bytes(range(16))
NOW_MS = 10_000_000

offsets = st.integers(0, 200)


class UnsyncedFs(OsFs):
    """No power is cut here, so there is no need to wait for the disk."""

    def fsync(self, fd: int) -> None:  # type: ignore[override]  # OsFs binds os.fsync
        return

    def sync_dir(self, path: str) -> None:
        return


class LogMachine(RuleBasedStateMachine):
    """`batches` is the model: (base offset, last offset, bytes) of each batch in the log."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.batches: list[tuple[int, int, bytes]] = []
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.leader_epoch = 0
        self.rng = random.Random(7)
        self.max_bytes = 1

    @initialize(segment_bytes=st.integers(200, 2000), interval=st.integers(0, 400), max_bytes=st.integers(1, 3000))
    def start(self, segment_bytes: int, interval: int, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.config = LogConfig(
            segment_bytes=segment_bytes, index_interval_bytes=interval, retention_bytes=3000, retention_ms=-1
        )
        self.open()
        self.dirs.create_log("t", 0, TOPIC_ID, self.config)

    def open(self) -> None:
        self.dirs = LogDirs.open(
            [self.root],
            broker_id=1,
            cluster_id=None,
            now_ms=NOW_MS,
            config_for=lambda topic: self.config,
            rng=random.Random(1),
            fs=UnsyncedFs(),
        )

    @property
    def log(self) -> Log:
        return self.dirs.logs["t", 0]

    @rule(timestamps=st.lists(st.integers(0, 50), min_size=1, max_size=4), size=st.integers(0, 90))
    def append(self, timestamps: list[int], size: int) -> None:
        value = self.rng.randbytes(size)
        data = build_batch([NewRecord(timestamp, None, value) for timestamp in timestamps])
        header = read_header(data)
        info = self.log.append_as_leader(ValidBatch(header, memoryview(data), -1), self.leader_epoch, NOW_MS)
        assert (info.base_offset, info.last_offset) == (
            self.log_end_offset,
            self.log_end_offset + len(timestamps) - 1,
        )
        stamped = struct.pack(">qii", info.base_offset, header.batch_length, self.leader_epoch) + data[16:]
        self.batches.append((info.base_offset, info.last_offset, stamped))
        self.log_end_offset = info.last_offset + 1
        self.log.high_watermark = self.log_end_offset

    @rule()
    def change_leader(self) -> None:
        self.leader_epoch += 1

    @rule()
    def roll(self) -> None:
        self.log.roll()

    @rule(clean=st.booleans(), flush=st.booleans(), checkpoint=st.booleans())
    def restart(self, clean: bool, flush: bool, checkpoint: bool) -> None:
        if flush:
            self.log.flush()
        if checkpoint:
            self.dirs.checkpoint(NOW_MS)
        start_is_known = clean or checkpoint or not self.batches or self.log_start_offset == self.batches[0][0]
        first_base = self.log.segment_base_offsets()[0]
        self.dirs.close(clean)
        self.open()
        assert self.log.log_end_offset == self.log_end_offset
        if not start_is_known:
            self.log_start_offset = max(first_base, self.log.log_start_offset)
        self.log.high_watermark = self.log_end_offset

    @rule(fraction=st.floats(0, 1))
    def truncate(self, fraction: float) -> None:
        reach = self.log_end_offset - self.log_start_offset
        offset = self.log_start_offset + int(reach * fraction)
        self.log.truncate_to(offset)
        if offset < self.log_end_offset:
            cut = [base for base, last, _ in self.batches if base < offset <= last]
            self.batches = [batch for batch in self.batches if batch[1] < offset]
            self.log_end_offset = min([offset, *cut])
            self.log_start_offset = min(self.log_start_offset, self.log_end_offset)
        self.dirs.checkpoint(NOW_MS)

    @rule(fraction=st.floats(0, 1))
    def delete_records(self, fraction: float) -> None:
        reach = self.log_end_offset - self.log_start_offset
        offset = self.log_start_offset + int(reach * fraction)
        self.log.advance_log_start_offset(offset)
        self.log_start_offset = offset
        self.dirs.checkpoint(NOW_MS)

    @rule()
    def apply_retention(self) -> None:
        size = self.log.size_bytes
        self.log.delete_old_segments(NOW_MS)
        first_base = self.log.segment_base_offsets()[0]
        assert self.log.size_bytes >= min(size, self.config.retention_bytes) or first_base <= self.log_start_offset
        self.log_start_offset = max(self.log_start_offset, first_base)
        self.batches = [batch for batch in self.batches if batch[1] >= first_base]
        self.dirs.checkpoint(NOW_MS)

    def visible(self) -> list[tuple[int, int, bytes]]:
        return [batch for batch in self.batches if batch[1] >= self.log_start_offset]

    @invariant()
    def holds_the_same_offsets(self) -> None:
        if not hasattr(self, "dirs"):
            return
        assert self.log.log_end_offset == self.log_end_offset
        assert self.log.log_start_offset == self.log_start_offset
        assert not self.log.is_offline

    @invariant()
    def reads_back_every_batch(self) -> None:
        if not hasattr(self, "dirs"):
            return
        found: list[tuple[int, int, bytes]] = []
        offset = self.log_start_offset
        while (region := self.log.read(offset, self.max_bytes, self.log_end_offset, True)) is not None:
            batches = list(iter_batches(region.read()))
            assert sum(len(data) for _, data in batches) == region.size
            assert region.size <= self.max_bytes or len(batches) == 1
            found += [(header.base_offset, header.last_offset, bytes(data)) for header, data in batches]
            offset = found[-1][1] + 1
        assert found == self.visible()

    @precondition(lambda self: self.batches)
    @rule(fraction=st.floats(0, 1), bound=st.integers(0, 30))
    def reads_stop_at_the_bound(self, fraction: float, bound: int) -> None:
        offset = self.log_start_offset + int((self.log_end_offset - self.log_start_offset) * fraction)
        expected = [
            data
            for base, last, data in self.visible()
            if last >= offset and base < offset + bound and last < offset + bound
        ]
        found: list[bytes] = []
        at = offset
        while (
            at < self.log_end_offset and (region := self.log.read(at, self.max_bytes, offset + bound, True)) is not None
        ):
            for header, data in iter_batches(region.read()):
                found.append(bytes(data))
                at = header.last_offset + 1
        assert found == expected

    @rule(timestamp=st.integers(-1, 52))
    def finds_the_first_record_at_a_time(self, timestamp: int) -> None:
        expected = None
        segment_bases = self.log.segment_base_offsets()
        for base in segment_bases:
            ends = [each for each in segment_bases if each > base] or [self.log_end_offset + 1]
            records = [
                record
                for first, _, data in self.batches
                if base <= first < ends[0]
                for record in iter_records(memoryview(data))
            ]
            if max((record.timestamp for record in records), default=-1) >= timestamp and records:
                matches = [r for r in records if r.timestamp >= timestamp and r.offset >= self.log_start_offset]
                expected = (matches[0].timestamp, matches[0].offset) if matches else None
                break
        found = self.log.offset_for_timestamp(timestamp)
        assert (None if found is None else (found.timestamp, found.offset)) == expected

    @rule()
    def knows_the_epoch_of_every_batch(self) -> None:
        for base, _, data in self.visible():
            assert self.log.leader_epochs.epoch_for(max(base, self.log_start_offset)) == read_header(data)[2]

    def teardown(self) -> None:
        if hasattr(self, "dirs"):
            self.dirs.close()
        shutil.rmtree(self.root)


LogMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
test_log_behaves_like_a_list_of_batches = LogMachine.TestCase
