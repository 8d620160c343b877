"""DeleteRecords (21), OffsetForLeaderEpoch (23), AlterReplicaLogDirs (34) and DescribeLogDirs (35)."""

from compat.differential.scenario import Ask, Scenario
from compat.differential.steps import (
    ALTER_REPLICA_LOG_DIRS,
    DELETE_RECORDS,
    DESCRIBE_LOG_DIRS,
    OFFSET_FOR_LEADER_EPOCH,
    create,
    fetch,
    produce,
    values,
)
from kpy.wire.alter_replica_log_dirs import AlterReplicaLogDir, AlterReplicaLogDirsRequest, AlterReplicaLogDirTopic
from kpy.wire.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from kpy.wire.describe_log_dirs import DescribableLogDirTopic, DescribeLogDirsRequest
from kpy.wire.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from kpy.wire.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)

DATA = [produce(values("a", "b", "c")), produce(values("d", "e"))]
EARLIEST = Ask(ListOffsetsRequest(-1, 0, [ListOffsetsTopic("{t}", [ListOffsetsPartition(0, -1, -2)])]))


def delete(offset: int, *, name: str = "{t}", partition: int = 0, timeout_ms: int = 10_000) -> Ask:
    topic = DeleteRecordsTopic(name, [DeleteRecordsPartition(partition, offset)])
    return Ask(DeleteRecordsRequest([topic], timeout_ms))


def end_of(*epochs: int, name: str = "{t}", current: int = -1, partition: int = 0, replica_id: int = -1) -> list[Ask]:
    return [
        Ask(
            OffsetForLeaderEpochRequest(
                replica_id, [OffsetForLeaderTopic(name, [OffsetForLeaderPartition(partition, current, epoch)])]
            )
        )
        for epoch in epochs
    ]


def describe(*partitions: int, name: str = "{t}", **options: object) -> Ask:
    topics = [DescribableLogDirTopic(name, list(partitions))]
    return Ask(DescribeLogDirsRequest(topics), **options)  # type: ignore[arg-type]  # the options are Ask's own


def move(path: str, name: str = "{t}", partition: int = 0) -> Ask:
    topic = AlterReplicaLogDirTopic(name, [partition])
    return Ask(AlterReplicaLogDirsRequest([AlterReplicaLogDir(path, [topic])]))


SCENARIOS = [
    Scenario(
        "delete records: offsets",
        DELETE_RECORDS,
        [
            create(),
            delete(0),
            delete(-1),
            *DATA,
            *(delete(offset) for offset in (-2, 6, 0, 2, 1, 3, 1 << 62)),
            EARLIEST,
            fetch(2),
            fetch(3),
            fetch(4),
            delete(-1),
            EARLIEST,
            fetch(4),
            produce(values("f")),
            fetch(5),
            delete(-1, timeout_ms=0),
        ],
    ),
    Scenario(
        "delete records: cleanup policies",
        DELETE_RECORDS,
        [
            step
            for number, policy in enumerate(("compact", "compact,delete", "delete"))
            for step in (
                create(f"p{number}", cleanup_policy=policy),
                produce(values("a", "b"), f"p{number}"),
                delete(1, name=f"{{p{number}}}"),
            )
        ],
    ),
    Scenario(
        "delete records: what cannot be",
        DELETE_RECORDS,
        [
            create(),
            delete(0, name="{x}"),
            delete(0, partition=7),
            delete(0, partition=-1),
            delete(0, name="__consumer_offsets"),
            delete(0, name=""),
            delete(0, name="in valid"),
            Ask(DeleteRecordsRequest([], 1000)),
        ],
    ),
    Scenario(
        "offset for leader epoch",
        OFFSET_FOR_LEADER_EPOCH,
        [create(), *end_of(0, 1, -1, -2), *DATA, *end_of(0, 1, 5, -1, -2), delete(2), *end_of(0)],
    ),
    Scenario(
        "offset for leader epoch: epochs of the client, and unknown partitions",
        OFFSET_FOR_LEADER_EPOCH,
        [
            create(),
            *DATA,
            *(step for current in (0, 1, -2) for step in end_of(0, current=current)),
            *end_of(0, name="{x}"),
            *end_of(0, partition=3),
            *end_of(0, name=""),
            *end_of(0, replica_id=-2),
        ],
    ),
    Scenario(
        "describe log dirs",
        DESCRIBE_LOG_DIRS,
        [
            create("t", 3),
            describe(0, 1, 2),
            *DATA,
            describe(0),
            describe(5),
            describe(0, name="{x}"),
            describe(),
            Ask(DescribeLogDirsRequest([])),
        ],
    ),
    Scenario(
        "alter replica log dirs",
        ALTER_REPLICA_LOG_DIRS,
        [
            create(),
            *DATA,
            describe(0, save={"dir": "results.0.log_dir"}),
            move("{dir}"),
            move("{dir}/"),
            move("/nowhere"),
            move(""),
            move("{dir}", name="{x}"),
            move("/nowhere", name="{x}"),
            move("{dir}", partition=9),
            move("{dir}", name="l" * 230),
            describe(0),
            Ask(AlterReplicaLogDirsRequest([])),
        ],
    ),
]
