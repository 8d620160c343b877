import dataclasses
import struct
import zlib

import pytest
from golden_records import BATCHES, MESSAGE_SETS, RECORDS

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import (
    CONTROL,
    HEADER_SIZE,
    LOG_APPEND_TIME,
    NewRecord,
    Record,
    build_batch,
    check_crc,
    iter_records,
    read_header,
    rebuild_batch,
    replace_header,
)
from kpy.records.compression import Codec
from kpy.records.validate import (
    MAX_RECORD_ERRORS,
    UNBOUNDED_MS,
    InvalidRecords,
    ProduceRules,
    ValidBatch,
    validate_produced,
)

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
RULES = ProduceRules(
    max_message_bytes=1_048_588,
    compacted=False,
    timestamp_type="CreateTime",
    timestamp_before_max_ms=UNBOUNDED_MS,
    timestamp_after_max_ms=HOUR_MS,
    compression_type="producer",
    segment_bytes=1 << 30,
)
CODECS = {
    "uncompressed": Codec.NONE,
    "gzip": Codec.GZIP,
    "snappy": Codec.SNAPPY,
    "lz4": Codec.LZ4,
    "zstd": Codec.ZSTD,
}


def rules(**changes: object) -> ProduceRules:
    return dataclasses.replace(RULES, **changes)


def batch_of(*timestamps: int, codec: Codec = Codec.NONE, key: bytes | None = b"k", **fields: int) -> bytes:
    return build_batch([NewRecord(timestamp, key, b"value") for timestamp in timestamps], codec=codec, **fields)


def change(batch: bytes, **fields: int) -> bytes:
    """The batch with header fields changed under a good CRC."""
    return replace_header(memoryview(batch), read_header(batch)._replace(**fields))


def validate(records: bytes | None, wanted: ProduceRules = RULES, api_version: int = 9) -> ValidBatch:
    return validate_produced(None if records is None else memoryview(records), wanted, api_version, NOW_MS)


def refusal(records: bytes | None, wanted: ProduceRules = RULES, api_version: int = 9) -> ErrorCode:
    with pytest.raises(ApiError) as caught:
        validate(records, wanted, api_version)
    return caught.value.code


def records_of(valid: ValidBatch) -> list[Record]:
    assert check_crc(valid.data)
    assert valid.header == read_header(valid.data)
    assert valid.header.size_bytes == len(valid.data)
    return list(iter_records(valid.data))


@pytest.mark.parametrize("codec", list(Codec))
def test_a_sound_batch_is_handed_on_without_a_copy(codec: Codec):
    view = memoryview(batch_of(NOW_MS, NOW_MS + 1, codec=codec))
    valid = validate_produced(view, RULES, 9, NOW_MS)
    assert valid == (read_header(view), view, -1)
    assert valid.data is view


@pytest.mark.parametrize("records", [None, b"", b"\0" * 11, batch_of(NOW_MS)[:-1], batch_of(NOW_MS)[:16]])
@pytest.mark.parametrize("api_version", [0, 2, 3, 9])
def test_records_without_a_complete_batch_are_invalid(records: bytes | None, api_version: int):
    assert refusal(records, api_version=api_version) is ErrorCode.INVALID_RECORD


def test_more_than_one_batch_is_invalid():
    assert refusal(batch_of(NOW_MS) * 2) is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize("tail_bytes", [1, 11, 16, 40])
def test_a_tail_too_short_to_be_a_batch_is_cut_off(tail_bytes: int):
    batch = batch_of(NOW_MS)
    assert validate(batch + batch[:tail_bytes]).data == batch


@pytest.mark.parametrize("message_set", list(MESSAGE_SETS.values()))
def test_message_sets_are_invalid_from_version_3_on(message_set: bytes):
    assert refusal(message_set, api_version=3) is ErrorCode.INVALID_RECORD


def test_unknown_magic_and_impossible_length_are_corrupt():
    batch = bytearray(batch_of(NOW_MS))
    batch[16] = 3
    assert refusal(batch) is ErrorCode.CORRUPT_MESSAGE
    assert refusal(bytes(100)) is ErrorCode.CORRUPT_MESSAGE


def test_batch_without_a_complete_header_is_corrupt():
    short = bytearray(batch_of(NOW_MS)[: HEADER_SIZE - 1])
    struct.pack_into(">i", short, 8, len(short) - 12)
    assert refusal(short) is ErrorCode.CORRUPT_MESSAGE


