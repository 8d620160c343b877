"""transaction_records."""

from protocol.grammar import Int8, Int16, Int32, Int64, String, array, nullable, record, struct, versions

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
    "transaction_timeout_ms" / Int32,
    "transaction_status" / Int8,
    "transaction_partitions" / nullable(array(PartitionsSchema)),
    "transaction_last_update_timestamp_ms" / Int64,
    "transaction_start_timestamp_ms" / Int64,
)
