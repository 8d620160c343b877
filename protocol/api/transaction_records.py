"""What __transaction_state holds: one record for each transactional id (KIP-98)."""

from protocol.grammar import (
    Int8,
    Int16,
    Int32,
    Int64,
    ProducerId,
    String,
    array,
    default,
    nullable,
    record,
    since,
    struct,
    tagged,
    versions,
)

TransactionLogKey = record(
    versions("0"),
    "transactional_id" / String,
)

PartitionsSchema = struct(
    "PartitionsSchema",
    "topic" / String,
    "partition_ids" / array(Int32),
)

TransactionLogValue = record(
    versions("0-1", flexible="1+"),
    "producer_id" / Int64,
    "producer_epoch" / Int16,
    "transaction_timeout_ms" / Int32,  # after which the coordinator aborts it
    "transaction_status" / Int8,  # a TransactionState: 0 empty, 1 ongoing, 2 and 3 prepared, 4 and 5 complete, 6 dead
    "transaction_partitions" / nullable(array(PartitionsSchema)),  # null in state empty
    "transaction_last_update_timestamp_ms" / Int64,
    "transaction_start_timestamp_ms" / Int64,  # -1 if it has not begun
    # of the transactional id before its epochs were used up, -1 for none (KIP-890)
    since(1, tagged(0, default(-1, "previous_producer_id" / ProducerId))),
    # given to the producer, and its own once the markers are written; -1 for none (KIP-890)
    since(1, tagged(1, default(-1, "next_producer_id" / ProducerId))),
    since(1, tagged(2, "client_transaction_version" / Int16)),  # the feature level its client works with (KIP-890)
)
