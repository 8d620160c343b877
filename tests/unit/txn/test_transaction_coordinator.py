"""The transaction coordinator's shell over real logs: markers that must wait, damage, loading, and late commits."""

import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kpy.api.add_offsets_to_txn import add_offsets_to_txn
from kpy.api.add_partitions_to_txn import add_partitions_to_txn
from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.describe_transactions import describe_transactions
from kpy.api.end_txn import end_txn
from kpy.api.find_coordinator import find_coordinator
from kpy.api.init_producer_id import init_producer_id
from kpy.api.list_transactions import list_transactions
from kpy.api.produce import produce
from kpy.api.txn_offset_commit import txn_offset_commit
from kpy.api.write_txn_markers import write_txn_markers
from kpy.controller.topics import TopicDefaults, plan_topic
from kpy.errors import ApiError, ErrorCode
from kpy.pending import Pending
from kpy.records.batch import NewRecord, build_batch, iter_records, read_header
from kpy.records.validate import ValidBatch
from kpy.replica.partition import Partition
from kpy.transaction_coordinator import MARKERS_A_SLICE, RETRY_MS
from kpy.wire.add_offsets_to_txn import AddOffsetsToTxnRequest
from kpy.wire.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kpy.wire.create_topics import CreatableTopic
from kpy.wire.describe_transactions import DescribeTransactionsRequest
from kpy.wire.end_txn import EndTxnRequest
from kpy.wire.find_coordinator import FindCoordinatorRequest
from kpy.wire.init_producer_id import InitProducerIdRequest
from kpy.wire.list_transactions import ListTransactionsRequest
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kpy.wire.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from kpy.wire.write_txn_markers import WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest
from tests.unit.api.admin_broker import run
from tests.unit.api.log_broker import NOW_MS, open_broker

STATE = "__transaction_state"


class Shell:
    """A broker without sockets, and one transactional producer of it."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.producer = (-1, -1)

    def ask(self, handler: Callable[..., Any], request: Any, version: int) -> Any:
        client = Client("127.0.0.1", "PLAINTEXT")
        client.version = version
        answer = handler(request, client, self.broker)
        return run(answer) if isinstance(answer, Coroutine) else answer

    def create_topic(self, name: str, partitions: int) -> None:
        request = CreatableTopic(name, partitions, 1)
        defaults, rng = TopicDefaults(1, 1), self.broker.rng
        run(self.broker.cluster.create_topics(lambda image: [plan_topic(request, image, (), defaults, rng)]))

    def init(self, name: str = "tx") -> None:
        answer = self.ask(init_producer_id, InitProducerIdRequest(name, 60_000, -1, -1), 5)
        assert answer.error_code == 0
        self.producer = (answer.producer_id, answer.producer_epoch)

    def add(self, *partitions: int, topic: str = "t") -> set[int]:
        topics = [AddPartitionsToTxnTopic(topic, list(partitions))]
        answer = self.ask(add_partitions_to_txn, AddPartitionsToTxnRequest([], "tx", *self.producer, topics), 3)
        results = answer.results_by_topic_v3_and_below
        return {each.partition_error_code for found in results for each in found.results_by_partition}

    def write(self, records: memoryview, version: int = 9) -> Any:
        topic = TopicProduceData("t", bytes(16), [PartitionProduceData(0, records)])
        return self.ask(produce, ProduceRequest("tx", -1, 1000, [topic]), version)

    def records(self, value: bytes) -> bytearray:
        record = NewRecord(NOW_MS, b"k", value)
        producer_id, epoch = self.producer
        options = {"producer_id": producer_id, "producer_epoch": epoch, "base_sequence": 0}
        return bytearray(build_batch([record], transactional=True, **options))

    def end(self, *, committed: bool = True, version: int = 3) -> Any:
        return self.ask(end_txn, EndTxnRequest("tx", *self.producer, committed), version)

    def state(self, name: str = "tx") -> str:
        answer = self.ask(describe_transactions, DescribeTransactionsRequest([name]), 0)
        return answer.transaction_states[0].transaction_state or ErrorCode(answer.transaction_states[0].error_code).name


@contextmanager
def shell(directory: Path) -> Iterator[Shell]:
    settings = {
        "listeners": "PLAINTEXT://127.0.0.1:0",
        "transaction.state.log.num.partitions": "1",
        "offsets.topic.num.partitions": "1",
    }
    with open_broker(directory, settings=settings) as broker:
        made = Shell(broker)
        for key_type in (0, 1):
            made.ask(find_coordinator, FindCoordinatorRequest("tx", key_type), 3)
        yield made


def while_running(broker: Broker, scenario: Callable[[], Any]) -> None:
    """Run an async function beside the coordinators, on a clock that jumps ahead."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.groups.run)
            nursery.start_soon(broker.transactions.run)
            await scenario()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