def test_any_flipped_bit_under_the_crc_is_corrupt():
    batch = batch_of(NOW_MS)
    for position in range(23, len(batch)):
        damaged = bytearray(batch)
        damaged[position] ^= 4
        assert refusal(damaged) is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"base_offset": 1}, id="base offset"),
        pytest.param({"records_count": 0}, id="no records"),
        pytest.param({"records_count": -1, "last_offset_delta": -2}, id="negative count"),
        pytest.param({"records_count": 3}, id="count above the offsets"),
        pytest.param({"last_offset_delta": 2}, id="offsets above the count"),
        pytest.param({"last_offset_delta": -1}, id="negative offsets"),
        pytest.param({"records_count": 2**31 - 1, "last_offset_delta": 2**31 - 2}, id="count beyond the bytes"),
        pytest.param({"attributes": CONTROL}, id="control batch"),
        pytest.param({"producer_id": 7, "producer_epoch": 0, "base_sequence": -1}, id="producer without a sequence"),
    ],
)
def test_header_that_a_producer_may_not_write_is_invalid(fields: dict[str, int]):
    assert refusal(change(batch_of(NOW_MS, NOW_MS), **fields)) is ErrorCode.INVALID_RECORD


def test_zstd_needs_version_7():
    batch = batch_of(NOW_MS, codec=Codec.ZSTD)
    for version in (3, 6):
        assert refusal(batch, api_version=version) is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
    assert validate(batch, api_version=7).data == batch


@pytest.mark.parametrize("codec_id", [5, 6, 7])
def test_codec_that_is_not_assigned_is_refused(codec_id: int):
    batch = bytearray(batch_of(NOW_MS))
    batch[22] = codec_id
    assert refusal(batch) is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE


def test_batch_may_have_exactly_the_largest_size():
    batch = batch_of(NOW_MS)
    assert validate(batch, rules(max_message_bytes=len(batch))).data == batch
    assert refusal(batch, rules(max_message_bytes=len(batch) - 1)) is ErrorCode.MESSAGE_TOO_LARGE


def test_batch_must_fit_in_a_segment():
    batch = batch_of(NOW_MS)
    assert validate(batch, rules(segment_bytes=len(batch))).data == batch
    assert refusal(batch, rules(segment_bytes=len(batch) - 1)) is ErrorCode.RECORD_LIST_TOO_LARGE


def test_size_is_checked_again_after_recompression():
    batch = build_batch([NewRecord(NOW_MS, None, bytes(100_000))], codec=Codec.GZIP)
    assert (
        refusal(batch, rules(compression_type="uncompressed", max_message_bytes=50_000)) is ErrorCode.MESSAGE_TOO_LARGE
    )
    assert (
        refusal(batch, rules(compression_type="uncompressed", segment_bytes=50_000)) is ErrorCode.RECORD_LIST_TOO_LARGE
    )


@pytest.mark.parametrize("codec", list(Codec))
def test_compacted_topic_names_the_records_without_a_key(codec: Codec):
    records = [NewRecord(NOW_MS, key, b"v") for key in (b"a", None, b"", None)]
    with pytest.raises(InvalidRecords) as caught:
        validate(build_batch(records, codec=codec), rules(compacted=True))
    assert caught.value.code is ErrorCode.INVALID_RECORD
    assert [index for index, _ in caught.value.record_errors] == [1, 3]
    assert caught.value.message is not None


def test_compacted_topic_takes_records_with_keys_as_they_came():
    batch = batch_of(NOW_MS, NOW_MS, key=b"")
    assert validate(batch, rules(compacted=True)).data == batch


def test_record_errors_are_bounded():
    batch = batch_of(*[NOW_MS] * (MAX_RECORD_ERRORS + 5), key=None)
    with pytest.raises(InvalidRecords) as caught:
        validate(batch, rules(compacted=True))
    assert len(caught.value.record_errors) == MAX_RECORD_ERRORS


def test_records_that_are_looked_at_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kpy.records.validate.MAX_EXAMINED_RECORDS", 3)
    assert len(records_of(validate(batch_of(*[NOW_MS] * 3), rules(compacted=True)))) == 3
    assert refusal(batch_of(*[NOW_MS] * 4), rules(compacted=True)) is ErrorCode.INVALID_RECORD
    assert len(records_of(validate(batch_of(*[NOW_MS] * 4)))) == 4


def test_malformed_records_are_found_where_records_are_looked_at():
    header = read_header(batch_of(NOW_MS))
    malformed = rebuild_batch(header._replace(last_offset_delta=1), [Record(0, NOW_MS, b"k", b"v")])
    malformed = change(malformed, records_count=2)
    assert refusal(malformed, rules(compacted=True)) is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize("timestamp", [NOW_MS + HOUR_MS + 1, UNBOUNDED_MS])
def test_timestamp_too_far_ahead_is_invalid(timestamp: int):
    with pytest.raises(InvalidRecords) as caught:
        validate(batch_of(NOW_MS, timestamp, NOW_MS))
    assert caught.value.code is ErrorCode.INVALID_TIMESTAMP
    assert [index for index, _ in caught.value.record_errors] == [1]


