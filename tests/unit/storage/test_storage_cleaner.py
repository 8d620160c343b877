"""Compaction: what stays, what goes, when, and what it costs."""

import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from kpy.records.batch import NewRecord, Record, build_batch, iter_records, read_header
from kpy.records.compression import Codec
from kpy.records.validate import ValidBatch
from kpy.storage import cleaner, offset_map
from kpy.storage.fs import OsFs
from kpy.storage.log import Log
from kpy.storage.log_config import DAY_MS, LONG_MAX, LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig(cleanup_policy=frozenset({"compact"}), segment_bytes=2000, index_interval_bytes=100)
TOPIC_ID = bytes(range(16))
NOW_MS = 100 * DAY_MS
SIXTEEN_KEYS = (18 * 24, 16 * offset_map.DICT_ENTRY_BYTES)
"""The buffer of a map of so many, in C and in Python."""


class Compacted:
    """A compacted log with its directories; `now_ms` is the time of everything that happens."""

    def __init__(self, root: Path, config: LogConfig = CONFIG) -> None:
        self.now_ms = NOW_MS
        self.config = config
        self.root = root
        self.dirs = self.open()
        self.log = self.dirs.create_log("t", 0, TOPIC_ID, config)

    def open(self) -> LogDirs:
        return LogDirs.open(
            [self.root],
            broker_id=1,
            cluster_id=None,
            now_ms=self.now_ms,
            config_for=lambda topic: self.config,
            rng=random.Random(1),
        )

    def append(self, *pairs: tuple[str, str | None], **options: object) -> int:
        """Append one batch of (key, value); its base offset."""
        records = [NewRecord(self.now_ms, key.encode(), value and value.encode()) for key, value in pairs]
        data = build_batch(records, **options)  # type: ignore[arg-type]  # the options are build_batch's own
        return self.append_batch(data)

    def append_batch(self, data: bytes) -> int:
        info = self.log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, self.now_ms)
        self.log.high_watermark = self.log.log_end_offset
        return info.base_offset

    def end_transaction(self, producer_id: int, abort: bool) -> int:
        key, value = struct.pack(">hh", 0, 0 if abort else 1), struct.pack(">hi", 0, 0)
        records = [NewRecord(self.now_ms, key, value)]
        data = build_batch(records, producer_id=producer_id, producer_epoch=0, transactional=True, control=True)
        return self.append_batch(data)

    def clean(self) -> None:
        """Roll, so that all can be cleaned, and compact what is due."""
        self.log.roll()
        self.dirs.clean(self.now_ms)

    def records(self) -> list[Record]:
        batches = self.log.read_batches(self.log.log_start_offset, self.log.log_end_offset)
        return [record for header, data in batches if not header.is_control for record in iter_records(data)]

    def pairs(self) -> list[tuple[int, str, str | None]]:
        return [
            (each.offset, (each.key or b"").decode(), None if each.value is None else each.value.decode())
            for each in self.records()
        ]


