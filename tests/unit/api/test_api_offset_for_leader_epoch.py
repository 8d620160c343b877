"""OffsetForLeaderEpoch: where an epoch ends, which tells consumers and followers of truncation (KIP-320)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from admin_broker import run
from log_broker import append, ask, create_topic, open_broker

from kpy.api.broker import Broker
from kpy.errors import ErrorCode
from kpy.metadata.leader_elections import start_leader_epochs
from kpy.wire import offset_for_leader_epoch
from kpy.wire.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Epoch 0 has offsets 0 and 1, epoch 1 has 2; epoch 2 has begun at 3 and has nothing yet."""
    with open_broker(tmp_path) as broker:
        create_topic(broker, "t")
        append(broker, "t", b"a", b"b")
        run(start_leader_epochs(broker.cluster, broker.config.broker_id))
        append(broker, "t", b"c")
        run(start_leader_epochs(broker.cluster, broker.config.broker_id))
        yield broker


def end(
    broker: Broker, epoch: int, current: int = -1, topic: str = "t", partition: int = 0, version: int = 4
) -> tuple[int, int, int]:
    asked = OffsetForLeaderTopic(topic, [OffsetForLeaderPartition(partition, current, epoch)])
    answer = ask(broker, offset_for_leader_epoch, OffsetForLeaderEpochRequest(topics=[asked]), version)
    (result,) = answer.topics[0].partitions
    assert (answer.topics[0].topic, result.partition) == (topic, partition)
    return result.error_code, result.leader_epoch, result.end_offset


@pytest.mark.parametrize("version", range(1, 5))
def test_each_version_tells_where_an_epoch_ends(broker: Broker, version: int) -> None:
    assert end(broker, 0, version=version) == (ErrorCode.NONE, 0, 2)
    assert end(broker, 1, version=version) == (ErrorCode.NONE, 1, 3)


def test_version_0_has_no_epoch_in_its_answer(broker: Broker) -> None:
    assert end(broker, 0, version=0) == (ErrorCode.NONE, -1, 2)


def test_latest_epoch_ends_at_the_log_end(broker: Broker) -> None:
    assert end(broker, 2) == (ErrorCode.NONE, 2, 3)
    append(broker, "t", b"d")
    assert end(broker, 2) == (ErrorCode.NONE, 2, 4)


@pytest.mark.parametrize("epoch", [3, -1, 1 << 30])
def test_unknown_epoch_has_no_end_and_is_no_error(broker: Broker, epoch: int) -> None:
    assert end(broker, epoch) == (ErrorCode.NONE, -1, -1)


def test_client_with_another_epoch_is_fenced(broker: Broker) -> None:
    assert end(broker, 0, current=2)[0] == ErrorCode.NONE
    assert end(broker, 0, current=1)[0] == ErrorCode.FENCED_LEADER_EPOCH
    assert end(broker, 0, current=3)[0] == ErrorCode.UNKNOWN_LEADER_EPOCH


def test_unknown_partition_is_an_error(broker: Broker) -> None:
    assert end(broker, 0, topic="x") == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)
    assert end(broker, 0, partition=1) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1)
