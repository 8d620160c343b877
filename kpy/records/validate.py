"""What a leader checks and changes in the records of a Produce request before they enter its log (Kafka: LogValidator).

All that the header of a batch can prove is proved from the header. Single records are looked at only for a compacted
topic, which needs their keys; for timestamps that the header leaves in doubt; and in message sets of magic 0 and 1, to
convert them. A batch that needs no change is handed on as it came, without a copy. Where the topic wants another codec
or the broker's own time, a changed copy takes its place.

Kafka reads every record of every batch. So it refuses malformed records under a sound header and a good CRC, which kpy
stores; their consumers refuse them then.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fastcrc.crc32 import iscsi as crc32c

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import (
    ATTRIBUTES_POSITION,
    CONTROL,
    HEADER_SIZE,
    LOG_APPEND_TIME,
    MAGIC,
    MAGIC_POSITION,
    MIN_RECORD_BYTES,
    NO_PRODUCER_ID,
    NO_TIMESTAMP,
    BatchHeader,
    NewRecord,
    Record,
    build_batch,
    invalid_record,
    iter_batches,
    iter_records,
    read_header,
    rebuild_batch,
    replace_header,
)
from kpy.records.compression import CODEC_MASK, Codec, codec_of
from kpy.records.legacy import entry_size, iter_messages

MAX_RECORD_ERRORS: Final = 1000
"""The most records of one batch that are reported one by one. The batch is refused whole in any case."""

MAX_EXAMINED_RECORDS: Final = 1 << 20
"""The most records a batch may have if each is to be looked at. Compressed, a few kilobytes may hold many millions."""

UNBOUNDED_MS: Final = (1 << 63) - 1
"""The default of message.timestamp.before.max.ms: a record may be of any age."""

_FIRST_API_VERSION_OF_BATCHES: Final = 3
_FIRST_API_VERSION_OF_ZSTD: Final = 7

_CODECS: Final = {
    "uncompressed": Codec.NONE,
    "gzip": Codec.GZIP,
    "snappy": Codec.SNAPPY,
    "lz4": Codec.LZ4,
    "zstd": Codec.ZSTD,
}
"""The values of compression.type, but for producer, which keeps the codec that the records came with."""


@dataclass(frozen=True, slots=True)
class ProduceRules:
    """What a topic's configuration asks of the batches that producers send."""

    max_message_bytes: int
    compacted: bool
    timestamp_type: str
    """CreateTime or LogAppendTime."""
    timestamp_before_max_ms: int
    timestamp_after_max_ms: int
    compression_type: str
    """The topic's compression.type: producer, uncompressed, gzip, snappy, lz4 or zstd."""
    segment_bytes: int
    compression_level: int | None = None
    """The level for `compression_type` where the broker compresses; None, as for producer, is the codec's default."""
    headers_suffice: bool = field(init=False)
    """Whether a batch with a sound header can be stored as it came."""

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "headers_suffice",
            self.timestamp_type == "CreateTime"
            and self.timestamp_before_max_ms == UNBOUNDED_MS
            and self.compression_type == "producer"
            and not self.compacted,
        )

    @property
    def is_log_append_time(self) -> bool:
        return self.timestamp_type == "LogAppendTime"

    def target_codec(self, source: Codec) -> Codec:
        return source if self.compression_type == "producer" else _CODECS[self.compression_type]


class ValidBatch(NamedTuple):
    """One batch of magic 2 that may be appended. Its base offset is 0, its leader epoch whatever the producer wrote.

    `data` is the producer's own bytes or a changed copy. `log_append_time_ms` is -1 for CreateTime.
    """

    header: BatchHeader
    data: "memoryview"  # In quotes for mypyc, whose module initialisation does not find this name in a NamedTuple.
    log_append_time_ms: int


class InvalidRecords(ApiError):  # noqa: N818 - it is the plural that tells it from INVALID_RECORD, which it may not be
    """Some records of a batch are at fault: (index in the batch, what is wrong with it) for each (KIP-467)."""

    def __init__(self, code: ErrorCode, record_errors: list[tuple[int, str]]) -> None:
        super().__init__(code, f"{len(record_errors)} records are invalid, the first because: {record_errors[0][1]}")
        self.record_errors = record_errors


