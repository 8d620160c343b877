"""Transactions: InitProducerId (22), AddPartitionsToTxn (24) to TxnOffsetCommit (28), and what shows them (61, 65, 66).

Apache Kafka answers EndTxn before the markers are written, so whatever comes next is asked again while it is told
CONCURRENT_TRANSACTIONS, and what is read is read again until the end of the transaction is there.
"""

from collections.abc import Mapping
from typing import Any

from compat.differential.scenario import Ask, Built, Saved, Scenario
from compat.differential.steps import (
    ADD_OFFSETS_TO_TXN,
    ADD_PARTITIONS_TO_TXN,
    DESCRIBE_PRODUCERS,
    DESCRIBE_TRANSACTIONS,
    END_TXN,
    INIT_PRODUCER_ID,
    LIST_TRANSACTIONS,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    WRITE_TXN_MARKERS,
    create,
    fetch,
    values,
)
from kpy.wire.add_offsets_to_txn import AddOffsetsToTxnRequest
from kpy.wire.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kpy.wire.describe_producers import DescribeProducersRequest, TopicRequest
from kpy.wire.describe_transactions import DescribeTransactionsRequest
from kpy.wire.end_txn import EndTxnRequest
from kpy.wire.init_producer_id import InitProducerIdRequest
from kpy.wire.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from kpy.wire.list_transactions import ListTransactionsRequest
from kpy.wire.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kpy.wire.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from kpy.wire.write_txn_markers import WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest

PID, EPOCH = Saved("pid"), Saved("epoch")
CONCURRENT_TRANSACTIONS = 51
READ_COMMITTED = 1
LATEST = -1


def init(timeout: int = 60_000, pid: Any = -1, epoch: Any = -1, name: str = "{id}", saves: bool = True) -> Ask:
    return Ask(
        InitProducerIdRequest(name, timeout, pid, epoch),
        save={"pid": "producer_id", "epoch": "producer_epoch"} if saves else {},
        until=lambda answer: answer.error_code != CONCURRENT_TRANSACTIONS,
    )


def add(*partitions: int, topic: str = "{t}", name: str = "{id}", pid: Any = PID, epoch: Any = EPOCH) -> Ask:
    topics = [AddPartitionsToTxnTopic(topic, list(partitions))]
    transaction = AddPartitionsToTxnTransaction(name, pid, epoch, False, topics)

    def is_settled(answer: Any) -> bool:
        found = answer.results_by_topic_v3_and_below or answer.results_by_transaction[0].topic_results
        return found[0].results_by_partition[0].partition_error_code != CONCURRENT_TRANSACTIONS

    return Ask(AddPartitionsToTxnRequest([transaction], name, pid, epoch, topics), until=is_settled)


def verify(*partitions: int, name: str = "{id}", pid: Any = PID, epoch: Any = EPOCH) -> Ask:
    topics = [AddPartitionsToTxnTopic("{t}", list(partitions))]
    return Ask(AddPartitionsToTxnRequest([AddPartitionsToTxnTransaction(name, pid, epoch, True, topics)]), version=5)


def add_offsets(group: str = "{g}", name: str = "{id}", pid: Any = PID, epoch: Any = EPOCH) -> Ask:
    return Ask(
        AddOffsetsToTxnRequest(name, pid, epoch, group),
        until=lambda answer: answer.error_code != CONCURRENT_TRANSACTIONS,
    )


def end(committed: bool, name: str = "{id}", pid: Any = PID, epoch: Any = EPOCH) -> Ask:
    return Ask(
        EndTxnRequest(name, pid, epoch, committed),
        until=lambda answer: answer.error_code != CONCURRENT_TRANSACTIONS,
    )


def write(
    *each: str,
    sequence: int = 0,
    partition: int = 0,
    name: str | None = "{id}",
    transactional: bool = True,
    age: int = 0,
) -> Ask:
    """Records of the producer that was saved last, or of one whose epoch is `age` less."""

    def records(saved: Mapping[str, Any]) -> bytes:
        return values(
            *each,
            producer_id=saved["pid"],
            producer_epoch=saved["epoch"] - age,
            base_sequence=sequence,
            transactional=transactional,
        )

    topic = TopicProduceData("{t}", Saved("t_id"), [PartitionProduceData(partition, Built(records))])
    return Ask(ProduceRequest(name, -1, 10_000, [topic]))


