"""Produce (0): what is accepted, in which form it is stored, and every way to be refused."""

import struct
from typing import Any

from compat.differential.scenario import Ask, Saved, Scenario
from compat.differential.steps import PRODUCE, TIMESTAMP, create, fetch, produce, values
from kpy.records.batch import NewRecord, build_batch
from kpy.records.compression import Codec
from kpy.records.legacy import down_convert
from kpy.wire.find_coordinator import FindCoordinatorRequest
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData

SOME_VERSIONS = (0, 2, 3, 8, 11)
"""With message sets, with batches, with messages about errors."""

CODECS = {"gzip": Codec.GZIP, "snappy": Codec.SNAPPY, "lz4": Codec.LZ4, "zstd": Codec.ZSTD}


def patched(batch: bytes, position: int, layout: str, value: int) -> bytes:
    """The batch with one field changed and its checksum put right."""
    from fastcrc.crc32 import iscsi

    changed = bytearray(batch)
    struct.pack_into(layout, changed, position, value)
    struct.pack_into(">I", changed, 17, iscsi(bytes(changed[21:])))
    return bytes(changed)


def one(key: bytes | None = b"k", value: bytes | None = b"v", timestamp: int = TIMESTAMP, **options: Any) -> bytes:
    return build_batch([NewRecord(timestamp, key, value)], **options)


THREE = values("a", "b", "c")
GOOD = values("good")

REFUSED: dict[str, bytes] = {
    "no bytes": b"",
    "two batches": THREE + THREE,
    "bad crc": THREE[:-1] + b"\xff",
    "magic 3": patched(THREE, 16, ">b", 3),
    "magic -1": patched(THREE, 16, ">b", -1),
    "magic 1 on a batch": patched(THREE, 16, ">b", 1),
    "base offset 5": build_batch([NewRecord(TIMESTAMP, b"k", b"v")], base_offset=5),
    "count 0": patched(THREE, 57, ">i", 0),
    "count -1": patched(THREE, 57, ">i", -1),
    "count 2 of 3": patched(THREE, 57, ">i", 2),
    "count 4 of 3": patched(THREE, 57, ">i", 4),
    "last offset delta 5": patched(THREE, 23, ">i", 5),
    "last offset delta -1": patched(THREE, 23, ">i", -1),
    "control bit": values("a", control=True),
    "transactional bit without an id": values(
        "a", transactional=True, producer_id=7, producer_epoch=0, base_sequence=0
    ),
    "producer id without sequence": values("a", producer_id=7, producer_epoch=0),
    "producer id without epoch": values("a", producer_id=7, base_sequence=0),
    "unknown codec 5": patched(THREE, 21, ">h", 5),
    "a truncated batch": THREE[:-5],
    "a header only": THREE[:61],
    "half a header": THREE[:30],
    "a batch and half another": THREE + THREE[:40],
    "batch length 0": THREE[:8] + struct.pack(">i", 0) + THREE[12:],
    "batch length -1": THREE[:8] + struct.pack(">i", -1) + THREE[12:],
    "too large": one(value=b"x" * 20_000),
    "too large when compressed no more": one(value=b"x" * 20_000, codec=Codec.GZIP),
    "no timestamp": one(timestamp=-1),
    "log append time bit": values("a", log_append_time=True),
    "attribute bit 7": patched(THREE, 21, ">h", 1 << 7),
    "delete horizon bit": patched(THREE, 21, ">h", 1 << 6),
    "leader epoch 9": values("a", partition_leader_epoch=9),
}


TRUSTED: dict[str, bytes] = {
    "last offset delta and count are 4 of 3": patched(patched(THREE, 23, ">i", 3), 57, ">i", 4),
    "last offset delta and count are 2 of 3": patched(patched(THREE, 23, ">i", 1), 57, ">i", 2),
    "codec gzip on plain records": patched(THREE, 21, ">h", 1),
    "codec snappy on plain records": patched(THREE, 21, ">h", 2),
    "codec lz4 on plain records": patched(THREE, 21, ">h", 3),
    "codec zstd on plain records": patched(THREE, 21, ">h", 4),
    "a wrong varint": patched(THREE, 61, ">b", -1),
    "record length 0": patched(THREE, 61, ">b", 0),
    "max timestamp wrong": patched(THREE, 35, ">q", TIMESTAMP + 77),
    "negative timestamp": one(timestamp=-2),
    "base timestamp in the header is -1": patched(THREE, 27, ">q", -1),
}
"""What is wrong only inside of the records, or about them; Apache Kafka looks at each record."""


def batch_scenarios() -> list[Scenario]:
    scenarios: list[Scenario] = []
    for name, records in REFUSED.items():
        steps = [create("t", max_message_bytes="10000"), produce(records), produce(GOOD), fetch(0)]
        scenarios.append(Scenario(f"produce: {name}", PRODUCE, steps, SOME_VERSIONS))
    for name, records in TRUSTED.items():
        scenarios.append(Scenario(f"produce: trusted: {name}", PRODUCE, [create("t"), produce(records)], (2, 11)))
    return scenarios


