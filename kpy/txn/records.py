"""The records of __transaction_state: what they say, in Apache Kafka's own formats.

Value version 1, whose tagged fields carry what transaction version 2 needs, is written where that is in force, version
0 otherwise; both are read. Kafka class TransactionLog.
"""

from collections.abc import Iterable

from kpy.errors import WireError
from kpy.machine import StateRecord
from kpy.txn.transaction import TopicPartition, Transaction, TransactionState
from kpy.wire.transaction_records import (
    PartitionsSchema,
    TransactionLogKey,
    TransactionLogValue,
    decode_transaction_log_key,
    decode_transaction_log_value,
    encode_transaction_log_key,
    encode_transaction_log_value,
)

KEY_VERSION = 0
PLAIN_VALUE_VERSION = 0
FLEXIBLE_VALUE_VERSION = 1


def transaction_record(transaction: Transaction, *, flexible: bool) -> StateRecord:
    value = TransactionLogValue(
        producer_id=transaction.producer_id,
        producer_epoch=transaction.producer_epoch,
        transaction_timeout_ms=transaction.timeout_ms,
        transaction_status=transaction.state,
        transaction_partitions=(
            None
            if transaction.state is TransactionState.EMPTY
            else [PartitionsSchema(topic, indexes) for topic, indexes in by_topic(transaction.partitions).items()]
        ),
        transaction_last_update_timestamp_ms=transaction.last_update_timestamp_ms,
        transaction_start_timestamp_ms=transaction.start_timestamp_ms,
        previous_producer_id=transaction.previous_producer_id,
        next_producer_id=transaction.next_producer_id,
        client_transaction_version=transaction.client_transaction_version,
    )
    version = FLEXIBLE_VALUE_VERSION if flexible else PLAIN_VALUE_VERSION
    return transaction_key(transaction.transactional_id), encode_transaction_log_value(value, version)


def transaction_tombstone(transactional_id: str) -> StateRecord:
    return transaction_key(transactional_id), None


def transaction_key(transactional_id: str) -> bytes:
    return encode_transaction_log_key(TransactionLogKey(transactional_id), KEY_VERSION)


def read_key(key: bytes) -> str | None:
    """The transactional id that a record is about, or None for a key of a later kind.

    Raises WireError for bytes that are no key at all.
    """
    if len(key) < 2:
        raise WireError("a record key of __transaction_state is shorter than its version")
    if int.from_bytes(key[:2], "big", signed=True) != KEY_VERSION:
        return None
    return decode_transaction_log_key(memoryview(key)).transactional_id


def read_value(transactional_id: str, value: bytes) -> Transaction:
    """Raises WireError for what is not a transaction's value."""
    read = decode_transaction_log_value(memoryview(value))
    try:
        state = TransactionState(read.transaction_status)
    except ValueError:
        raise WireError(f"a transaction has the state {read.transaction_status}, which there is none of") from None
    if read.producer_id < 0 or read.producer_epoch < 0:
        raise WireError(f"a transaction has the producer id {read.producer_id} and epoch {read.producer_epoch}")
    return Transaction(
        transactional_id=transactional_id,
        producer_id=read.producer_id,
        producer_epoch=read.producer_epoch,
        timeout_ms=read.transaction_timeout_ms,
        state=state,
        partitions=frozenset(
            (each.topic, index) for each in read.transaction_partitions or () for index in each.partition_ids
        ),
        start_timestamp_ms=read.transaction_start_timestamp_ms,
        last_update_timestamp_ms=read.transaction_last_update_timestamp_ms,
        previous_producer_id=read.previous_producer_id,
        next_producer_id=read.next_producer_id,
        client_transaction_version=read.client_transaction_version,
    )


def by_topic(partitions: Iterable[TopicPartition]) -> dict[str, list[int]]:
    """Partition numbers by topic, in order, so that equal sets always make equal bytes."""
    topics: dict[str, list[int]] = {}
    for topic, index in sorted(partitions):
        topics.setdefault(topic, []).append(index)
    return topics
