"""What may lie in a data directory that kpy did not leave there: one clear line each, no traceback, nothing deleted."""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from kpy.errors import ApiError, ErrorCode, StorageError
from kpy.records.batch import NewRecord, build_batch, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.fs import MAX_FILE_BYTES
from kpy.storage.log import Log
from kpy.storage.log_config import DAY_MS, LONG_MAX, LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig(segment_bytes=200)
TOPIC_ID = bytes(range(16))
NOW_MS = 1_700_000_000_000
YEAR_9999_MS = 253_402_300_799_000


def open_dirs(*paths: Path, now_ms: int = NOW_MS) -> LogDirs:
    return LogDirs.open(
        paths,
        broker_id=1,
        cluster_id="AAAAAAAAAAAAAAAAAAAAAA",
        now_ms=now_ms,
        config_for=lambda topic: CONFIG,
        rng=random.Random(1),
    )


def append(log: Log, timestamp: int = NOW_MS) -> None:
    data = build_batch([NewRecord(timestamp, None, b"x" * 100)])
    log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, NOW_MS)
    log.high_watermark = log.log_end_offset


def files(root: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A closed directory with t-0, of three segments."""
    dirs = open_dirs(tmp_path)
    log = dirs.create_log("t", 0, TOPIC_ID, CONFIG)
    for _ in range(3):
        append(log)
    dirs.close()
    return tmp_path


def end_offset(*paths: Path) -> int:
    dirs = open_dirs(*paths)
    try:
        return dirs.logs["t", 0].log_end_offset
    finally:
        dirs.close()


def test_foreign_files_and_directories_are_named_and_left_alone(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = {"notes.txt": b"1", "backup/t-0/1.log": b"2", "t-0/README": b"3", "t-0/core.1234": b"4", "t-x/a": b"5"}
    for name, content in foreign.items():
        (data_dir / name).parent.mkdir(exist_ok=True, parents=True)
        (data_dir / name).write_bytes(content)
    (data_dir / "lost+found").mkdir()
    assert end_offset(data_dir) == 3
    assert files(data_dir).items() >= foreign.items()
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert all("is no partition's directory; leaving it alone" in warning for warning in warnings)


def test_half_written_segment_is_cut_where_it_is_whole(data_dir: Path) -> None:
    (data_dir / ".kafka_cleanshutdown").unlink()
    (data_dir / "recovery-point-offset-checkpoint").unlink()
    last = data_dir / "t-0" / f"{2:020d}.log"
    last.write_bytes(last.read_bytes()[:-1])
    assert end_offset(data_dir) == 2


@pytest.mark.parametrize(
    "name",
    [
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
        "log-start-offset-checkpoint",
        "cleaner-offset-checkpoint",
        "t-0/leader-epoch-checkpoint",
        "t-0/partition.metadata",
        f"t-0/{0:020d}.index",
        f"t-0/{0:020d}.timeindex",
        f"t-0/{3:020d}.snapshot",
    ],
)
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"0\n5\nt 0", b"\xff\xfe garbage \n"])
def test_damaged_small_files_cost_no_record(data_dir: Path, name: str, content: bytes) -> None:
    (data_dir / name).write_bytes(content)
    assert end_offset(data_dir) == 3


def test_empty_segment_at_the_end_is_an_empty_segment(data_dir: Path) -> None:
    (data_dir / "t-0" / f"{3:020d}.log").touch()
    assert end_offset(data_dir) == 3


@pytest.mark.parametrize("crashed", [False, True])
def test_renamed_segment_is_named_and_not_truncated(data_dir: Path, crashed: bool) -> None:
    directory = data_dir / "t-0"
    for kind in ("log", "index", "timeindex"):
        (directory / f"{2:020d}.{kind}").rename(directory / f"{5:020d}.{kind}")
    if crashed:
        (data_dir / ".kafka_cleanshutdown").unlink()
        (data_dir / "recovery-point-offset-checkpoint").unlink()
    before = (directory / f"{5:020d}.log").read_bytes()
    with pytest.raises(StorageError, match=r"00005.log holds records from offset 2 on. Was it renamed"):
        open_dirs(data_dir)
    assert (directory / f"{5:020d}.log").read_bytes() == before


def test_segment_under_a_foreign_name_is_left_alone(data_dir: Path) -> None:
    directory = data_dir / "t-0"
    (directory / f"{2:020d}.log").rename(directory / f"{2:020d}.log.bak")
    before = (directory / f"{2:020d}.log.bak").read_bytes()
    assert end_offset(data_dir) == 2
    assert (directory / f"{2:020d}.log.bak").read_bytes() == before


def test_renamed_partition_is_another_partition(data_dir: Path) -> None:
    (data_dir / "t-0").rename(data_dir / "t-7")
    dirs = open_dirs(data_dir)
    assert list(dirs.logs) == [("t", 7)]
    assert dirs.logs["t", 7].log_end_offset == 3
    dirs.close()


@pytest.mark.parametrize("name", [f"t-0/{2:020d}.log", "t-0/leader-epoch-checkpoint", "meta.properties"])
def test_what_cannot_be_opened_takes_its_directory_offline_and_names_the_file(
    data_dir: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    # A directory in the place of a file cannot be opened for writing by anyone, not even root.
    (data_dir / name).unlink()
    (data_dir / name).mkdir()
    other = tmp_path_factory.mktemp("other")
    dirs = open_dirs(data_dir, other)
    assert dirs.offline_paths() == [str(data_dir)]
    assert name in caplog.text
    dirs.create_log("u", 0, TOPIC_ID, CONFIG)
    dirs.close()
    with pytest.raises(StorageError, match="Cannot use the data directories") as refused:
        open_dirs(data_dir)
    assert name in str(refused.value)


def test_file_with_a_partitions_name_is_in_the_way_of_that_partition_only(tmp_path: Path) -> None:
    (tmp_path / "t-0").touch()
    dirs = open_dirs(tmp_path)
    with pytest.raises(ApiError, match="t-0 is in the way") as refused:
        dirs.create_log("t", 0, TOPIC_ID, CONFIG)
    assert refused.value.code is ErrorCode.KAFKA_STORAGE_ERROR
    dirs.create_log("t", 1, TOPIC_ID, CONFIG)
    assert not dirs.offline_paths()
    dirs.close()
    assert (tmp_path / "t-0").is_file()


def test_directory_given_twice_or_by_a_link_is_refused(
    data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(data_dir)
    for second in (data_dir, data_dir / "..", link):
        path = second / data_dir.name if second.name == ".." else second
        with pytest.raises(StorageError, match="are the same data directory"):
            open_dirs(data_dir, path)
    assert end_offset(data_dir) == 3


def test_new_directory_beside_known_ones_is_pointed_out(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A mount that is missing looks like a new directory."""
    missing = data_dir.parent / f"{data_dir.name}-mount"
    open_dirs(data_dir, missing).close()
    assert f"{missing} is new; is a disk to be mounted there?" in caplog.text
    caplog.clear()
    open_dirs(data_dir, missing).close()
    assert not caplog.text


def test_missing_directory_that_cannot_be_made_leaves_the_others(data_dir: Path) -> None:
    (data_dir / "file").touch()
    dirs = open_dirs(data_dir, data_dir / "file" / "mount")
    assert dirs.offline_paths() == [str(data_dir / "file" / "mount")]
    assert dirs.logs["t", 0].log_end_offset == 3
    dirs.close()


def test_clock_that_jumps_back_a_day_deletes_nothing_and_still_flushes(data_dir: Path) -> None:
    dirs = open_dirs(data_dir)
    log = dirs.logs["t", 0]
    log.config = replace(CONFIG, flush_ms=100, retention_ms=1000)
    list(dirs.flush_jobs(NOW_MS))
    append(log)
    earlier_ms = NOW_MS - DAY_MS
    dirs.retention(earlier_ms)
    assert log.log_start_offset == 0
    for job in dirs.flush_jobs(earlier_ms):
        dirs.carry_out(job)
    assert log.recovery_point == log.log_end_offset, "nothing would be flushed for a day"
    dirs.close()
    dirs = open_dirs(data_dir, now_ms=earlier_ms)
    assert dirs.logs["t", 0].log_end_offset == 4
    dirs.close()


def test_records_of_the_year_9999_stay_and_are_pointed_out_once(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dirs = open_dirs(data_dir)
    log = dirs.create_log("u", 0, TOPIC_ID, replace(CONFIG, retention_ms=1000))
    append(log, YEAR_9999_MS)
    append(log, NOW_MS)
    for _ in range(2):
        dirs.retention(NOW_MS + DAY_MS)
    assert log.log_start_offset == 0
    (warning,) = [record.getMessage() for record in caplog.records if "retention.ms" in record.getMessage()]
    assert "u-0" in warning
    log.config = replace(log.config, retention_ms=-1, retention_bytes=0)
    dirs.retention(NOW_MS + DAY_MS)
    assert log.log_start_offset == 2
    dirs.close()


def test_records_without_timestamps_go_by_the_time_of_their_file(data_dir: Path) -> None:
    dirs = open_dirs(data_dir)
    log = dirs.create_log("u", 0, TOPIC_ID, replace(CONFIG, retention_ms=1000))
    append(log, -1)
    append(log, -1)
    path = data_dir / "u-0" / f"{0:020d}.log"
    written_ms = path.stat().st_mtime_ns // 1_000_000
    dirs.retention(written_ms + 900)
    assert log.log_start_offset == 0
    dirs.retention(written_ms + 60_000)
    assert log.log_start_offset == 2
    dirs.close()


def test_largest_timestamp_of_all_is_stored_and_found(data_dir: Path) -> None:
    dirs = open_dirs(data_dir)
    log = dirs.create_log("u", 0, TOPIC_ID, CONFIG)
    for timestamp in (LONG_MAX, 0, LONG_MAX - 1):
        append(log, timestamp)
    found = log.max_timestamp()
    assert found is not None
    assert found[:2] == (LONG_MAX, 0)
    dirs.retention(NOW_MS)
    dirs.close()
    dirs = open_dirs(data_dir)
    assert dirs.logs["u", 0].log_end_offset == 3
    dirs.close()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (f"t-0/{0:020d}.txnindex", "recovering a segment"),
        (f"t-0/{3:020d}.snapshot", "passing over a producer snapshot"),
        ("t-0/leader-epoch-checkpoint", "rebuilding the leader epochs"),
        ("t-0/partition.metadata", "ignoring a topic id"),
        ("recovery-point-offset-checkpoint", "ignoring a checkpoint"),
    ],
)
def test_a_file_that_is_larger_than_any_sound_one_is_not_read_to_its_end(
    data_dir: Path, caplog: pytest.LogCaptureFixture, name: str, line: str
) -> None:
    with (data_dir / name).open("wb") as file:
        file.truncate(100 * MAX_FILE_BYTES)
    assert end_offset(data_dir) == 3
    (said,) = (message for message in caplog.messages if line in message)
    assert f"has more than the {MAX_FILE_BYTES:,} bytes" in said