class Refusing:
    """Has appends to one topic refused while it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
        self.error: ErrorCode | None = None
        append = Partition.append

        def refuse(partition: Partition, *args: Any) -> Any:
            if partition.topic == topic and self.error is not None:
                raise ApiError(self.error)
            return append(partition, *args)

        monkeypatch.setattr(Partition, "append", refuse)


@pytest.mark.parametrize("topic", ["t", "__transaction_state"])
def test_what_could_not_be_written_of_an_end_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    """The decision is written before; then either a marker fails, or the last record."""
    with shell(tmp_path) as told:
        told.create_topic("t", 2)
        told.init()
        assert told.add(0, 1) == {0}
        refusing = Refusing(monkeypatch, "t")
        refusing.error = ErrorCode.NOT_ENOUGH_REPLICAS
        assert told.end().error_code == 0
        assert told.state() == "PrepareCommit"
        assert told.end().error_code == ErrorCode.CONCURRENT_TRANSACTIONS
        if topic == STATE:
            refusing.error = None
            refusing = Refusing(monkeypatch, STATE)
            refusing.error = ErrorCode.NOT_ENOUGH_REPLICAS

        async def scenario() -> None:
            await trio.sleep(5 * RETRY_MS / 1000)
            assert told.state() == "PrepareCommit"
            refusing.error = None
            await trio.sleep(5 * RETRY_MS / 1000)
            assert told.state() == "CompleteCommit"

        while_running(told.broker, scenario)
        assert told.end().error_code == 0


def test_a_topic_that_is_gone_needs_no_marker(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        told.create_topic("t", 2)
        told.init()
        told.add(0, 1)
        run(told.broker.cluster.delete_topics(lambda _: ["t"]))
        assert told.end().error_code == 0
        assert told.state() == "CompleteCommit"


def test_a_coordinator_that_was_succeeded_gives_up(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        told.create_topic("t", 1)
        told.init()
        told.add(0)
        topics = [WritableTxnMarkerTopic("t", [0])]
        marker = WritableTxnMarker(told.producer[0], told.producer[1], False, topics, 9)
        answer = told.ask(write_txn_markers, WriteTxnMarkersRequest([marker]), 1)
        assert answer.markers[0].topics[0].partitions[0].error_code == 0
        assert told.end().error_code == 0
        assert told.state() == "PrepareCommit"
        older = WritableTxnMarker(told.producer[0], told.producer[1], False, topics, 8)
        answer = told.ask(write_txn_markers, WriteTxnMarkersRequest([older]), 1)
        error = answer.markers[0].topics[0].partitions[0].error_code
        assert error == ErrorCode.TRANSACTION_COORDINATOR_FENCED


def test_many_markers_are_written_in_slices(tmp_path: Path) -> None:
    count = 2 * MARKERS_A_SLICE + 1
    with shell(tmp_path) as told:
        told.create_topic("t", count)
        told.init()
        assert told.add(*range(count)) == {0}
        assert told.end().error_code == 0
        assert told.state() == "PrepareCommit"

        async def scenario() -> None:
            await trio.sleep(1)
            assert told.state() == "CompleteCommit"

        while_running(told.broker, scenario)
        ends = {told.broker.replicas.partition("t", index).log.log_end_offset for index in range(count)}
        assert ends == {1}


def test_a_damaged_record_is_named_and_the_rest_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with shell(tmp_path) as told:
        told.create_topic("t", 1)
        told.init("before")
        good_key = bytes(next(iter_records(_last_batch(told, 0))).key or b"")
        damaged = [(good_key, b"\0\0nothing"), (b"\0", b""), (b"\0\x09future", b"")]
        data = build_batch([NewRecord(NOW_MS, key, value) for key, value in damaged])
        told.broker.replicas.partition(STATE, 0).append(ValidBatch(read_header(data), memoryview(data), -1), -1, NOW_MS)
        told.init()
    with shell(tmp_path) as told, caplog.at_level(logging.ERROR):
        assert told.state() == "COORDINATOR_LOAD_IN_PROGRESS"

        async def scenario() -> None:
            await trio.sleep(1)

        while_running(told.broker, scenario)
        assert (told.state(), told.state("before")) == ("Empty", "Empty")
    assert [record.getMessage().split(":")[1].strip() for record in caplog.records] == [
        "the record at offset 1 is passed over",
        "the record at offset 2 is passed over",
    ]


def _last_batch(told: Shell, offset: int) -> memoryview:
    log = told.broker.replicas.partition(STATE, 0).log
    return next(batch for _, batch in log.read_batches(offset, log.log_end_offset))


def test_nothing_is_answered_while_the_log_is_read(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        told.create_topic("t", 1)
        told.init()
        partition = TxnOffsetCommitRequestPartition(0, 5, -1, "")
        commit = TxnOffsetCommitRequest(
            "tx", "g", *told.producer, topics=[TxnOffsetCommitRequestTopic("t", [partition])]
        )
        assert told.ask(add_offsets_to_txn, AddOffsetsToTxnRequest("tx", *told.producer, "g"), 3).error_code == 0
        assert told.ask(txn_offset_commit, commit, 3).topics[0].partitions[0].error_code == 0
    with shell(tmp_path) as told:
        loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        assert told.end().error_code == loading
        assert told.ask(list_transactions, ListTransactionsRequest(), 1).error_code == loading
        for version, error in ((3, loading), (1, ErrorCode.COORDINATOR_NOT_AVAILABLE)):
            answer = told.ask(txn_offset_commit, commit, version)
            assert answer.topics[0].partitions[0].error_code == error


def test_the_empty_transactional_id_is_invalid_everywhere(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        told.create_topic("t", 1)
        topics = [AddPartitionsToTxnTopic("t", [0])]
        transaction = AddPartitionsToTxnTransaction("", 1, 0, False, topics)
        added = told.ask(add_partitions_to_txn, AddPartitionsToTxnRequest([transaction]), 4)
        (result,) = added.results_by_transaction[0].topic_results[0].results_by_partition
        described = told.ask(describe_transactions, DescribeTransactionsRequest([""]), 0)
        assert {
            result.partition_error_code,
            described.transaction_states[0].error_code,
            told.ask(init_producer_id, InitProducerIdRequest("", 1, -1, -1), 5).error_code,
            told.ask(end_txn, EndTxnRequest("", 1, 0, True), 5).error_code,
            told.ask(add_offsets_to_txn, AddOffsetsToTxnRequest("", 1, 0, "g"), 4).error_code,
        } == {ErrorCode.INVALID_REQUEST}


def test_brokers_ask_for_many_transactions_at_once(tmp_path: Path) -> None:
    """KIP-890."""
    with shell(tmp_path) as told:
        told.create_topic("t", 2)
        told.init()
        one, both = ([AddPartitionsToTxnTopic("t", each)] for each in ([0], [0, 1]))
        transactions = [
            AddPartitionsToTxnTransaction("tx", *told.producer, False, one),
            AddPartitionsToTxnTransaction("tx", *told.producer, True, both),
            AddPartitionsToTxnTransaction("other", *told.producer, True, one),
        ]
        answer = told.ask(add_partitions_to_txn, AddPartitionsToTxnRequest(transactions), 5)
        assert [
            (each.transactional_id, [one.partition_error_code for one in each.topic_results[0].results_by_partition])
            for each in answer.results_by_transaction
        ] == [
            ("tx", [ErrorCode.NONE]),
            ("tx", [ErrorCode.NONE, ErrorCode.TRANSACTION_ABORTABLE]),
            ("other", [ErrorCode.INVALID_PRODUCER_ID_MAPPING]),
        ]


def test_writing_to_a_partition_that_was_not_added_is_refused(tmp_path: Path) -> None:
    with shell(tmp_path) as told:
        told.create_topic("t", 1)
        told.init()
        for version, error in ((9, ErrorCode.INVALID_TXN_STATE), (11, ErrorCode.TRANSACTION_ABORTABLE)):
            answer = told.write(memoryview(told.records(b"v")), version)
            assert answer.responses[0].partition_responses[0].error_code == error
        assert told.broker.replicas.partition("t", 0).log.log_end_offset == 0
        # A client of transaction version 2 adds it by writing.
        assert told.write(memoryview(told.records(b"v")), 12).responses[0].partition_responses[0].error_code == 0
        assert told.state() == "Ongoing"


def test_records_that_wait_for_the_coordinator_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer waits until the partition is known to be in the transaction, and the connection's buffer does not."""
    with shell(tmp_path) as told:
        told.create_topic("t", 1)
        told.init()
        append = Partition.append

        def append_uncommitted(partition: Partition, *args: Any) -> Any:
            before = partition.log.high_watermark
            info = append(partition, *args)
            if partition.topic == STATE:
                partition.log._high_watermark = before  # type: ignore[attr-defined]  # As if others were to follow.
            return info

        monkeypatch.setattr(Partition, "append", append_uncommitted)
        buffer = told.records(b"kept")
        answer = told.write(memoryview(buffer), 12)
        assert isinstance(answer, Pending)
        answers: list[Any] = []
        answer.deliver_to(answers.append)
        buffer[:] = bytes(len(buffer))
        log = told.broker.replicas.partition("t", 0).log
        assert (answers, log.log_end_offset) == ([], 0)
        state = told.broker.replicas.partition(STATE, 0).log
        state.high_watermark = state.log_end_offset
        told.broker.transactions.committed_in(STATE, 0)
        assert answers[0].responses[0].partition_responses[0].error_code == 0
        (batch,) = (batch for _, batch in log.read_batches(0, log.log_end_offset))
        assert [record.value for record in iter_records(batch)] == [b"kept"]
