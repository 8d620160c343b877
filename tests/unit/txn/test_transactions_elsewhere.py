"""A transaction's coordinator and the leaders of its partitions on different brokers, of which this one is real."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.lowlevel

from kpy.api.produce import produce
from kpy.api.txn_offset_commit import txn_offset_commit
from kpy.controller.topics import CONSUMER_OFFSETS
from kpy.errors import ErrorCode
from kpy.metadata.image import BrokerImage, MetadataImage, PartitionImage
from kpy.peers import PeerError
from kpy.pending import Pending
from kpy.transaction_coordinator import RETRY_MS
from kpy.wire.add_partitions_to_txn import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
)
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kpy.wire.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from kpy.wire.write_txn_markers import (
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)
from tests.unit.txn.test_transaction_coordinator import STATE, Shell, shell, while_running

HERE, OTHER, THIRD = 1, 2, 3
SOON_S = 5 * RETRY_MS / 1000
"""On the clock of `while_running`, which jumps ahead when everybody waits: long enough for what is tried again."""


class Neighbours:
    """Brokers 2 and 3: what they are asked, and a function that answers."""

    def __init__(self, told: Shell) -> None:
        self.told = told
        self.asked: list[tuple[int, Any]] = []
        self.answer: Callable[[int, Any], Awaitable[Any]] = self.agree
        self.image = told.broker.cluster.image
        live = {**self.image.brokers, **{each: BrokerImage(each, None, {}) for each in (OTHER, THIRD)}}
        self._learn(replace(self.image, brokers=live))
        told.broker.transactions.cooperate(HERE, cast("Any", self.open_peer))

    def open_peer(self, broker_id: int) -> Any:
        async def ask(key: int, request: Any, version: int) -> Any:
            self.asked.append((broker_id, request))
            return await self.answer(broker_id, request)

        return SimpleNamespace(ask=ask, close=lambda: None)

    async def agree(self, broker_id: int, request: Any) -> Any:
        return marked(request) if isinstance(request, WriteTxnMarkersRequest) else verified(request)

    def _learn(self, image: MetadataImage) -> None:
        self.image = image
        self.told.broker.transactions._cluster = cast("Any", SimpleNamespace(image=image))
        self.told.broker.transactions.apply(image)

    def give(self, topic: str, leader: int, *, hears: bool = True) -> None:
        """Another broker leads the first partition of a topic; the role here may follow later."""
        known = self.image.topics[topic]
        first, *others = known.partitions
        led = PartitionImage(0, leader, first.leader_epoch + 1, (leader,), (leader,))
        topics = {**self.image.topics, topic: replace(known, partitions=(led, *others))}
        if hears:
            partition = self.told.broker.replicas.replica(topic, 0)
            partition.lead_or_follow(led)
        self._learn(replace(self.image, topics=topics))

    def bury(self, broker_id: int) -> None:
        self._learn(
            replace(
                self.image, brokers={each: known for each, known in self.image.brokers.items() if each != broker_id}
            )
        )


def marked(request: WriteTxnMarkersRequest, error: int = 0) -> WriteTxnMarkersResponse:
    return WriteTxnMarkersResponse(
        [
            WritableTxnMarkerResult(
                marker.producer_id,
                [
                    WritableTxnMarkerTopicResult(
                        topic.name,
                        [WritableTxnMarkerPartitionResult(index, error) for index in topic.partition_indexes],
                    )
                    for topic in marker.topics
                ],
            )
            for marker in request.markers
        ]
    )


def verified(request: AddPartitionsToTxnRequest, error: int = 0) -> AddPartitionsToTxnResponse:
    return AddPartitionsToTxnResponse(
        results_by_transaction=[
            AddPartitionsToTxnResult(
                each.transactional_id,
                [
                    AddPartitionsToTxnTopicResult(
                        topic.name, [AddPartitionsToTxnPartitionResult(index, error) for index in topic.partitions]
                    )
                    for topic in each.topics
                ],
            )
            for each in request.transactions
        ]
    )


def ended(told: Shell) -> Neighbours:
    """Partition 0 is led elsewhere, 1 here, and the transaction is to be committed in both."""
    told.create_topic("t", 2)
    told.init()
    assert told.add(0, 1) == {0}
    neighbours = Neighbours(told)
    neighbours.give("t", OTHER)
    assert told.end().error_code == 0
    return neighbours


def test_a_transaction_is_complete_when_other_leaders_have_their_markers(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        neighbours = ended(told)
        assert told.state() == "PrepareCommit"

        async def scenario() -> None:
            await trio.lowlevel.checkpoint()
            await trio.sleep(SOON_S)
            assert told.state() == "CompleteCommit"

        while_running(told.broker, scenario)
        ((broker_id, request),) = neighbours.asked
        (marker,) = request.markers
        assert broker_id == OTHER
        assert (marker.producer_id, marker.producer_epoch) == told.producer
        assert marker.transaction_result
        assert marker.coordinator_epoch == told.broker.replicas.partition(STATE, 0).leader_epoch
        assert [(topic.name, topic.partition_indexes) for topic in marker.topics] == [("t", [0])]
        assert told.broker.replicas.partition("t", 1).log.log_end_offset == 1


@pytest.mark.parametrize("failure", [ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_ENOUGH_REPLICAS, None])
def test_whoever_leads_by_then_is_asked_again(tmp_path: Path, failure: ErrorCode | None) -> None:
    with shell(tmp_path) as told:
        neighbours = ended(told)

        async def refuse(broker_id: int, request: Any) -> Any:
            if broker_id != OTHER:
                return marked(request)
            if failure is None:
                raise PeerError("the connection was closed")
            return marked(request, failure)

        async def scenario() -> None:
            neighbours.answer = refuse
            await trio.sleep(SOON_S)
            assert told.state() == "PrepareCommit"
            assert {broker_id for broker_id, _ in neighbours.asked} == {OTHER}
            assert len(neighbours.asked) <= 1 + SOON_S * 1000 / RETRY_MS, "no pause"
            neighbours.give("t", THIRD)
            await trio.sleep(SOON_S)
            assert neighbours.asked[-1][0] == THIRD
            assert told.state() == "CompleteCommit"

        while_running(told.broker, scenario)


def test_this_broker_writes_the_marker_itself_when_it_becomes_the_leader(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        neighbours = ended(told)

        async def scenario() -> None:
            neighbours.answer = lost
            await trio.sleep(SOON_S)
            neighbours.give("t", HERE)
            await trio.sleep(SOON_S)
            assert told.state() == "CompleteCommit"

        while_running(told.broker, scenario)
        assert told.broker.replicas.partition("t", 0).log.log_end_offset == 1


async def lost(broker_id: int, request: Any) -> Any:
    raise PeerError("the connection was closed")


async def never(broker_id: int, request: Any) -> Any:
    await trio.sleep_forever()


def test_the_silence_of_a_broker_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        neighbours = ended(told)

        async def scenario() -> None:
            neighbours.answer = never
            await trio.sleep(SOON_S)
            neighbours.answer = neighbours.agree
            neighbours.bury(OTHER)
            await trio.sleep(SOON_S)
            assert told.state() == "PrepareCommit"
            assert len(neighbours.asked) == 1, "nobody is known to lead"
            neighbours.give("t", THIRD)
            await trio.sleep(SOON_S)
            assert told.state() == "CompleteCommit"

        while_running(told.broker, scenario)


def test_a_coordinator_that_another_leader_fences_gives_up(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        neighbours = ended(told)

        async def fence(broker_id: int, request: Any) -> Any:
            return marked(request, ErrorCode.TRANSACTION_COORDINATOR_FENCED)

        async def scenario() -> None:
            neighbours.answer = fence
            await trio.sleep(SOON_S)
            assert told.state() == "PrepareCommit"
            assert len(neighbours.asked) == 1

        while_running(told.broker, scenario)


def test_a_broker_that_coordinates_no_more_asks_nobody(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        neighbours = ended(told)

        async def scenario() -> None:
            neighbours.answer = lost
            await trio.sleep(SOON_S)
            asked = len(neighbours.asked)
            neighbours.answer = neighbours.agree
            neighbours.give(STATE, OTHER)
            await trio.sleep(SOON_S)
            assert len(neighbours.asked) == asked
            assert told.state() == "NOT_COORDINATOR"

        while_running(told.broker, scenario)


def test_who_becomes_coordinator_goes_on_with_what_was_decided(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        neighbours = ended(told)

        async def scenario() -> None:
            neighbours.answer = lost
            await trio.sleep(SOON_S)
            neighbours.give(STATE, OTHER)
            neighbours.give(STATE, HERE)
            neighbours.answer = neighbours.agree
            await trio.sleep(SOON_S)
            assert told.state() == "CompleteCommit"

        while_running(told.broker, scenario)
        epoch = told.broker.replicas.partition(STATE, 0).leader_epoch
        assert neighbours.asked[-1][1].markers[0].coordinator_epoch == epoch


def test_a_decision_that_is_not_committed_yet_is_not_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new coordinator has read it, but a broker that has not may be elected next, and know nothing of it."""
    with shell(tmp_path) as told:
        neighbours = ended(told)
        partition = told.broker.replicas.partition(STATE, 0)
        monkeypatch.setattr(partition._surroundings, "is_alive", lambda broker_id: True)
        everybody = (HERE, OTHER)

        async def scenario() -> None:
            neighbours.answer = lost
            neighbours.give(STATE, OTHER)
            neighbours.asked.clear()
            partition.log._high_watermark = 0
            epoch = partition.leader_epoch + 1
            partition.lead_or_follow(PartitionImage(0, HERE, epoch, everybody, everybody))
            neighbours.give(STATE, HERE, hears=False)
            neighbours.answer = neighbours.agree
            await trio.sleep(SOON_S)
            assert not neighbours.asked
            partition.follower_fetched(OTHER, partition.log.log_end_offset, 0)
            await trio.sleep(SOON_S)
            assert len(neighbours.asked) == 1

        while_running(told.broker, scenario)