def validate_produced(records: memoryview | None, rules: ProduceRules, api_version: int, now_ms: int) -> ValidBatch:
    """The batch that a partition's records in a Produce request become.

    Raises ApiError with the code that Kafka answers: INVALID_RECORD, CORRUPT_MESSAGE, MESSAGE_TOO_LARGE,
    RECORD_LIST_TOO_LARGE, UNSUPPORTED_COMPRESSION_TYPE; and InvalidRecords with INVALID_RECORD or INVALID_TIMESTAMP.
    """
    if not records:
        raise invalid_record("There is no record batch")
    header = read_header(records) if len(records) >= HEADER_SIZE else None
    if header is None or header.magic != MAGIC or header.size_bytes != len(records):
        records = _sole_batch(records, api_version)
        if records[MAGIC_POSITION] != MAGIC:
            return _convert(records, rules, now_ms)
        header = read_header(records)
    _check_header(header, records, rules, api_version)
    if (
        rules.headers_suffice
        and not header.attributes & LOG_APPEND_TIME
        # A base timestamp above the largest one betrays a header that some clients fill in wrongly.
        and header.base_timestamp <= header.max_timestamp <= now_ms + rules.timestamp_after_max_ms
    ):
        return ValidBatch(header, records, -1)
    return _examine(header, records, rules, now_ms)


def _sole_batch(records: memoryview, api_version: int) -> memoryview:
    """The one batch, without a tail too short to be another one; or the message set, which old versions may send."""
    size_bytes = entry_size(records, 0)
    if size_bytes is None:
        raise invalid_record("There is no complete record batch")
    if records[MAGIC_POSITION] != MAGIC:
        if api_version >= _FIRST_API_VERSION_OF_BATCHES:
            text = f"Produce {api_version} takes batches of magic 2, not messages of magic {records[MAGIC_POSITION]}"
            raise invalid_record(text)
        return records
    if size_bytes < HEADER_SIZE:
        raise ApiError(ErrorCode.CORRUPT_MESSAGE, f"A record batch of {size_bytes} bytes has no complete header")
    if entry_size(records, size_bytes) is not None:
        raise invalid_record("There is more than one record batch")
    return records[:size_bytes]


def _check_header(header: BatchHeader, records: memoryview, rules: ProduceRules, api_version: int) -> None:
    """Everything that holds for every batch, in the order in which Kafka finds it."""
    if header.attributes & CODEC_MASK >= Codec.ZSTD:
        _check_zstd(header, api_version)
    if header.base_offset != 0:
        raise invalid_record(f"The base offset of a batch from a producer is 0, not {header.base_offset}")
    if len(records) > rules.max_message_bytes:
        raise _message_too_large(len(records), rules)
    if header.crc != crc32c(records[ATTRIBUTES_POSITION:]):
        raise ApiError(ErrorCode.CORRUPT_MESSAGE, f"The CRC of the batch is not {header.crc}")
    if header.records_count <= 0 or header.last_offset_delta != header.records_count - 1:
        text = f"A batch of {header.records_count} records cannot have the last offset delta {header.last_offset_delta}"
        raise invalid_record(text)
    if header.records_count > len(records) // MIN_RECORD_BYTES and not header.attributes & CODEC_MASK:
        raise invalid_record(f"{len(records)} bytes cannot hold {header.records_count} records")
    if header.attributes & CONTROL:
        raise invalid_record("A producer may not write control records")
    if header.base_sequence < 0 and header.producer_id > NO_PRODUCER_ID:
        raise invalid_record(f"Producer {header.producer_id} sent the sequence number {header.base_sequence}")
    if len(records) > rules.segment_bytes:
        raise _larger_than_segment(len(records), rules)


def _check_zstd(header: BatchHeader, api_version: int) -> None:
    """Refuses the three unassigned codecs, and zstd in the versions that had batches before it (KIP-110)."""
    if header.codec is Codec.ZSTD and _FIRST_API_VERSION_OF_BATCHES <= api_version < _FIRST_API_VERSION_OF_ZSTD:
        text = f"Produce {api_version} does not take batches compressed with zstd"
        raise ApiError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, text)


def _message_too_large(size_bytes: int, rules: ProduceRules) -> ApiError:
    text = f"A batch of {size_bytes} bytes exceeds the maximum of {rules.max_message_bytes}"
    return ApiError(ErrorCode.MESSAGE_TOO_LARGE, text)


def _larger_than_segment(size_bytes: int, rules: ProduceRules) -> ApiError:
    text = f"A batch of {size_bytes} bytes does not fit in a segment of {rules.segment_bytes}"
    return ApiError(ErrorCode.RECORD_LIST_TOO_LARGE, text)