def message_sets() -> list[Scenario]:
    """Old formats in, every format out."""
    scenarios: list[Scenario] = []
    everything = {"plain": Codec.NONE, "gzip": Codec.GZIP, "snappy": Codec.SNAPPY, "lz4": Codec.LZ4}
    for codec_name, codec in everything.items():
        for magic in (0, 1):
            if magic == 0 and codec == Codec.LZ4:
                continue  # Its framing was wrong in magic 0 (KAFKA-3160); its clients are long gone.
            records = down_convert(values("a", "bb", "ccc", codec=codec), magic)
            steps = [create("t"), produce(records), produce(records)]
            steps += [fetch(offset, version=version) for version in (0, 2, 4, 12) for offset in (0, 1, 5)]
            steps += [produce(b"", version=2), produce(records[:-3]), produce(records[:-1] + b"\xff")]
            scenarios.append(
                Scenario(f"produce: message set of magic {magic}, {codec_name}", PRODUCE, steps, (0, 2, 3))
            )
    return scenarios


def topic_rules() -> list[Scenario]:
    scenarios: list[Scenario] = []
    null_key = build_batch([NewRecord(TIMESTAMP, b"k", b"v"), NewRecord(TIMESTAMP, None, b"v")])
    mixed = [
        create("t", cleanup_policy="compact"),
        produce(null_key),
        produce(GOOD),
        produce(one(value=None)),
        fetch(0),
    ]
    scenarios.append(Scenario("produce: null key to a compacted topic", PRODUCE, mixed))
    codec_null_key = build_batch([NewRecord(TIMESTAMP, None, b"v")] * 3, codec=Codec.GZIP)
    mixed = [create("t", cleanup_policy="compact,delete"), produce(codec_null_key), fetch(0)]
    scenarios.append(Scenario("produce: null keys, compressed, to a compacted topic", PRODUCE, mixed))
    message_set = down_convert(null_key, 1)
    mixed = [create("t", cleanup_policy="compact"), produce(message_set, version=2), fetch(0)]
    scenarios.append(Scenario("produce: null key in a message set to a compacted topic", None, mixed))

    bounds = {"message_timestamp_before_max_ms": "1000", "message_timestamp_after_max_ms": "1000"}
    future = one(timestamp=4_000_000_000_000)
    steps = [
        create("t", **bounds),
        produce(GOOD),
        produce(future),
        produce(THREE),
        produce(one(timestamp=-1)),
        fetch(0),
    ]
    scenarios.append(Scenario("produce: timestamps out of bounds", PRODUCE, steps))
    steps = [create("t", message_timestamp_type="LogAppendTime", **bounds), produce(THREE), produce(future), fetch(0)]
    steps += [produce(values("a", "b", codec=Codec.GZIP)), fetch(3)]
    scenarios.append(Scenario("produce: LogAppendTime", PRODUCE, steps))
    old = down_convert(values("a", "b"), 1)
    steps = [create("t", message_timestamp_type="LogAppendTime"), produce(old)]
    steps += [produce(down_convert(values("a", "b", codec=Codec.GZIP), 1)), produce(down_convert(values("a"), 0))]
    steps += [fetch(0, version=version) for version in (0, 2, 4, 12)]
    scenarios.append(Scenario("produce: message sets to LogAppendTime", PRODUCE, steps, range(3)))

    for target in ("uncompressed", *CODECS):
        steps = [create("t", compression_type=target), produce(THREE)]
        steps += [produce(values("a", "b", "c", codec=codec)) for codec in CODECS.values()]
        steps += [fetch(0), fetch(0, version=4), fetch(0, version=2), fetch(0, version=0)]
        scenarios.append(Scenario(f"produce: compression.type={target}", PRODUCE, steps, (7,)))
        old = [produce(down_convert(values("a", "b"), magic), version=2) for magic in (0, 1)]
        scenarios.append(
            Scenario(f"produce: message sets to compression.type={target}", None, [steps[0], *old, fetch(0)])
        )
    steps = [
        create("t"),
        *(produce(values("a", "b", codec=codec)) for codec in CODECS.values()),
        fetch(0),
        fetch(0, version=3),
    ]
    scenarios.append(Scenario("produce: every codec", PRODUCE, steps))

    steps = [
        create("t", segment_bytes="2000"),
        produce(one(value=b"x" * 3000)),
        produce(one(value=b"x" * 1500)),
        fetch(0),
    ]
    scenarios.append(Scenario("produce: larger than a segment", PRODUCE, steps))
    exact = one(value=b"x" * 100)
    steps = [create("t", max_message_bytes=str(len(exact))), produce(exact), produce(one(value=b"x" * 101)), fetch(0)]
    scenarios.append(Scenario("produce: exactly max.message.bytes", PRODUCE, steps))
    return scenarios


def idempotent(sequence: int, *each: str, epoch: int = 0, producer_id: int = 4711) -> Ask:
    return produce(values(*each, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence))


