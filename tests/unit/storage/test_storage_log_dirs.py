"""The data directories: identity, locks, checkpoints, and logs that come and go."""

import gc
import os
import random
import re
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from kpy.errors import StorageError
from kpy.ids import ZERO_ID
from kpy.records.batch import NewRecord, build_batch, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.fs import Fs, OsFs
from kpy.storage.log import Log
from kpy.storage.log_config import LONG_MAX, LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig()
TOPIC_ID = bytes(range(16))
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"


def open_dirs(
    *paths: Path,
    broker_id: int = 1,
    cluster_id: str | None = None,
    config: LogConfig = CONFIG,
    fs: Fs | None = None,
    syncing_threads: int = 1,
) -> LogDirs:
    return LogDirs.open(
        paths,
        broker_id=broker_id,
        cluster_id=cluster_id,
        now_ms=0,
        config_for=lambda topic: config,
        rng=random.Random(1),
        fs=fs,
        syncing_threads=syncing_threads,
    )


def test_logs_closed_in_several_threads_are_clean(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path, syncing_threads=4)
    for partition in range(20):
        append(dirs.create_log("t", partition, TOPIC_ID, CONFIG))
    dirs.close()
    dirs = open_dirs(tmp_path)
    assert dirs.was_clean
    assert {log.log_end_offset for log in dirs.logs.values()} == {1}
    assert all(log.recovery_point == 1 for log in dirs.logs.values())
    dirs.close()