def stable_end(offset: int, partition: int = 0) -> Ask:
    """Asked until the last stable offset is there."""
    topic = ListOffsetsTopic("{t}", [ListOffsetsPartition(partition, timestamp=LATEST)])
    return Ask(
        ListOffsetsRequest(-1, READ_COMMITTED, [topic]),
        until=lambda answer: answer.topics[0].partitions[0].offset == offset,
    )


def read(offset: int = 0) -> Ask:
    return fetch(offset, isolation_level=READ_COMMITTED)


def commit_offset(
    offset: int,
    topic: str = "{t}",
    partition: int = 0,
    metadata: str = "m",
    pid: Any = PID,
    epoch: Any = EPOCH,
    **fields: Any,
) -> Ask:
    topics = [TxnOffsetCommitRequestTopic(topic, [TxnOffsetCommitRequestPartition(partition, offset, -1, metadata)])]
    return Ask(TxnOffsetCommitRequest("{id}", "{g}", pid, epoch, topics=topics, **fields))


def committed_offset(expected: int, stable: bool = False) -> Ask:
    topics = [OffsetFetchRequestTopics("{t}", bytes(16), [0])]
    return Ask(
        OffsetFetchRequest(groups=[OffsetFetchRequestGroup("{g}", topics=topics)], require_stable=stable),
        version=9,
        until=lambda answer: answer.groups[0].topics[0].partitions[0].committed_offset == expected,
    )


def describe(*names: str) -> Ask:
    def is_settled(answer: Any) -> bool:
        return not any(each.transaction_state.startswith("Prepare") for each in answer.transaction_states)

    return Ask(DescribeTransactionsRequest(list(names)), until=is_settled)


def marker(committed: bool, coordinator_epoch: int, *partitions: int, topic: str = "{t}", epoch: Any = EPOCH) -> Ask:
    topics = [WritableTxnMarkerTopic(topic, list(partitions))]
    return Ask(WriteTxnMarkersRequest([WritableTxnMarker(PID, epoch, committed, topics, coordinator_epoch)]))