def _examine(header: BatchHeader, batch: memoryview, rules: ProduceRules, now_ms: int) -> ValidBatch:
    """Checks single records where that is needed, and changes what the topic wants otherwise."""
    timestamps_are_proved = rules.is_log_append_time or (
        rules.timestamp_before_max_ms == UNBOUNDED_MS
        and header.base_timestamp <= header.max_timestamp <= now_ms + rules.timestamp_after_max_ms
    )
    max_timestamp = header.max_timestamp
    offsets_are_sequential = True
    if rules.compacted or header.is_log_append_time or not timestamps_are_proved:
        max_timestamp = NO_TIMESTAMP
        records = _accepted(iter_records(batch), rules, header.is_log_append_time, now_ms)
        for offset_delta, record in enumerate(records):
            max_timestamp = max(max_timestamp, record.timestamp)
            if record.offset != offset_delta:
                offsets_are_sequential = False
    if rules.is_log_append_time:
        max_timestamp = now_ms
    attributes = header.attributes & ~(CODEC_MASK | LOG_APPEND_TIME) | rules.target_codec(header.codec)
    if rules.is_log_append_time:
        attributes |= LOG_APPEND_TIME
    wanted = header._replace(attributes=attributes, max_timestamp=max_timestamp)
    if not offsets_are_sequential:
        # Some old clients number the records inside a batch wrongly; Kafka numbers them anew rather than refuse them.
        renumbered = _renumbered(iter_records(batch))
        return _valid_copy(rebuild_batch(wanted, renumbered, rules.compression_level), rules, now_ms)
    if wanted != header:
        return _valid_copy(replace_header(batch, wanted, rules.compression_level), rules, now_ms)
    return ValidBatch(header, batch, -1)


def _convert(message_set: memoryview, rules: ProduceRules, now_ms: int) -> ValidBatch:
    """One batch of the records of a message set, in the codec of the set unless the topic wants another."""
    attributes = message_set[MAGIC_POSITION + 1]
    is_log_append_time = message_set[MAGIC_POSITION] == 1 and attributes & LOG_APPEND_TIME != 0
    messages = iter_messages(message_set, rules.max_message_bytes)
    batch = build_batch(
        _unnumbered(
            _accepted(messages, rules, is_log_append_time, now_ms), now_ms if rules.is_log_append_time else None
        ),
        codec=rules.target_codec(codec_of(attributes)),
        log_append_time=rules.is_log_append_time,
        level=rules.compression_level,
    )
    return _valid_copy(batch, rules, now_ms)


def _renumbered(records: Iterable[Record]) -> Iterator[Record]:
    for offset_delta, record in enumerate(records):
        yield record._replace(offset=offset_delta)


def _unnumbered(records: Iterable[Record], append_time_ms: int | None) -> Iterator[NewRecord]:
    for record in records:
        yield NewRecord(record.timestamp if append_time_ms is None else append_time_ms, record.key, record.value)


def _valid_copy(batch: bytes, rules: ProduceRules, now_ms: int) -> ValidBatch:
    if len(batch) > rules.max_message_bytes:
        raise _message_too_large(len(batch), rules)
    if len(batch) > rules.segment_bytes:
        raise _larger_than_segment(len(batch), rules)
    return ValidBatch(read_header(batch), memoryview(batch), now_ms if rules.is_log_append_time else -1)


def _accepted(
    records: Iterable[Record], rules: ProduceRules, is_log_append_time: bool, now_ms: int
) -> Iterator[Record]:
    """Passes the records on, and at the end raises InvalidRecords if the topic does not take some of them.

    `is_log_append_time` says that the producer marked its timestamps as the broker's, which is for the broker to say.
    """
    oldest = now_ms - rules.timestamp_before_max_ms
    newest = now_ms + rules.timestamp_after_max_ms
    errors: list[tuple[int, str]] = []
    code = ErrorCode.INVALID_RECORD
    for index, record in enumerate(records):
        if index == MAX_EXAMINED_RECORDS:
            raise invalid_record(f"A batch has more than {MAX_EXAMINED_RECORDS} records")
        if rules.compacted and record.key is None:
            errors.append((index, "It has no key, and the topic is compacted"))
        elif not rules.is_log_append_time and record.timestamp != NO_TIMESTAMP:
            if not oldest <= record.timestamp <= newest:
                errors.append((index, f"Its timestamp {record.timestamp} is not within {oldest} and {newest}"))
                code = ErrorCode.INVALID_TIMESTAMP
        elif is_log_append_time:
            errors.append((index, "A producer may not set the timestamp type LogAppendTime"))
            code = ErrorCode.INVALID_TIMESTAMP
        if len(errors) == MAX_RECORD_ERRORS:
            break
        yield record
    if errors:
        raise InvalidRecords(code, errors)


def checked_batches(records: memoryview) -> memoryview:
    """The whole batches at the beginning of what a leader has answered, which may cut the last one.

    Raises ApiError CORRUPT_MESSAGE for a batch with a wrong CRC, and for a first batch that is no batch of magic 2.
    """
    size_bytes = 0
    for header, batch in iter_batches(records):
        if header.crc != crc32c(batch[ATTRIBUTES_POSITION:]):
            raise ApiError(ErrorCode.CORRUPT_MESSAGE, f"The CRC of the batch at {header.base_offset} is wrong")
        if header.last_offset_delta < 0:
            raise ApiError(ErrorCode.CORRUPT_MESSAGE, f"The batch at {header.base_offset} ends before it begins")
        size_bytes += header.size_bytes
    return records[:size_bytes]
