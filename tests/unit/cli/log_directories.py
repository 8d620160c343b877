"""Data directories with something of everything in them, for the tests of what looks at them."""

import random
from pathlib import Path

from kpy.records.batch import NewRecord, build_batch, read_header
from kpy.records.compression import Codec
from kpy.records.validate import ValidBatch
from kpy.storage.fs import OsFs
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs
from kpy.wire.consumer_protocol import ConsumerProtocolSubscription, encode_consumer_protocol_subscription
from kpy.wire.group_records import (
    GroupMetadataKey,
    GroupMetadataValue,
    MemberMetadata,
    OffsetCommitKey,
    OffsetCommitValue,
    encode_group_metadata_key,
    encode_group_metadata_value,
    encode_offset_commit_key,
    encode_offset_commit_value,
)
from kpy.wire.transaction_records import (
    PartitionsSchema,
    TransactionLogKey,
    TransactionLogValue,
    encode_transaction_log_key,
    encode_transaction_log_value,
)

TIME_MS = 1_700_000_000_000
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"
CONFIG = LogConfig(segment_bytes=1200, index_interval_bytes=100)


class UnsyncedFs(OsFs):
    """The real files without waiting for the disk."""

    def fsync(self, fd: int) -> None:  # type: ignore[override]  # OsFs binds os.fsync
        return

    def sync_dir(self, path: str) -> None:
        return


def open_dirs(root: Path, config: LogConfig = CONFIG) -> LogDirs:
    return LogDirs.open(
        [root],
        broker_id=1,
        cluster_id=CLUSTER_ID,
        now_ms=TIME_MS,
        config_for=lambda topic: config,
        rng=random.Random(1),
        fs=UnsyncedFs(),
    )


def append(log: Log, data: bytes, leader_epoch: int = 0) -> None:
    log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), leader_epoch, TIME_MS)
    log.high_watermark = log.log_end_offset


def record(key: bytes | None, value: bytes | None, after_ms: int = 0) -> NewRecord:
    return NewRecord(TIME_MS + after_ms, key, value)


def marker(producer_id: int, kind: int) -> bytes:
    """The end of a transaction: kind 0 aborts, 1 commits."""
    control = NewRecord(TIME_MS + 50, b"\0\0" + kind.to_bytes(2), b"\0\0\0\0\0\7")
    return build_batch([control], producer_id=producer_id, producer_epoch=0, transactional=True, control=True)


def write_orders(log: Log) -> None:
    """Every codec, an idempotent producer, an aborted and a committed transaction, two leader epochs; 3 segments."""
    for number, codec in enumerate(Codec):
        records = [record(b"key %d" % i, b"value %d" % i * 5, 10 * number) for i in range(3)]
        append(log, build_batch(records, codec=codec, producer_id=7, producer_epoch=0, base_sequence=3 * number))
    append(log, build_batch([record(None, b"\xff\xfe\x00", 60)]), leader_epoch=2)
    for producer_id, kind in ((8, 0), (9, 1)):
        records = [record(b"in txn", b"x" * 40, 70)]
        first = build_batch(records, producer_id=producer_id, producer_epoch=0, base_sequence=0, transactional=True)
        append(log, first, leader_epoch=2)
        append(log, marker(producer_id, kind), leader_epoch=2)
    for number in range(8):
        append(log, build_batch([record(b"late", b"y" * 50, 100 + number)]), leader_epoch=2)


def offset_commit(group: str, offset: int | None) -> bytes:
    key = encode_offset_commit_key(OffsetCommitKey(group, "orders", 0), 1)
    value = None if offset is None else encode_offset_commit_value(OffsetCommitValue(offset, 2, "note", TIME_MS), 3)
    return build_batch([record(key, value)])


def group_metadata(group: str) -> bytes:
    subscription = encode_consumer_protocol_subscription(ConsumerProtocolSubscription(["orders"]), 0)
    member = MemberMetadata("m-1", None, "app", "/127.0.0.1", 60000, 30000, subscription, b"")
    value = GroupMetadataValue("consumer", 4, "range", "m-1", TIME_MS, [member])
    return build_batch(
        [record(encode_group_metadata_key(GroupMetadataKey(group), 2), encode_group_metadata_value(value, 3))]
    )


def transaction_state(transactional_id: str) -> bytes:
    key = encode_transaction_log_key(TransactionLogKey(transactional_id), 0)
    value = TransactionLogValue(9, 0, 60000, 1, [PartitionsSchema("orders", [0])], TIME_MS, TIME_MS)
    return build_batch([record(key, encode_transaction_log_value(value, 0))])


def write_data_dir(root: Path) -> Path:
    """A cleanly closed data directory with three topics."""
    dirs = open_dirs(root)
    orders = dirs.create_log("orders", 0, bytes(range(16)), CONFIG)
    write_orders(orders)
    offsets = dirs.create_log("__consumer_offsets", 3, bytes(range(1, 17)), CONFIG)
    append(offsets, offset_commit("g", 5))
    append(offsets, group_metadata("g"))
    append(offsets, offset_commit("gone", None))
    transactions = dirs.create_log("__transaction_state", 1, bytes(range(2, 18)), CONFIG)
    append(transactions, transaction_state("my-txn"))
    dirs.close()
    return root