class OrderedFs(OsFs):
    """Notes in which order directories are synced and looked into."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def sync_dir(self, path: str) -> None:
        super().sync_dir(path)
        self.seen.append(("synced", os.path.basename(path)))

    def list(self, path: str) -> list[str]:  # type: ignore[override]  # OsFs binds os.listdir
        self.seen.append(("listed", os.path.basename(path)))
        return os.listdir(path)


def test_after_a_crash_directories_are_synced_before_anything_is_decided_by_what_is_in_them(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    for partition in range(6):
        append(dirs.create_log("t", partition, TOPIC_ID, CONFIG))
    dirs.close(clean=False)
    fs = OrderedFs()
    dirs = open_dirs(tmp_path, fs=fs, syncing_threads=4)
    for partition in range(6):
        assert fs.seen.index(("synced", f"t-{partition}")) < fs.seen.index(("listed", f"t-{partition}"))
    dirs.close()


def append(log: Log, timestamp: int = 1) -> None:
    data = build_batch([NewRecord(timestamp, None, b"value")])
    log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, 0)
    log.high_watermark = log.log_end_offset


def test_new_directory_gets_an_identity_that_stays(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path / "data")
    cluster_id = dirs.cluster_id
    dirs.close()
    text = (tmp_path / "data" / "meta.properties").read_text()
    assert text == f"version=0\nbroker.id=1\ncluster.id={cluster_id}\n"
    dirs = open_dirs(tmp_path / "data")
    assert dirs.cluster_id == cluster_id
    dirs.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"version=0\nbroker.id=2\ncluster.id={CLUSTER_ID}\n", "belongs to broker 2"),
        ("version=0\nbroker.id=1\ncluster.id=BBBBBBBBBBBBBBBBBBBBBB\n", "belongs to cluster BBBB"),
        (f"version=1\nnode.id=1\ncluster.id={CLUSTER_ID}\n", "version 1"),
        ("version=0\nbroker.id=one\n", "damaged"),
        ("version=0\nbroker.id=1\n", "damaged"),
        ("nonsense", "damaged"),
    ],
)
def test_directory_of_another_owner_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "meta.properties").write_text(text)
    with pytest.raises(StorageError, match=message):
        open_dirs(tmp_path, cluster_id=CLUSTER_ID)
    assert (tmp_path / "meta.properties").read_text() == text


def test_properties_of_apache_kafka_are_read_and_left_as_they_are(tmp_path: Path) -> None:
    text = f"#\n#Sat Nov 21 10:51:07 UTC 2026\ncluster.id={CLUSTER_ID}\nversion=0\ndirectory.id=x\nbroker.id=1\n"
    (tmp_path / "meta.properties").write_text(text)
    dirs = open_dirs(tmp_path)
    assert dirs.cluster_id == CLUSTER_ID
    dirs.close()
    assert (tmp_path / "meta.properties").read_text() == text


def test_directories_of_two_clusters_do_not_go_together(tmp_path: Path) -> None:
    for name, cluster_id in (("a", CLUSTER_ID), ("b", "B" * 22)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "meta.properties").write_text(f"version=0\nbroker.id=1\ncluster.id={cluster_id}\n")
    with pytest.raises(StorageError, match="belongs to cluster"):
        open_dirs(tmp_path / "a", tmp_path / "b")


def test_path_that_is_a_file_is_refused_with_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Cannot use the data directories"):
        open_dirs(tmp_path / "file")


def test_clean_shutdown_leaves_its_marker_last_and_the_next_start_takes_it_away(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    log = dirs.create_log("t", 0, TOPIC_ID, CONFIG)
    append(log)
    marker = tmp_path / ".kafka_cleanshutdown"
    assert not marker.exists()
    dirs.close()
    assert marker.read_text() == '{"version":0,"brokerEpoch":-1}'
    assert sorted(path.name for path in (tmp_path / "t-0").iterdir()) == [
        f"{0:020d}.index",
        f"{0:020d}.log",
        f"{0:020d}.timeindex",
        f"{1:020d}.snapshot",
        "leader-epoch-checkpoint",
        "partition.metadata",
    ]
    dirs = open_dirs(tmp_path)
    assert dirs.was_clean
    assert not marker.exists()
    dirs.close(clean=False)
    assert not marker.exists()
    dirs = open_dirs(tmp_path)
    assert not dirs.was_clean
    dirs.close()


def test_checkpoints_have_recovery_points_high_watermarks_and_log_starts(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    log, other = dirs.create_log("t", 0, TOPIC_ID, CONFIG), dirs.create_log("t", 1, TOPIC_ID, CONFIG)
    for _ in range(3):
        append(log)
    append(other)
    log.flush()
    log.high_watermark = 2
    log.advance_log_start_offset(1)
    dirs.checkpoint(0)
    assert (tmp_path / "recovery-point-offset-checkpoint").read_text() == "0\n2\nt 0 3\nt 1 0\n"
    assert (tmp_path / "replication-offset-checkpoint").read_text() == "0\n2\nt 0 2\nt 1 1\n"
    assert (tmp_path / "log-start-offset-checkpoint").read_text() == "0\n1\nt 0 1\n"
    assert list(dirs.checkpoint_jobs()) == []
    dirs.close(clean=False)
    log = open_dirs(tmp_path).logs["t", 0]
    assert (log.log_start_offset, log.high_watermark, log.recovery_point, log.log_end_offset) == (1, 2, 3, 3)


def test_logs_keep_their_topic_ids(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    dirs.create_log("t", 0, TOPIC_ID, CONFIG)
    dirs.create_log("u", 0, TOPIC_ID, CONFIG)
    dirs.close()
    (tmp_path / "u-0" / "partition.metadata").write_bytes(b"")
    dirs = open_dirs(tmp_path)
    assert dirs.logs["t", 0].topic_id == TOPIC_ID
    assert dirs.logs["u", 0].topic_id == ZERO_ID
    dirs.logs["u", 0].assign_topic_id(TOPIC_ID)
    dirs.close()
    dirs = open_dirs(tmp_path)
    assert dirs.logs["u", 0].topic_id == TOPIC_ID
    dirs.close()


def test_new_logs_go_where_the_fewest_are(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path / "a", tmp_path / "b")
    for partition in range(5):
        dirs.create_log("t", partition, TOPIC_ID, CONFIG)
    assert sorted(len(list((tmp_path / name).glob("t-*"))) for name in "ab") == [2, 3]
    dirs.close()
    dirs = open_dirs(tmp_path / "a", tmp_path / "b")
    assert sorted(dirs.logs) == [("t", partition) for partition in range(5)]
    dirs.close()


def test_of_a_partition_in_two_directories_the_longer_log_is_kept_and_the_other_set_aside(tmp_path: Path) -> None:
    for name, count in (("a", 1), ("b", 3)):
        dirs = open_dirs(tmp_path / name, cluster_id=CLUSTER_ID)
        log = dirs.create_log("t", 0, TOPIC_ID, CONFIG)
        for _ in range(count):
            append(log)
        dirs.close()
    dirs = open_dirs(tmp_path / "a", tmp_path / "b")
    assert dirs.logs["t", 0].log_end_offset == 3
    assert dirs.logs["t", 0].dir == tmp_path / "b" / "t-0"
    (stray,) = (tmp_path / "a").glob("t-0*")
    assert re.fullmatch(r"t-0\.[0-9a-f]{32}-stray", stray.name)
    assert (stray / f"{0:020d}.log").stat().st_size > 0
    dirs.close()
    dirs = open_dirs(tmp_path / "a", tmp_path / "b")
    dirs.retention(LONG_MAX)
    dirs.remove_deleted(LONG_MAX)
    assert stray.exists()
    dirs.close()


def test_partition_in_two_directories_for_two_topics_of_that_name_is_refused(tmp_path: Path) -> None:
    for name, topic_id in (("a", TOPIC_ID), ("b", bytes(range(1, 17)))):
        dirs = open_dirs(tmp_path / name, cluster_id=CLUSTER_ID)
        dirs.create_log("t", 0, topic_id, CONFIG)
        dirs.close()
    with pytest.raises(StorageError, match="t-0 is in two data directories"):
        open_dirs(tmp_path / "a", tmp_path / "b")


def test_deleted_log_is_renamed_first_and_removed_later(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    log = dirs.create_log("t" * 249, 7, TOPIC_ID, CONFIG)
    append(log)
    region = log.read(0, 1000, 1, True)
    dirs.delete_log("t" * 249, 7, 1000)
    assert dirs.logs == {}
    (renamed,) = tmp_path.glob("*-delete")
    assert len(renamed.name) == 255
    assert re.fullmatch(r"t+-7\.[0-9a-f]{32}-delete", renamed.name)
    dirs.retention(1000)
    dirs.remove_deleted(1000)
    assert renamed.exists()
    dirs.retention(1000 + 60_000)
    dirs.remove_deleted(1000 + 60_000)
    assert not renamed.exists()
    assert region is not None
    assert len(region.read()) == region.size
    again = dirs.create_log("t" * 249, 7, TOPIC_ID, CONFIG)
    assert again.log_end_offset == 0
    dirs.close()


def test_deletion_that_a_stop_interrupted_is_finished(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    append(dirs.create_log("t", 0, TOPIC_ID, CONFIG))
    dirs.delete_log("t", 0, 0)
    dirs.close()
    dirs = open_dirs(tmp_path)
    assert dirs.logs == {}
    dirs.retention(0)
    dirs.remove_deleted(0)
    assert not list(tmp_path.glob("t-*"))
    dirs.close()


def test_other_directories_are_left_alone(tmp_path: Path) -> None:
    for name in ("lost+found", "t-0.0123456789abcdef0123456789abcdef-future", "notes", "t-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "file-0").touch()
    dirs = open_dirs(tmp_path)
    assert dirs.logs == {}
    dirs.close()
    assert len(list(tmp_path.iterdir())) == 5 + len({".lock", ".kafka_cleanshutdown", "meta.properties"}) + len(
        list(tmp_path.glob("*checkpoint"))
    )


def test_flush_jobs_make_rolled_segments_durable_and_by_flush_ms_all(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    log = dirs.create_log("t", 0, TOPIC_ID, replace(CONFIG, flush_ms=LONG_MAX))
    append(log)
    log.roll()
    append(log)
    for job in dirs.flush_jobs(1000):
        dirs.carry_out(job)
    assert log.recovery_point == 1
    log.config = replace(CONFIG, flush_ms=100)
    for job in dirs.flush_jobs(1000):
        dirs.carry_out(job)
    assert log.recovery_point == 2
    append(log)
    assert list(dirs.flush_jobs(1099)) == []
    assert len(list(dirs.flush_jobs(1100))) == 1
    dirs.close()


def test_files_lost_below_the_log_start_begin_a_new_log_there(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    log = dirs.create_log("t", 0, TOPIC_ID, CONFIG)
    for _ in range(5):
        append(log)
    log.advance_log_start_offset(4)
    dirs.close()
    for path in (tmp_path / "t-0").glob("0*"):
        path.unlink()
    dirs = open_dirs(tmp_path)
    log = dirs.logs["t", 0]
    assert (log.log_start_offset, log.log_end_offset) == (4, 4)
    dirs.close()


def test_one_failing_directory_leaves_the_others_serving(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path / "a", tmp_path / "b")
    logs = [dirs.create_log("t", partition, TOPIC_ID, CONFIG) for partition in range(4)]
    dirs.fail(str(tmp_path / "a"), OSError(5, "Input/output error"))
    assert [log.is_offline for log in logs] == [log.dir.parent.name == "a" for log in logs]
    assert dirs.create_log("u", 0, TOPIC_ID, CONFIG).dir.parent.name == "b"
    dirs.close()
    assert not (tmp_path / "a" / ".kafka_cleanshutdown").exists()
    assert (tmp_path / "b" / ".kafka_cleanshutdown").exists()


def test_checkpoint_of_an_earlier_life_is_corrected(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    log = dirs.create_log("t", 0, TOPIC_ID, CONFIG)
    append(log)
    append(log)
    log.advance_log_start_offset(1)
    dirs.checkpoint(0)
    dirs.close(clean=False)
    dirs = open_dirs(tmp_path)
    dirs.logs["t", 0].truncate_fully_and_start_at(0)
    dirs.checkpoint(0)
    dirs.close(clean=False)
    assert (tmp_path / "log-start-offset-checkpoint").read_text() == "0\n0\n"
    dirs = open_dirs(tmp_path)
    assert dirs.logs["t", 0].log_start_offset == 0
    dirs.close()


def test_a_deleted_log_is_let_go_at_once_and_not_by_the_garbage_collector(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    append(dirs.create_log("t", 0, TOPIC_ID, CONFIG))
    dirs.close()
    dirs = open_dirs(tmp_path)
    gc.disable()
    try:
        log = weakref.ref(dirs.logs["t", 0])
        append(dirs.logs["t", 0])
        dirs.delete_log("t", 0, now_ms=0)
        assert log() is None
    finally:
        gc.enable()
    dirs.close()