@pytest.fixture(params=["Python", "C"], autouse=True)
def natively(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks at the records."""
    accelerator = request.getfixturevalue("accelerator") if request.param == "C" else None
    monkeypatch.setattr(offset_map, "NATIVE", accelerator)


@pytest.fixture
def compacted(tmp_path: Path) -> Compacted:
    return Compacted(tmp_path)


def test_last_record_of_each_key_stays_at_its_offset(compacted: Compacted) -> None:
    compacted.append(("a", "1"), ("b", "1"), ("c", "1"))
    compacted.append(("a", "2"), ("d", "1"))
    compacted.append(("b", "2"))
    compacted.clean()
    assert compacted.pairs() == [(2, "c", "1"), (3, "a", "2"), (4, "d", "1"), (5, "b", "2")]
    assert compacted.log.log_end_offset == 6


@pytest.mark.parametrize("codec", list(Codec))
def test_rewritten_batches_keep_their_codec_and_bounds(compacted: Compacted, codec: Codec) -> None:
    compacted.append(("a", "1"), ("b", "1"), ("a", "2"), codec=codec)
    compacted.append(("b", "2"))
    compacted.clean()
    header, data = next(iter(compacted.log.read_batches(0, 3)))
    assert (header.base_offset, header.last_offset, header.records_count, header.codec) == (0, 2, 1, codec)
    assert [(each.offset, each.timestamp, each.value) for each in iter_records(data)] == [(2, NOW_MS, b"2")]


def test_records_without_key_go(compacted: Compacted) -> None:
    compacted.append_batch(build_batch([NewRecord(NOW_MS, None, b"no key"), NewRecord(NOW_MS, b"a", b"1")]))
    compacted.clean()
    assert compacted.pairs() == [(1, "a", "1")]


def test_active_segment_is_never_cleaned(compacted: Compacted) -> None:
    compacted.append(("a", "1"))
    compacted.log.roll()
    compacted.append(("a", "2"))
    compacted.dirs.clean(NOW_MS)
    assert compacted.pairs() == [(0, "a", "1"), (1, "a", "2")]


def test_log_is_cleaned_when_its_dirty_ratio_is_exceeded(compacted: Compacted) -> None:
    for value in range(20):
        compacted.append(*((f"key {key}", f"{value}") for key in range(20)))
    compacted.clean()
    assert len(compacted.pairs()) == 20
    compacted.append(("key 1", "new"))
    compacted.clean()
    assert len(compacted.pairs()) == 21, "one record in twenty is less than half of the log"
    compacted.append(*((f"key {key}", "new") for key in range(1, 20)))
    compacted.clean()
    assert sorted(pair[2] or "" for pair in compacted.pairs()) == ["19"] + ["new"] * 19


def test_segments_that_have_become_small_are_merged(compacted: Compacted) -> None:
    for value in range(100):
        compacted.append((f"{value % 3}", f"{value:050}"))
    compacted.clean()
    assert len(compacted.log.segment_base_offsets()) > 5
    for value in range(100, 200):
        compacted.append((f"{value % 3}", f"{value:050}"))
    compacted.clean()
    assert compacted.log.segment_base_offsets()[1] >= 100
    assert [pair[:2] for pair in compacted.pairs()] == [(197, "2"), (198, "0"), (199, "1")]
    compacted.dirs.close()
    reopened = compacted.open()
    assert reopened.logs["t", 0].log_end_offset == 200
    assert reopened.logs["t", 0].read(0, 10_000, 200, True) is not None
    reopened.close()


def test_tombstone_stays_for_delete_retention_ms_after_the_round_that_met_it(compacted: Compacted) -> None:
    compacted.append(("a", "1"), ("b", "1"))
    compacted.append(("a", None))
    compacted.append(("end", "1"))
    compacted.clean()
    assert compacted.pairs() == [(1, "b", "1"), (2, "a", None), (3, "end", "1")]
    header, _ = next(iter(compacted.log.read_batches(2, 3)))
    assert header.has_delete_horizon
    assert header.base_timestamp == NOW_MS + DAY_MS
    assert [each.timestamp for each in compacted.records()] == [NOW_MS] * 3

    compacted.now_ms += DAY_MS - 1
    compacted.append(*(("filler", "x" * 100) for _ in range(20)))
    compacted.clean()
    assert (2, "a", None) in compacted.pairs()

    compacted.now_ms += 1
    compacted.append(*(("filler", "x" * 100) for _ in range(20)))
    compacted.clean()
    assert (2, "a", None) not in compacted.pairs()
    assert (1, "b", "1") in compacted.pairs()


def test_last_batch_of_a_live_producer_stays_empty_and_restores_its_sequence(compacted: Compacted) -> None:
    compacted.append(("a", "1"), ("a", "2"), producer_id=9, producer_epoch=0, base_sequence=0)
    compacted.append(("a", "3"))
    compacted.append(("end", "1"))
    compacted.clean()
    assert compacted.pairs() == [(2, "a", "3"), (3, "end", "1")]
    header, _ = next(iter(compacted.log.read_batches(0, 2)))
    assert (header.producer_id, header.base_sequence, header.last_offset, header.records_count) == (9, 0, 1, 0)
    compacted.dirs.close(clean=False)
    for snapshot in (compacted.root / "t-0").glob("*.snapshot"):
        snapshot.unlink()
    reopened = compacted.open()
    assert reopened.logs["t", 0].producer_state.producers[9].last_sequence == 1
    reopened.close()


def test_transaction_that_was_aborted_before_the_dirty_part_does_not_abort_the_next_one(compacted: Compacted) -> None:
    """Its marker lies below the first dirty offset, where the round does not look for keys."""
    compacted.append(("a", "1"))
    begin = {"producer_id": 5, "producer_epoch": 0, "transactional": True}
    compacted.append(("a", "aborted"), base_sequence=0, **begin)
    compacted.end_transaction(5, abort=True)
    compacted.clean()
    compacted.append(("a", None), base_sequence=1, **begin)
    compacted.end_transaction(5, abort=False)
    compacted.append(("filler", "x" * 1000))
    compacted.clean()
    assert [(offset, key) for offset, key, _ in compacted.pairs()] == [(3, "a"), (5, "filler")]


def test_aborted_records_go_and_their_marker_after_them(compacted: Compacted) -> None:
    begin = {"producer_id": 5, "producer_epoch": 0, "transactional": True}
    compacted.append(("a", "1"))
    compacted.append(("a", "aborted"), base_sequence=0, **begin)
    compacted.log.roll()
    marker = compacted.end_transaction(5, abort=True)
    compacted.append(("b", "committed"), base_sequence=1, **begin)
    last_marker = compacted.end_transaction(5, abort=False)
    compacted.append(("end", "1"))
    compacted.clean()
    assert compacted.pairs() == [(0, "a", "1"), (3, "b", "committed"), (5, "end", "1")]
    controls = [header for header, _ in compacted.log.read_batches(0, 6) if header.is_control]
    assert [header.base_offset for header in controls] == [marker, last_marker]
    assert [txn.last_offset for txn in compacted.log.aborted_transactions(0, 6)] == [marker]

    compacted.append(*(("filler", "x" * 100) for _ in range(20)))
    compacted.clean()
    controls = [header for header, _ in compacted.log.read_batches(0, 6) if header.is_control]
    assert [header.has_delete_horizon for header in controls] == [True, False]
    assert compacted.log.aborted_transactions(0, 6) == []

    compacted.now_ms += DAY_MS + 1
    compacted.append(*(("filler", "x" * 100) for _ in range(20)))
    compacted.clean()
    controls = [header for header, _ in compacted.log.read_batches(0, 6) if header.is_control]
    assert [header.base_offset for header in controls] == [last_marker]


def test_records_of_an_open_transaction_are_not_touched(compacted: Compacted) -> None:
    compacted.append(("a", "1"))
    compacted.append(("a", "2"))
    compacted.log.roll()
    compacted.append(("a", "open"), producer_id=5, producer_epoch=0, base_sequence=0, transactional=True)
    compacted.append(("a", "3"))
    compacted.clean()
    assert compacted.pairs() == [(1, "a", "2"), (2, "a", "open"), (3, "a", "3")]


def test_young_records_wait_for_min_compaction_lag_ms(tmp_path: Path) -> None:
    config = LogConfig(cleanup_policy=frozenset({"compact"}), min_compaction_lag_ms=1000)
    compacted = Compacted(tmp_path, config)
    compacted.append(("a", "1"), ("a", "2"))
    compacted.log.roll()
    compacted.append(("a", "3"))
    compacted.clean()
    assert len(compacted.pairs()) == 3
    compacted.now_ms += 1001
    compacted.dirs.clean(compacted.now_ms)
    assert compacted.pairs() == [(2, "a", "3")]


def test_max_compaction_lag_ms_cleans_below_the_dirty_ratio_and_rolls(tmp_path: Path) -> None:
    config = LogConfig(cleanup_policy=frozenset({"compact"}), max_compaction_lag_ms=1000)
    compacted = Compacted(tmp_path, config)
    compacted.append(*((f"{key}", "x" * 50) for key in range(50)))
    compacted.clean()
    compacted.append(("1", "new"))
    compacted.now_ms += 1001
    compacted.append(("2", "new"))
    assert len(compacted.log.segment_base_offsets()) == 3
    compacted.dirs.clean(compacted.now_ms)
    assert (1, "1", "x" * 50) not in compacted.pairs()


def test_round_stops_where_its_map_is_full_and_the_next_goes_on(compacted: Compacted) -> None:
    for value in ("old", "new"):
        for key in range(40):
            compacted.append((f"key {key}", value))
    compacted.log.roll()
    rounds = 0
    checkpoint: int | None = None
    while True:
        task = cleaner.plan(compacted.log, OsFs(), checkpoint, NOW_MS, lambda size_bytes, others_ran=False: None)
        if task is None:
            break
        result = replace(task, map_bytes=SIXTEEN_KEYS[offset_map.NATIVE is None]).run()
        assert checkpoint is None or result.end_offset > checkpoint
        assert cleaner.swap_in(compacted.log, task, result)
        checkpoint = result.end_offset
        rounds += 1
    assert rounds >= 5
    assert compacted.pairs() == [(40 + key, f"key {key}", "new") for key in range(40)]


def test_swap_is_given_up_when_the_log_has_changed_meanwhile(compacted: Compacted) -> None:
    compacted.append(("a", "1"), ("a", "2"))
    compacted.log.roll()
    job = compacted.dirs.clean_job(NOW_MS)
    assert job is not None
    job.run()
    assert list((compacted.root / "t-0").glob("*.cleaned"))
    compacted.log.truncate_fully_and_start_at(100)
    job.done()
    assert compacted.log.segment_base_offsets() == [100]
    assert not list((compacted.root / "t-0").glob("*.cleaned"))


def test_swap_is_given_up_when_a_truncation_has_been_written_over(compacted: Compacted) -> None:
    for _ in range(2):
        compacted.append(("a", "1"))
        compacted.append(("b", "1"))
        compacted.log.roll()
    job = compacted.dirs.clean_job(NOW_MS)
    assert job is not None
    job.run()
    compacted.log.truncate_to(1)
    compacted.append(("c", "1"))
    compacted.log.roll()
    compacted.append(("d", "1"))
    compacted.append(("e", "1"))
    compacted.log.roll()
    assert compacted.log.segment_base_offsets() == [0, 2, 4]
    job.done()
    assert [pair[1] for pair in compacted.pairs()] == ["a", "c", "d", "e"]


def test_what_is_written_after_a_truncation_is_dirty_again(compacted: Compacted) -> None:
    compacted.append(("a", "1"), ("a", "2"))
    compacted.append(("b", "1"))
    compacted.clean()
    compacted.log.truncate_to(2)
    compacted.append(("a", "3"))
    compacted.clean()
    assert compacted.pairs() == [(2, "a", "3")]


def test_deleting_a_log_during_its_round_disturbs_nothing(compacted: Compacted) -> None:
    compacted.append(("a", "1"), ("a", "2"))
    compacted.log.roll()
    job = compacted.dirs.clean_job(NOW_MS)
    assert job is not None
    compacted.dirs.delete_log("t", 0, 0)
    job.run()
    job.done()
    assert compacted.dirs.offline_paths() == []


def test_damaged_log_is_left_alone(compacted: Compacted) -> None:
    compacted.append(("a", "1"))
    compacted.append(("a", "2"))
    compacted.log.roll()
    path = compacted.root / "t-0" / f"{0:020d}.log"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    compacted.dirs.clean(NOW_MS)
    assert path.read_bytes() == data
    assert compacted.dirs.clean_job(NOW_MS) is None


def test_retention_applies_to_logs_that_are_compacted_and_deleted(tmp_path: Path) -> None:
    config = LogConfig(
        cleanup_policy=frozenset({"compact", "delete"}), retention_ms=1000, max_compaction_lag_ms=LONG_MAX
    )
    compacted = Compacted(tmp_path, config)
    compacted.append(("a", "1"))
    compacted.log.roll()
    compacted.now_ms += 2000
    compacted.append(("b", "1"))
    compacted.dirs.retention(compacted.now_ms)
    compacted.dirs.remove_deleted(compacted.now_ms)
    assert compacted.pairs() == [(1, "b", "1")]


def test_log_that_is_only_compacted_keeps_old_segments(compacted: Compacted) -> None:
    compacted.append(("a", "1"))
    compacted.log.roll()
    compacted.dirs.retention(NOW_MS + 365 * DAY_MS)
    compacted.dirs.remove_deleted(NOW_MS + 365 * DAY_MS)
    assert compacted.pairs() == [(0, "a", "1")]


def test_cleaner_checkpoint_is_written_after_each_round_and_survives_a_restart(compacted: Compacted) -> None:
    compacted.append(("a", "1"), ("a", "2"))
    compacted.clean()
    assert (compacted.root / "cleaner-offset-checkpoint").read_text() == "0\n1\nt 0 2\n"
    compacted.dirs.close()
    reopened = compacted.open()
    assert reopened.clean_job(NOW_MS) is None
    reopened.close()


def read_first(log: Log) -> bytes:
    region = log.read(0, 1, log.log_end_offset, True)
    assert region is not None
    return region.read()


def test_region_handed_out_before_the_swap_stays_readable(compacted: Compacted) -> None:
    compacted.append(("a", "1"), ("b", "1"))
    compacted.append(("a", "2"), ("b", "2"))
    compacted.log.roll()
    region = compacted.log.read(0, 10_000, 4, True)
    assert region is not None
    before = region.read()
    compacted.dirs.clean(NOW_MS)
    compacted.dirs.retention(NOW_MS + CONFIG.file_delete_delay_ms)
    compacted.dirs.remove_deleted(NOW_MS + CONFIG.file_delete_delay_ms)
    assert not list((compacted.root / "t-0").glob("*.deleted"))
    assert region.read() == before
    assert read_first(compacted.log) != before[: len(read_first(compacted.log))]
