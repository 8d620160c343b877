"""ListOffsets (2): every special timestamp, times inside and outside of batches, isolation levels, epochs."""

from compat.differential.scenario import Ask, Scenario
from compat.differential.steps import LIST_OFFSETS, TIMESTAMP, create, produce, values
from kpy.records.batch import NewRecord, build_batch
from kpy.records.compression import Codec
from kpy.wire.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic

DATA = [produce(values("a", "b", "c")), produce(values("d", "e", codec=Codec.GZIP))]
UNORDERED_TIMES = build_batch([NewRecord(TIMESTAMP + delta, b"k", b"v") for delta in (5000, 9000, 1000, 9000)])


def at(timestamp: int, isolation_level: int = 0, max_offsets: int = 10, epoch: int = -1) -> Ask:
    partition = ListOffsetsPartition(0, epoch, timestamp, max_offsets)
    return Ask(ListOffsetsRequest(-1, isolation_level, [ListOffsetsTopic("{t}", [partition])]))


SPECIAL = [at(timestamp, level) for timestamp in range(-7, 0) for level in (0, 1)]
TIMES = [at(TIMESTAMP + delta) for delta in (-1, 0, 1, 1000, 1500, 2000, 2001, 10**9)]

SCENARIOS = [
    Scenario("list offsets: special timestamps", LIST_OFFSETS, [create(), *DATA, *SPECIAL]),
    Scenario(
        "list offsets: special timestamps of an empty log", LIST_OFFSETS, [create(), *SPECIAL, at(0), at(TIMESTAMP)]
    ),
    Scenario("list offsets: times", LIST_OFFSETS, [create(), *DATA, at(0), *TIMES, at(TIMESTAMP, 1)]),
    Scenario(
        "list offsets: times out of order",
        LIST_OFFSETS,
        [
            create(),
            *DATA,
            produce(UNORDERED_TIMES),
            *TIMES,
            *(at(TIMESTAMP + delta) for delta in (5000, 6000, 9000, 9001)),
            at(-3),
        ],
    ),
    Scenario(
        "list offsets: several segments",
        LIST_OFFSETS,
        [
            create("t", segment_bytes="200"),
            *(produce(values(f"{number}")) for number in range(6)),
            *(at(timestamp, max_offsets=count) for timestamp in (-1, -2, TIMESTAMP, 0) for count in (0, 1, 2, 10)),
        ],
    ),
    Scenario(
        "list offsets: LogAppendTime",
        LIST_OFFSETS,
        [create("t", message_timestamp_type="LogAppendTime"), DATA[0], at(-3), at(0)],
    ),
    Scenario(
        "list offsets: leader epochs",
        LIST_OFFSETS,
        [create(), *DATA, *(at(-1, epoch=epoch) for epoch in (-1, 0, 1, -2))],
    ),
    Scenario("list offsets: isolation level 9", LIST_OFFSETS, [create(), *DATA, at(-1, 9)]),
    Scenario(
        "list offsets: unknown topics and partitions, and twice the same",
        LIST_OFFSETS,
        [
            create("t", 2),
            Ask(
                ListOffsetsRequest(
                    -1,
                    0,
                    [
                        ListOffsetsTopic(name, [ListOffsetsPartition(index, -1, -1) for index in (0, 2, -1)])
                        for name in ("{t}", "{x}", "", "in valid")
                    ],
                )
            ),
            Ask(
                ListOffsetsRequest(
                    -1, 0, [ListOffsetsTopic("{t}", [ListOffsetsPartition(index, -1, -1) for index in (0, 1, 0)])]
                )
            ),
            Ask(ListOffsetsRequest(-1, 0, [])),
        ],
    ),
]
