"""DeleteRecords: the log start moves, durably, and what may not be deleted is refused with Apache Kafka's codes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from admin_broker import run
from log_broker import append, ask, create_topic, open_broker
from trio.testing import MockClock

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.delete_records import delete_records as handler
from kpy.controller.topics import CONSUMER_OFFSETS
from kpy.errors import ErrorCode
from kpy.metadata.image import PartitionImage
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


class Followed:
    """Partition t-0 with ten records, led by this broker and followed by brokers 2 and 3, who live until `dead`."""

    def __init__(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broker = broker
        self.partition = broker.replicas.partition("t", 0)
        self.dead: set[int] = set()
        self.end = self.partition.log.log_end_offset
        around = self.partition._surroundings
        monkeypatch.setattr(around, "is_alive", lambda broker_id: broker_id not in self.dead)
        monkeypatch.setattr(around, "clock_ms", lambda: 0)
        ids = (1, 2, 3)
        self.partition.lead_or_follow(PartitionImage(0, 1, 1, ids, ids))
        for follower in (2, 3):
            self.partition.follower_fetched(follower, self.end, 0)

    def delete(self, offset: int, *steps: Callable[[], object]) -> tuple[int, int]:
        """The low watermark and the error that are answered; one step is taken each second meanwhile."""

        async def main() -> tuple[int, int]:
            client = Client("127.0.0.1", "PLAINTEXT")
            request = DeleteRecordsRequest([DeleteRecordsTopic("t", [DeleteRecordsPartition(0, offset)])], 10_000)
            results: list[tuple[int, int]] = []

            async def ask() -> None:
                answer = await handler(request, client, self.broker)
                results.extend((each.low_watermark, each.error_code) for each in answer.topics[0].partitions)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                for step in steps:
                    await trio.sleep(1)
                    assert not results, "answered too early"
                    step()
            return results[0]

        return trio.run(main, clock=MockClock(autojump_threshold=0))

    def fetch(self, follower: int, log_start_offset: int) -> None:
        self.partition.follower_fetched(follower, self.end, log_start_offset)


@pytest.fixture
def followed(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Followed:
    return Followed(broker, monkeypatch)


def test_answer_waits_until_no_live_replica_has_the_records(followed: Followed) -> None:
    answer = followed.delete(
        4, lambda: followed.fetch(2, 4), lambda: followed.fetch(3, 2), lambda: followed.fetch(3, 5)
    )
    assert answer == (4, ErrorCode.NONE)


def test_followers_that_are_late_are_told_of(followed: Followed) -> None:
    assert followed.delete(4, lambda: followed.fetch(2, 4)) == (0, ErrorCode.REQUEST_TIMED_OUT)
    assert followed.partition.log.log_start_offset == 4
    assert not followed.partition.deletions


def test_a_dead_follower_is_not_waited_for(followed: Followed) -> None:
    followed.dead.add(3)
    assert followed.delete(4, lambda: followed.fetch(2, 4)) == (4, ErrorCode.NONE)


def test_a_leader_that_is_none_any_more_says_so(followed: Followed) -> None:
    ids = (1, 2, 3)
    resign = PartitionImage(0, 2, 2, ids, ids)
    answer = followed.delete(4, lambda: followed.partition.lead_or_follow(resign))
    assert answer == (-1, ErrorCode.NOT_LEADER_OR_FOLLOWER)