MAX = 2**31 - 1
SEQUENCES: dict[str, list[Ask]] = {
    "duplicates of the last five": [
        *(idempotent(number, f"{number}") for number in range(7)),
        *(idempotent(number, f"{number}") for number in range(7)),
        idempotent(7, "7"),
    ],
    "a gap": [idempotent(0, "a"), idempotent(2, "c"), idempotent(1, "b")],
    "any first sequence": [idempotent(100, "a"), idempotent(101, "b"), idempotent(99, "z")],
    "overlaps": [idempotent(0, "a", "b", "c"), idempotent(1, "b", "c"), idempotent(2, "c", "d"), idempotent(0, "a")],
    "wraps": [idempotent(MAX - 1, "a", "b"), idempotent(0, "c"), idempotent(0, "c"), idempotent(MAX - 1, "a", "b")],
    "wraps inside a batch": [
        idempotent(MAX - 1, "a", "b", "c"),
        idempotent(1, "d"),
        idempotent(MAX - 1, "a", "b", "c"),
    ],
    "epochs": [
        idempotent(0, "a", epoch=1),
        idempotent(1, "b", epoch=2),
        idempotent(0, "b", epoch=2),
        idempotent(1, "c", epoch=1),
        idempotent(0, "a", epoch=1),
        idempotent(1, "c", epoch=2),
    ],
    "two producers": [
        idempotent(0, "a"),
        idempotent(0, "b", producer_id=4712),
        idempotent(1, "c"),
        idempotent(0, "b", producer_id=4712),
    ],
    "negative producer epoch": [idempotent(0, "a", epoch=-5), idempotent(1, "b", epoch=-5)],
}


def others() -> list[Scenario]:
    internal = TopicProduceData("__consumer_offsets", partition_data=[PartitionProduceData(0, GOOD)])
    unknown = TopicProduceData("{nothing}", b"\7" * 16, [PartitionProduceData(0, GOOD)])
    invalid = TopicProduceData("in valid", partition_data=[PartitionProduceData(0, GOOD)])
    here = TopicProduceData("{t}", Saved("t_id"), [PartitionProduceData(index, GOOD) for index in (1, 0, 7, -1)])
    empty = TopicProduceData("{t}", Saved("t_id"))
    return [
        Scenario(
            "produce: unknown topics and partitions",
            PRODUCE,
            [create("t", 2), *(Ask(ProduceRequest(None, acks, 1000, [unknown, here, invalid])) for acks in (1, -1))],
        ),
        Scenario("produce: internal topic", PRODUCE, [Ask(ProduceRequest(None, 1, 1000, [internal]))]),
        Scenario("produce: no topics", PRODUCE, [Ask(ProduceRequest(None, 1, 1000, []))]),
        Scenario(
            "produce: no partitions",
            PRODUCE,
            [create(), Ask(ProduceRequest(None, 1, 1000, [empty]))],
        ),
        Scenario(
            "produce: wrong acks", PRODUCE, [create(), *(produce(GOOD, acks=acks) for acks in (2, -2, 99)), fetch(0)]
        ),
        Scenario(
            "produce: acks=0",
            PRODUCE,
            [create(), produce(GOOD, acks=0), Ask(FindCoordinatorRequest(coordinator_keys=["g"])), fetch(0)],
        ),
        Scenario(
            "produce: acks=0 fails",
            PRODUCE,
            [
                create(),
                produce(REFUSED["bad crc"], acks=0),
                Ask(FindCoordinatorRequest(coordinator_keys=["g"])),
                Ask(FindCoordinatorRequest(coordinator_keys=["g"])),
            ],
        ),
        Scenario(
            "produce: the same topic twice",
            PRODUCE,
            [
                create("t", 2),
                Ask(
                    ProduceRequest(
                        None, 1, 1000, [here, TopicProduceData("{t}", Saved("t_id"), [PartitionProduceData(0, THREE)])]
                    )
                ),
                fetch(0),
            ],
        ),
        Scenario(
            "produce: the same partition twice",
            PRODUCE,
            [
                create(),
                Ask(
                    ProduceRequest(
                        None,
                        1,
                        1000,
                        [
                            TopicProduceData(
                                "{t}", Saved("t_id"), [PartitionProduceData(0, THREE), PartitionProduceData(0, GOOD)]
                            )
                        ],
                    )
                ),
                fetch(0),
            ],
        ),
        Scenario(
            "produce: headers, nulls, empty values",
            PRODUCE,
            [
                create(),
                produce(
                    build_batch(
                        [
                            NewRecord(TIMESTAMP, None, None),
                            NewRecord(TIMESTAMP, b"", b""),
                            NewRecord(TIMESTAMP - 5, b"k", b"v", (("h", b"x"), ("h", None), ("", b""))),
                        ]
                    )
                ),
                *(fetch(0, version=version) for version in (0, 2, 4, 12)),
            ],
        ),
    ]


SCENARIOS = [
    *batch_scenarios(),
    *message_sets(),
    *topic_rules(),
    *(
        Scenario(f"produce: sequences: {name}", PRODUCE, [create(), *steps, fetch(0)], range(3, 100))
        for name, steps in SEQUENCES.items()
    ),
    *others(),
]