SCENARIOS: list[Scenario] = [
    *(
        Scenario(
            f"transactions: {'commit' if committed else 'abort'}",
            END_TXN,
            [
                create(partitions=2),
                init(),
                describe("{id}"),
                add(0, 1),
                add(1),
                verify(0, 1),
                write("a", "b"),
                write("c", sequence=2),
                write("d", partition=1),
                describe("{id}"),
                read(),
                stable_end(0),
                Ask(DescribeProducersRequest([TopicRequest("{t}", [0, 1])])),
                end(committed),
                end(committed),
                end(not committed),
                describe("{id}"),
                stable_end(4),
                stable_end(2, 1),
                read(),
                fetch(0),
                read(2),
                Ask(DescribeProducersRequest([TopicRequest("{t}", [0, 1])])),
                add(1),
                write("e", partition=1, sequence=1),
                end(not committed),
                stable_end(4, 1),
            ],
        )
        for committed in (True, False)
    ),
    Scenario(
        "transactions: nothing written",
        END_TXN,
        [create(), init(), end(True), end(False), add(0), end(False), stable_end(1), read(), fetch(0)],
    ),
    Scenario(
        "transactions: end of others",
        END_TXN,
        [
            create(),
            init(),
            add(0),
            end(True, name="{nobody}"),
            end(True, name=""),
            end(True, pid=4_000_000),
            end(True, epoch=5),
            end(True, epoch=-1),
            describe("{id}", "{nobody}", ""),
        ],
    ),
    Scenario(
        "transactions: init",
        INIT_PRODUCER_ID,
        [
            *(init(timeout, saves=False) for timeout in (0, -1, 900_001)),
            init(900_000),
            init(),
            init(pid=PID, epoch=-1, saves=False),
            init(pid=-1, epoch=0, saves=False),
            describe("{id}"),
        ],
    ),
    Scenario(
        "transactions: resume",
        INIT_PRODUCER_ID,
        [
            init(),
            init(pid=PID, epoch=EPOCH, saves=False),
            init(pid=PID, epoch=EPOCH, saves=False),
            init(pid=4_000_000, epoch=0, saves=False),
            init(pid=PID, epoch=7, saves=False),
            init(),
            init(pid=PID, epoch=0, saves=False),
            init(pid=4_000_000, epoch=3, name="{new}", saves=False),
        ],
        versions=(3, 4, 5),
    ),
    Scenario(
        "transactions: fenced by init",
        INIT_PRODUCER_ID,
        [
            create(),
            init(),
            add(0),
            write("zombie"),
            init(),
            stable_end(2),
            read(),
            write("zombie again", sequence=1, age=1),
            add(0),
            write("heir"),
            end(True),
            stable_end(4),
            read(2),
        ],
    ),
    Scenario(
        "transactions: add wrong partitions",
        ADD_PARTITIONS_TO_TXN,
        [
            create(partitions=2),
            init(),
            add(0, 9),
            add(0, topic="{none}"),
            add(0, name="{nobody}"),
            add(0, pid=4_000_000),
            add(0, epoch=5),
            describe("{id}"),
            add(0, 1),
            end(True),
            add(0),
        ],
    ),
    Scenario(
        "transactions: verify",
        None,
        [
            create(partitions=2),
            init(),
            verify(0),
            add(0),
            verify(0, 1),
            verify(0, name="{nobody}"),
            verify(0, pid=4_000_000),
            verify(0, epoch=5),
        ],
    ),
    Scenario(
        "produce: wrong writes in a transaction",
        PRODUCE,
        [
            create(partitions=2),
            init(),
            write("not added"),
            add(0),
            write("first"),
            write("no id", sequence=1, name=None),
            write("not in the transaction", sequence=1, transactional=False),
            write("gap", sequence=5),
            write("first"),
            write("elsewhere", partition=1),
            end(False),
            stable_end(2),
        ],
        versions=(3, 8, 10, 11),
    ),
    Scenario(
        "transactions: offsets",
        TXN_OFFSET_COMMIT,
        [
            create(),
            init(),
            add_offsets(),
            commit_offset(5),
            committed_offset(-1),
            committed_offset(-1, stable=True),
            end(True),
            committed_offset(5, stable=True),
            add_offsets(),
            commit_offset(6),
            end(False),
            committed_offset(5, stable=True),
        ],
    ),
    Scenario(
        "transactions: wrong offsets",
        TXN_OFFSET_COMMIT,
        [
            create(),
            init(),
            commit_offset(5),
            add_offsets(),
            commit_offset(5, topic="{none}"),
            commit_offset(5, partition=7),
            commit_offset(5, metadata="x" * 5000),
            commit_offset(5, pid=4_000_000),
            commit_offset(5, epoch=9),
            commit_offset(5, generation_id=3, member_id="somebody"),
            commit_offset(5, member_id="somebody"),
            commit_offset(5, group_instance_id="instance"),
            end(True),
        ],
        versions=(0, 2, 3, 4),
    ),
    Scenario(
        "transactions: wrong groups",
        ADD_OFFSETS_TO_TXN,
        [
            init(),
            add_offsets(name="{nobody}"),
            add_offsets(name=""),
            add_offsets(pid=4_000_000),
            add_offsets(epoch=5),
            add_offsets(),
            end(True),
        ],
    ),
    Scenario(
        "transactions: markers",
        WRITE_TXN_MARKERS,
        [
            create(partitions=2),
            init(),
            add(0, 1),
            write("a"),
            marker(False, 7, 0, 5),
            marker(False, 7, 0, topic="{none}"),
            stable_end(2),
            marker(True, 6, 0),
            marker(True, 7, 1),
            marker(True, 7, 1, epoch=30),
            marker(True, 8, 1, epoch=3),
            Ask(DescribeProducersRequest([TopicRequest("{t}", [0, 1])])),
            Ask(WriteTxnMarkersRequest([])),
            read(),
        ],
    ),
    Scenario(
        "transactions: describe producers",
        DESCRIBE_PRODUCERS,
        [
            create(),
            Ask(DescribeProducersRequest([TopicRequest("{t}", [0, 9, -1]), TopicRequest("{none}", [0])])),
            Ask(DescribeProducersRequest([TopicRequest("not a topic!", [0]), TopicRequest("", [1])])),
            Ask(DescribeProducersRequest([])),
        ],
    ),
    Scenario(
        "transactions: describe",
        DESCRIBE_TRANSACTIONS,
        [init(), describe("{id}", "{id}", "{nobody}", ""), describe()],
    ),
    Scenario(
        "transactions: list",
        LIST_TRANSACTIONS,
        [
            create(),
            init(),
            Ask(ListTransactionsRequest(["Empty", "Dead", "Gone", "empty"], [PID])),
            add(0),
            Ask(ListTransactionsRequest([], [PID])),
            Ask(ListTransactionsRequest(["Ongoing"], [PID])),
            Ask(ListTransactionsRequest(["Empty"], [PID])),
            Ask(ListTransactionsRequest([], [PID], 0)),
            Ask(ListTransactionsRequest([], [PID], 60_000)),
            Ask(ListTransactionsRequest([], [4_000_000])),
            end(True),
        ],
    ),
]
