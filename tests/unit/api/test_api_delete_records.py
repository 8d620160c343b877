"""DeleteRecords: the log start moves, durably, and what may not be deleted is refused with Apache Kafka's codes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from admin_broker import run
from log_broker import append, ask, create_topic, open_broker

from kpy.api.broker import Broker
from kpy.controller.topics import CONSUMER_OFFSETS
from kpy.errors import ErrorCode
from kpy.wire import delete_records
from kpy.wire.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic

Answer = tuple[str, int, int, int]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with open_broker(tmp_path) as broker:
        create_topic(broker, "t", 2)
        for _ in range(5):
            append(broker, "t", b"a", b"b")
        yield broker


def delete(broker: Broker, *wanted: tuple[str, int, int], version: int = 2) -> list[Answer]:
    topics = [DeleteRecordsTopic(name, [DeleteRecordsPartition(index, offset)]) for name, index, offset in wanted]
    answer = ask(broker, delete_records, DeleteRecordsRequest(topics, 1000), version)
    return [
        (topic.name, each.partition_index, each.low_watermark, each.error_code)
        for topic in answer.topics
        for each in topic.partitions
    ]


@pytest.mark.parametrize("version", range(3))
def test_each_version_moves_the_log_start_and_answers_with_it(broker: Broker, version: int) -> None:
    assert delete(broker, ("t", 0, 3), version=version) == [("t", 0, 3, ErrorCode.NONE)]
    assert broker.replicas.partition("t", 0).log.log_start_offset == 3


def test_minus_one_is_the_high_watermark(broker: Broker) -> None:
    assert delete(broker, ("t", 0, -1)) == [("t", 0, 10, ErrorCode.NONE)]
    assert delete(broker, ("t", 1, -1)) == [("t", 1, 0, ErrorCode.NONE)]
    assert append(broker, "t", b"next").log_end_offset == 11


def test_offset_below_the_start_changes_nothing(broker: Broker) -> None:
    delete(broker, ("t", 0, 7))
    assert delete(broker, ("t", 0, 2)) == [("t", 0, 7, ErrorCode.NONE)]


@pytest.mark.parametrize("offset", [11, -2, 1 << 62])
def test_offset_out_of_range_is_refused(broker: Broker, offset: int) -> None:
    assert delete(broker, ("t", 0, offset)) == [("t", 0, -1, ErrorCode.OFFSET_OUT_OF_RANGE)]
    assert broker.replicas.partition("t", 0).log.log_start_offset == 0


@pytest.mark.parametrize(
    ("policy", "code"), [("compact", ErrorCode.POLICY_VIOLATION), ("compact,delete", ErrorCode.NONE)]
)
def test_only_topics_with_the_delete_policy_lose_records(broker: Broker, policy: str, code: ErrorCode) -> None:
    create_topic(broker, "u", cleanup_policy=policy)
    append(broker, "u", b"a")
    assert [answer[3] for answer in delete(broker, ("u", 0, -1))] == [code]


def test_unknown_partitions_and_internal_topics_are_refused(broker: Broker) -> None:
    assert delete(broker, ("x", 0, 0), ("t", 9, 0), (CONSUMER_OFFSETS, 0, 0)) == [
        ("x", 0, -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ("t", 9, -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (CONSUMER_OFFSETS, 0, -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ]
    run(broker.cluster.create_internal_topic(CONSUMER_OFFSETS, 1, 1, {"cleanup.policy": "compact"}))
    assert delete(broker, (CONSUMER_OFFSETS, 0, 0)) == [(CONSUMER_OFFSETS, 0, -1, ErrorCode.INVALID_TOPIC_EXCEPTION)]


def test_deleted_records_do_not_come_back_after_a_crash(tmp_path: Path) -> None:
    with open_broker(tmp_path) as broker:
        create_topic(broker, "t")
        append(broker, "t", b"a", b"b", b"c")
        delete(broker, ("t", 0, 2))
        assert (tmp_path / "log-start-offset-checkpoint").read_text() == "0\n1\nt 0 2\n"
        # A crash writes nothing more.
        broker.replicas.log_dirs.close(clean=False)
    with open_broker(tmp_path) as broker:
        assert broker.replicas.partition("t", 0).log.log_start_offset == 2


def test_answer_tells_of_a_disk_that_failed(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "log-start-offset-checkpoint.tmp").mkdir()
    assert delete(broker, ("t", 0, 3)) == [("t", 0, -1, ErrorCode.KAFKA_STORAGE_ERROR)]
    assert broker.replicas.log_dirs.offline_paths() == [str(tmp_path)]