@pytest.mark.parametrize("timestamps", [(NOW_MS - 11,), (NOW_MS, NOW_MS - 11), (0,)])
def test_timestamp_too_old_is_invalid_even_behind_a_younger_one(timestamps: tuple[int, ...]):
    with pytest.raises(InvalidRecords) as caught:
        validate(batch_of(*timestamps), rules(timestamp_before_max_ms=10))
    assert caught.value.code is ErrorCode.INVALID_TIMESTAMP
    assert [index for index, _ in caught.value.record_errors] == [len(timestamps) - 1]


def test_timestamps_at_their_bounds_and_absent_ones_are_taken():
    batch = batch_of(NOW_MS - 10, NOW_MS + HOUR_MS, -1)
    assert validate(batch, rules(timestamp_before_max_ms=10)).data == batch


def test_no_timestamp_bound_lets_everything_pass():
    batch = batch_of(UNBOUNDED_MS, 0)
    assert validate(batch, rules(timestamp_after_max_ms=UNBOUNDED_MS)).data == batch


def test_log_append_time_replaces_the_timestamps():
    valid = validate(batch_of(5, UNBOUNDED_MS, codec=Codec.LZ4), rules(timestamp_type="LogAppendTime"))
    assert valid.log_append_time_ms == NOW_MS
    assert valid.header.is_log_append_time
    assert valid.header.codec is Codec.LZ4
    assert valid.header.max_timestamp == NOW_MS
    assert [record.timestamp for record in records_of(valid)] == [NOW_MS, NOW_MS]


def test_log_append_time_does_not_read_the_records():
    batch = batch_of(5, codec=Codec.GZIP)
    garbled = bytearray(batch)
    garbled[HEADER_SIZE:] = bytes(len(batch) - HEADER_SIZE)
    valid = validate(change(bytes(garbled)), rules(timestamp_type="LogAppendTime"))
    assert valid.data[HEADER_SIZE:] == garbled[HEADER_SIZE:]


def test_producer_may_not_claim_log_append_time_where_the_broker_sets_it():
    batch = batch_of(NOW_MS, NOW_MS, log_append_time=True)
    with pytest.raises(InvalidRecords) as caught:
        validate(batch, rules(timestamp_type="LogAppendTime"))
    assert caught.value.code is ErrorCode.INVALID_TIMESTAMP
    assert [index for index, _ in caught.value.record_errors] == [0, 1]


def test_log_append_time_that_a_producer_claims_is_cleared_for_create_time():
    valid = validate(batch_of(NOW_MS, NOW_MS, log_append_time=True))
    assert not valid.header.is_log_append_time
    assert [record.timestamp for record in records_of(valid)] == [NOW_MS, NOW_MS]


@pytest.mark.parametrize("max_timestamp", [-1, 0, NOW_MS - 1, NOW_MS + 2 * HOUR_MS])
def test_largest_timestamp_that_the_producer_miscounted_is_put_right(max_timestamp: int):
    valid = validate(change(batch_of(NOW_MS, NOW_MS + 7), max_timestamp=max_timestamp))
    assert valid.header.max_timestamp == NOW_MS + 7
    assert [record.timestamp for record in records_of(valid)] == [NOW_MS, NOW_MS + 7]


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("compression_type", list(CODECS))
def test_topic_compression_type_recompresses(codec: Codec, compression_type: str):
    batch = batch_of(
        NOW_MS,
        NOW_MS + 3,
        codec=codec,
        producer_id=4000,
        producer_epoch=3,
        base_sequence=17,
        transactional=True,
    )
    valid = validate(batch, rules(compression_type=compression_type))
    assert valid.header.codec is CODECS[compression_type]
    assert records_of(valid) == list(iter_records(memoryview(batch)))
    assert (valid.header.producer_id, valid.header.producer_epoch, valid.header.base_sequence) == (4000, 3, 17)
    assert valid.header.is_transactional
    if CODECS[compression_type] is codec:
        assert valid.data == batch


def test_recompression_of_garbage_is_corrupt():
    garbled = change(batch_of(NOW_MS, codec=Codec.GZIP)[:HEADER_SIZE] + bytes(50))
    struct.pack_into(">i", garbled := bytearray(garbled), 8, len(garbled) - 12)
    assert refusal(change(bytes(garbled)), rules(compression_type="lz4")) is ErrorCode.CORRUPT_MESSAGE


def test_compression_level_of_the_topic_is_used():
    words = b" ".join(b"%d" % (i * i % 977) for i in range(5000))
    batch = build_batch([NewRecord(NOW_MS, None, words)])
    sizes = [len(validate(batch, rules(compression_type="gzip", compression_level=level)).data) for level in (1, 9)]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("codec", list(Codec))