# -- verification ----------------------------------------------------------------------------------------------------


def opened(told: Shell) -> Neighbours:
    """A transaction that another broker coordinates."""
    told.create_topic("t", 1)
    told.init()
    neighbours = Neighbours(told)
    neighbours.give(STATE, OTHER)
    return neighbours


def written(told: Shell, neighbours: Neighbours, meanwhile: Callable[[], object] = lambda: None) -> tuple[int, int]:
    """The error of a write to partition 0 in the transaction, and where its log ends then."""
    topic = TopicProduceData("t", bytes(16), [PartitionProduceData(0, memoryview(told.records(b"v")))])
    pending = told.ask(produce, ProduceRequest("tx", -1, 1000, [topic]), 9)
    assert isinstance(pending, Pending)
    answers: list[Any] = []
    cast("Pending[Any]", pending).deliver_to(answers.append)

    async def scenario() -> None:
        meanwhile()
        await trio.sleep(SOON_S)

    while_running(told.broker, scenario)
    ((answer,),) = [each.responses[0].partition_responses for each in answers]
    return answer.error_code, told.broker.replicas.partition("t", 0).log.log_end_offset


def test_a_leader_asks_the_coordinator_of_a_transaction_once(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        neighbours = opened(told)
        assert written(told, neighbours) == (0, 1)
        ((broker_id, request),) = neighbours.asked
        (asked,) = request.transactions
        assert (broker_id, asked.transactional_id, asked.verify_only) == (OTHER, "tx", True)
        assert (asked.producer_id, asked.producer_epoch) == told.producer
        again = told.ask(produce, ProduceRequest("tx", -1, 1000, [_next(told)]), 9)
        assert again.responses[0].partition_responses[0].error_code == 0
        assert len(neighbours.asked) == 1


def _next(told: Shell) -> TopicProduceData:
    """The same batch once more, which the log knows."""
    return TopicProduceData("t", bytes(16), [PartitionProduceData(0, memoryview(told.records(b"v")))])


@pytest.mark.parametrize(
    ("refused", "told_producer"),
    [
        (ErrorCode.TRANSACTION_ABORTABLE, ErrorCode.INVALID_TXN_STATE),
        (ErrorCode.PRODUCER_FENCED, ErrorCode.INVALID_PRODUCER_EPOCH),
        (ErrorCode.INVALID_PRODUCER_ID_MAPPING, ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (ErrorCode.NOT_COORDINATOR, ErrorCode.NOT_ENOUGH_REPLICAS),
        (ErrorCode.CONCURRENT_TRANSACTIONS, ErrorCode.NOT_ENOUGH_REPLICAS),
    ],
)
def test_what_the_coordinator_refuses_is_not_written(
    tmp_path: Path, refused: ErrorCode, told_producer: ErrorCode
) -> None:
    with shell(tmp_path) as told:
        neighbours = opened(told)

        async def refuse(broker_id: int, request: Any) -> Any:
            return verified(request, refused)

        neighbours.answer = refuse
        assert written(told, neighbours) == (told_producer, 0)


def test_a_coordinator_that_cannot_be_asked_has_the_producer_try_again(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        neighbours = opened(told)
        neighbours.answer = lost
        assert written(told, neighbours) == (ErrorCode.NOT_ENOUGH_REPLICAS, 0)


def test_a_transaction_that_ends_while_its_coordinator_is_asked_takes_nothing_more(tmp_path: Path) -> None:
    """The answer was true when it was given; the records would be in no transaction (Kafka class VerificationGuard)."""
    with shell(tmp_path) as told:
        neighbours = opened(told)

        def abort() -> None:
            told.broker.transactions.write_marker(
                "t", 0, *told.producer, commits=False, coordinator_epoch=9, told=lambda error: None
            )

        assert written(told, neighbours, abort) == (ErrorCode.INVALID_TXN_STATE, 1)


@pytest.mark.parametrize(
    ("answered", "told_producer"),
    [(ErrorCode.NONE, ErrorCode.NONE), (ErrorCode.TRANSACTION_ABORTABLE, ErrorCode.INVALID_TXN_STATE)],
)
def test_offsets_of_a_transaction_are_verified_too(
    tmp_path: Path, answered: ErrorCode, told_producer: ErrorCode
) -> None:
    with shell(tmp_path) as told:
        neighbours = opened(told)

        async def reply(broker_id: int, request: Any) -> Any:
            return verified(request, answered)

        neighbours.answer = reply
        partition = TxnOffsetCommitRequestPartition(0, 5, -1, "")
        topics = [TxnOffsetCommitRequestTopic("t", [partition])]
        pending = told.ask(txn_offset_commit, TxnOffsetCommitRequest("tx", "g", *told.producer, topics=topics), 3)
        answers: list[Any] = []
        pending.deliver_to(answers.append)

        async def scenario() -> None:
            await trio.sleep(SOON_S)

        while_running(told.broker, scenario)
        assert answers[0].topics[0].partitions[0].error_code == told_producer
        ((_, request),) = neighbours.asked
        assert [(each.name, each.partitions) for each in request.transactions[0].topics] == [(CONSUMER_OFFSETS, [0])]
