"""The layouts of records, on the wire and on disk alike: record batches v2, the older message sets, control records;
and of the producers' snapshot, which is on disk only.

kpy/records is written by hand, since this is the one place where a broker spends its time; these declarations are what
it is tested against. Lengths, counts and checksums are computed here when building, and checked when parsing.
"""

# pyright: basic, reportOperatorIssue=false, reportArgumentType=false
# construct carries no types of its own, and what it decorates as a singleton looks like a function.

import zlib
from typing import Any

from construct import (
    BitsInteger,
    BitStruct,
    Bytes,
    Checksum,
    Const,
    Flag,
    GreedyBytes,
    GreedyRange,
    Int8sb,
    Int16sb,
    Int32sb,
    Int32ub,
    Int64sb,
    Padding,
    Pointer,
    Prefixed,
    PrefixedArray,
    RawCopy,
    Struct,
    Tell,
    ZigZag,
    this,
)

from protocol.interpret import CompactLength, Counted, LengthPrefixed, TagSection, structure

CASTAGNOLI = 0x82F63B78
"""The polynomial of CRC-32C, its bits reversed."""


def crc32c(data: bytes) -> int:
    """CRC-32C, a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def checksummed(checksum: Any, rest: Any) -> Any:
    """A checksum in front of what it covers."""
    return Struct(
        "at" / Tell,
        Padding(4),
        "checked" / RawCopy(rest),
        "crc" / Pointer(this.at, Checksum(Int32ub, checksum, this.checked.data)),
    )


VarintBytes = LengthPrefixed(ZigZag, text=False, nullable=True)

RecordHeader = Struct(
    "key" / LengthPrefixed(ZigZag, text=True, nullable=False),
    "value" / VarintBytes,
)

Record = Prefixed(
    ZigZag,
    Struct(
        "attributes" / Int8sb,  # unused
        "timestamp_delta" / ZigZag,  # from the base timestamp
        "offset_delta" / ZigZag,  # from the base offset
        "key" / VarintBytes,
        "value" / VarintBytes,
        "headers" / PrefixedArray(ZigZag, RecordHeader),
    ),
)

BatchAttributes = BitStruct(
    "unused" / BitsInteger(9),
    "has_delete_horizon" / Flag,  # the base timestamp is when tombstones may go
    "is_control" / Flag,
    "is_transactional" / Flag,
    "is_log_append_time" / Flag,
    "codec" / BitsInteger(3),  # 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd
)

BatchBody = Struct(
    "attributes" / BatchAttributes,
    "last_offset_delta" / Int32sb,
    "base_timestamp" / Int64sb,
    "max_timestamp" / Int64sb,
    "producer_id" / Int64sb,
    "producer_epoch" / Int16sb,
    "base_sequence" / Int32sb,
    "records_count" / Int32sb,
    "records" / GreedyBytes,  # as many of Record, compressed together
)

RecordBatch = Struct(
    "base_offset" / Int64sb,
    "batch"
    / Prefixed(
        Int32sb,
        Struct(
            "partition_leader_epoch" / Int32sb,  # the broker sets it, so the checksum leaves it out
            "magic" / Const(2, Int8sb),
            "body" / checksummed(crc32c, BatchBody),
        ),
    ),
)
"""Magic 2, of Apache Kafka 0.11 and later."""

Records = GreedyRange(Record)
"""What is in the records of a batch that is not compressed."""

NullableBytes = LengthPrefixed(Int32sb, text=False, nullable=True)

MessageV0 = checksummed(
    zlib.crc32,
    Struct(
        "magic" / Const(0, Int8sb),
        "attributes" / Int8sb,  # the codec, in the lowest three bits
        "key" / NullableBytes,
        "value" / NullableBytes,  # of a compressed message: a message set
    ),
)

MessageV1 = checksummed(
    zlib.crc32,
    Struct(
        "magic" / Const(1, Int8sb),
        "attributes" / Int8sb,  # bit 3: the timestamp is the broker's
        "timestamp" / Int64sb,
        "key" / NullableBytes,
        "value" / NullableBytes,
    ),
)


def message_set(message: Any) -> Any:
    """Messages of one magic, each behind its offset and size."""
    return GreedyRange(Struct("offset" / Int64sb, "message" / Prefixed(Int32sb, message)))


ControlRecordKey = Struct(
    "version" / Int16sb,
    "type" / Int16sb,  # 0 abort, 1 commit, 2 leader change
)

EndTransactionMarker = Struct(
    "version" / Int16sb,
    "coordinator_epoch" / Int32sb,
)
"""The value of both."""


def leader_change_message(version: int) -> Any:
    """The value of type 2. Only KRaft writes it, at the beginning of each epoch of a metadata log."""
    directory = {"voter_directory_id": Bytes(16)} if version >= 1 else {}
    voter = structure({"voter_id": Int32sb, **directory, "tagged_fields": TagSection({})}, nullable=False)
    voters = Counted(CompactLength, voter, nullable=False)
    return Struct(
        "version" / Int16sb,
        "leader_id" / Int32sb,
        "voters" / voters,  # of the quorum in the epoch that begins
        "granting_voters" / voters,  # those who elected the leader
        "tagged_fields" / TagSection({}),
    )


ProducerEntry = Struct(
    "producer_id" / Int64sb,
    "producer_epoch" / Int16sb,
    "last_sequence" / Int32sb,
    "last_offset" / Int64sb,
    "offset_delta" / Int32sb,  # of the last batch, from its first record to its last
    "timestamp" / Int64sb,  # of the last batch
    "coordinator_epoch" / Int32sb,  # of the last marker, -1 if there was none
    "current_txn_first_offset" / Int64sb,  # -1 if no transaction is open
)

ProducerSnapshot = Struct(
    "version" / Const(1, Int16sb),
    "checked" / checksummed(crc32c, PrefixedArray(Int32sb, ProducerEntry)),
)
"""A file: the producers of a partition as of the offset that names it."""