def test_inner_offsets_that_a_producer_miscounted_are_numbered_anew(codec: Codec):
    header = read_header(batch_of(NOW_MS, NOW_MS, NOW_MS, codec=codec))
    wrong = [Record(offset, NOW_MS, b"k", b"%d" % offset) for offset in (4, 4, 0)]
    valid = validate(rebuild_batch(header, wrong), rules(compacted=True))
    assert records_of(valid) == [Record(i, NOW_MS, b"k", v) for i, v in enumerate((b"4", b"4", b"0"))]
    assert valid.header.codec is codec


@pytest.mark.parametrize("api_version", [0, 1, 2])
def test_old_versions_take_a_batch_of_magic_2(api_version: int):
    batch = batch_of(NOW_MS)
    assert validate(batch, api_version=api_version).data == batch


@pytest.mark.parametrize(("magic", "codec"), list(MESSAGE_SETS))
def test_message_set_becomes_one_batch(magic: int, codec: Codec):
    valid = validate(MESSAGE_SETS[magic, codec], api_version=2)
    assert [(r.offset, r.key, r.value, r.headers) for r in records_of(valid)] == [
        (i, record.key, record.value, ()) for i, record in enumerate(RECORDS)
    ]
    timestamps = [record.timestamp if magic else -1 for record in RECORDS]
    assert [record.timestamp for record in records_of(valid)] == timestamps
    assert valid.header.max_timestamp == max(timestamps)
    assert valid.header.codec is codec
    assert (valid.header.base_offset, valid.header.last_offset_delta) == (0, 2)
    assert (valid.header.producer_id, valid.header.producer_epoch, valid.header.base_sequence) == (-1, -1, -1)
    assert valid.log_append_time_ms == -1


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("compression_type", list(CODECS))
def test_message_set_is_recompressed_as_the_topic_wants(magic: int, compression_type: str):
    valid = validate(MESSAGE_SETS[magic, Codec.LZ4], rules(compression_type=compression_type), 1)
    assert valid.header.codec is CODECS[compression_type]
    assert [record.value for record in records_of(valid)] == [record.value for record in RECORDS]


@pytest.mark.parametrize("magic", [0, 1])
def test_message_set_gets_log_append_time(magic: int):
    valid = validate(MESSAGE_SETS[magic, Codec.GZIP], rules(timestamp_type="LogAppendTime"), 1)
    assert valid.header.is_log_append_time
    assert valid.log_append_time_ms == NOW_MS
    assert {record.timestamp for record in records_of(valid)} == {NOW_MS}


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.SNAPPY])
@pytest.mark.parametrize("magic", [0, 1])
def test_message_set_for_a_compacted_topic_needs_keys(magic: int, codec: Codec):
    with pytest.raises(InvalidRecords) as caught:
        validate(MESSAGE_SETS[magic, codec], rules(compacted=True), 1)
    assert caught.value.code is ErrorCode.INVALID_RECORD
    assert [index for index, _ in caught.value.record_errors] == [1]


def test_message_set_with_a_timestamp_out_of_bounds_is_invalid():
    with pytest.raises(InvalidRecords) as caught:
        validate(MESSAGE_SETS[1, Codec.NONE], rules(timestamp_after_max_ms=6), 2)
    assert caught.value.code is ErrorCode.INVALID_TIMESTAMP
    assert [index for index, _ in caught.value.record_errors] == [1]


def test_message_that_claims_log_append_time_is_invalid_where_the_broker_sets_it():
    body = struct.pack(">bbqii", 1, LOG_APPEND_TIME, NOW_MS, -1, -1)
    message = struct.pack(">qiI", 0, len(body) + 4, zlib.crc32(body)) + body
    assert refusal(message, rules(timestamp_type="LogAppendTime"), 2) is ErrorCode.INVALID_TIMESTAMP
    assert not validate(message, api_version=2).header.is_log_append_time


def test_one_message_of_a_set_above_the_largest_size_is_too_large():
    assert refusal(MESSAGE_SETS[1, Codec.NONE], rules(max_message_bytes=50), 2) is ErrorCode.MESSAGE_TOO_LARGE


def test_converted_batch_above_the_largest_size_is_too_large():
    assert refusal(MESSAGE_SETS[1, Codec.NONE], rules(max_message_bytes=100), 2) is ErrorCode.MESSAGE_TOO_LARGE


def test_message_set_with_a_bad_crc_is_corrupt():
    damaged = bytearray(MESSAGE_SETS[1, Codec.NONE])
    damaged[40] ^= 1
    assert refusal(damaged, api_version=2) is ErrorCode.CORRUPT_MESSAGE


def test_transactional_batch_of_apache_kafka_is_taken_at_base_offset_0():
    for codec, batch in BATCHES.items():
        valid = validate(change(batch, base_offset=0))
        assert valid.header.codec is codec
        assert valid.header.is_transactional
