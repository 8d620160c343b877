"""DescribeLogDirs and AlterReplicaLogDirs: what lies where, and how it is moved (KIP-113, KIP-827)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from log_broker import append, ask, create_topic, open_broker

from kpy.api.broker import Broker
from kpy.errors import ErrorCode
from kpy.wire import alter_replica_log_dirs, describe_log_dirs
from kpy.wire.alter_replica_log_dirs import AlterReplicaLogDir, AlterReplicaLogDirsRequest, AlterReplicaLogDirTopic
from kpy.wire.describe_log_dirs import DescribableLogDirTopic, DescribeLogDirsRequest

Row = tuple[str, str, int, int, int, bool]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """t-0 and u-0 in directory a, t-1 in b."""
    with open_broker(tmp_path / "a", tmp_path / "b") as broker:
        create_topic(broker, "t", 2)
        create_topic(broker, "u")
        append(broker, "t", b"x" * 1000)
        yield broker


def describe(broker: Broker, topics: list[DescribableLogDirTopic] | None = None, version: int = 4) -> list[Row]:
    """(directory's name, topic, partition, size, lag, future) of each log."""
    answer = ask(broker, describe_log_dirs, DescribeLogDirsRequest(topics), version)
    return [
        (
            Path(result.log_dir).name,
            topic.name,
            each.partition_index,
            each.partition_size,
            each.offset_lag,
            each.is_future_key,
        )
        for result in answer.results
        for topic in result.topics
        for each in topic.partitions
    ]


def alter(broker: Broker, path: object, *partitions: tuple[str, int], version: int = 2) -> list[ErrorCode]:
    topics = [AlterReplicaLogDirTopic(topic, [index]) for topic, index in partitions]
    request = AlterReplicaLogDirsRequest([AlterReplicaLogDir(str(path), topics)])
    answer = ask(broker, alter_replica_log_dirs, request, version)
    return [ErrorCode(each.error_code) for topic in answer.results for each in topic.partitions]


@pytest.mark.parametrize("version", range(6))
def test_each_version_describes_every_log(broker: Broker, version: int) -> None:
    size = broker.replicas.partition("t", 0).log.size_bytes
    assert size > 1000
    assert describe(broker, version=version) == [
        ("a", "t", 0, size, 0, False),
        ("a", "u", 0, 0, 0, False),
        ("b", "t", 1, 0, 0, False),
    ]


def test_only_the_named_partitions_are_described(broker: Broker) -> None:
    named = [DescribableLogDirTopic("t", [1, 7]), DescribableLogDirTopic("x", [0])]
    assert [row[:3] for row in describe(broker, named)] == [("b", "t", 1)]
    assert describe(broker, []) == []


def test_file_systems_have_sizes_since_version_4(broker: Broker, tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    for version, expected in ((3, -1), (4, found.f_blocks * found.f_frsize)):
        results = ask(broker, describe_log_dirs, DescribeLogDirsRequest(None), version).results
        assert [result.total_bytes for result in results] == [expected, expected]
        assert all(0 < result.usable_bytes <= expected for result in results) or expected == -1


def test_directory_that_has_failed_has_an_error_and_no_logs(broker: Broker, tmp_path: Path) -> None:
    broker.replicas.log_dirs.fail(str(tmp_path / "a"), OSError(5, "Input/output error"))
    failed, sound = ask(broker, describe_log_dirs, DescribeLogDirsRequest(None), 4).results
    assert (failed.error_code, failed.topics, failed.total_bytes) == (ErrorCode.KAFKA_STORAGE_ERROR, [], -1)
    assert (sound.error_code, len(sound.topics)) == (ErrorCode.NONE, 1)


@pytest.mark.parametrize("version", range(3))
def test_each_version_moves_a_log(broker: Broker, tmp_path: Path, version: int) -> None:
    assert alter(broker, tmp_path / "b", ("t", 0), version=version) == [ErrorCode.NONE]
    size = broker.replicas.partition("t", 0).log.size_bytes
    assert [row for row in describe(broker) if row[:3] != ("a", "u", 0)] == [
        ("a", "t", 0, size, 0, False),
        ("b", "t", 1, 0, 0, False),
        ("b", "t", 0, 0, 1, True),
    ]
    broker.replicas.log_dirs.mover.move_all(0)
    assert ("b", "t", 0, size, 0, False) in describe(broker)
    assert append(broker, "t", b"goes on").dir == tmp_path / "b" / "t-0"


def test_log_that_is_there_already_does_not_move(broker: Broker, tmp_path: Path) -> None:
    assert alter(broker, tmp_path / "a", ("t", 0)) == [ErrorCode.NONE]
    assert not any(row[5] for row in describe(broker))


def test_unknown_directory_is_refused(broker: Broker, tmp_path: Path) -> None:
    for path in (tmp_path / "c", "", "a", f"{tmp_path}/a/"):
        assert alter(broker, path, ("t", 0), ("x", 0)) == [ErrorCode.LOG_DIR_NOT_FOUND] * 2


def test_failed_directory_is_refused(broker: Broker, tmp_path: Path) -> None:
    broker.replicas.log_dirs.fail(str(tmp_path / "b"), OSError(5, "Input/output error"))
    assert alter(broker, tmp_path / "b", ("t", 0)) == [ErrorCode.KAFKA_STORAGE_ERROR]
    assert alter(broker, tmp_path / "a", ("t", 1)) == [ErrorCode.KAFKA_STORAGE_ERROR]


def test_partition_to_come_is_created_where_it_was_wanted(broker: Broker, tmp_path: Path) -> None:
    assert alter(broker, tmp_path / "a", ("v", 0)) == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    create_topic(broker, "v", 2)
    assert {row[:3] for row in describe(broker) if row[1] == "v"} == {("a", "v", 0), ("b", "v", 1)}


def test_last_word_counts_for_a_partition_named_twice(broker: Broker, tmp_path: Path) -> None:
    topic = AlterReplicaLogDirTopic("t", [0])
    dirs = [AlterReplicaLogDir(str(tmp_path / name), [topic]) for name in "ba"]
    answer = ask(broker, alter_replica_log_dirs, AlterReplicaLogDirsRequest(dirs), 2)
    assert [each.error_code for each in answer.results[0].partitions] == [0]
    assert not any(row[5] for row in describe(broker))
