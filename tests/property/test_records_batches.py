"""Batches of any records are read back as they were written, and no damage to one raises anything but an ApiError."""

import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpy.errors import ApiError
from kpy.records.batch import (
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC_POSITION,
    NewRecord,
    Record,
    build_batch,
    check_crc,
    iter_batches,
    iter_records,
    read_header,
    rebuild_batch,
    replace_header,
)
from kpy.records.compression import CODEC_MASK, Codec
from kpy.records.legacy import down_convert, iter_messages
from kpy.records.validate import UNBOUNDED_MS, InvalidRecords, ProduceRules, validate_produced

NOW_MS = 1_700_000_000_000
MUTATIONS = 20_000

contents = st.none() | st.binary(max_size=200)
timestamps = st.integers(-1, 2**63 - 1) | st.integers(NOW_MS - 1000, NOW_MS + 1000)
headers = st.lists(st.tuples(st.text(max_size=10), contents), max_size=3).map(tuple)
new_records = st.lists(st.builds(NewRecord, timestamps, contents, contents, headers), min_size=1, max_size=20)
rules = st.builds(
    ProduceRules,
    max_message_bytes=st.just(1 << 20),
    compacted=st.booleans(),
    timestamp_type=st.sampled_from(["CreateTime", "LogAppendTime"]),
    timestamp_before_max_ms=st.sampled_from([UNBOUNDED_MS, 10_000]),
    timestamp_after_max_ms=st.sampled_from([UNBOUNDED_MS, 10_000]),
    compression_type=st.sampled_from(["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
    segment_bytes=st.just(1 << 30),
)


@given(new_records, st.sampled_from(Codec), st.integers(0, 2**62), st.booleans())
def test_built_batch_is_read_back(records: list[NewRecord], codec: Codec, base_offset: int, transactional: bool):
    batch = memoryview(build_batch(records, base_offset=base_offset, codec=codec, transactional=transactional))
    assert check_crc(batch)
    assert list(iter_batches(batch)) == [(read_header(batch), batch)]
    assert read_header(batch).last_offset == base_offset + len(records) - 1
    assert list(iter_records(batch)) == [Record(base_offset + i, *record) for i, record in enumerate(records)]


@given(new_records, st.sampled_from(Codec), st.data())
def test_rebuilt_batch_keeps_what_was_retained(records: list[NewRecord], codec: Codec, data: st.DataObject):
    batch = build_batch(records, base_offset=1000, codec=codec)
    retained = [record for record in iter_records(memoryview(batch)) if data.draw(st.booleans())]
    rebuilt = memoryview(rebuild_batch(read_header(batch), retained))
    assert check_crc(rebuilt)
    assert list(iter_records(rebuilt)) == retained
    assert read_header(rebuilt).last_offset == read_header(batch).last_offset


@given(new_records, st.sampled_from([Codec.NONE, Codec.GZIP, Codec.SNAPPY, Codec.LZ4]), st.sampled_from([0, 1]))
def test_down_converted_batch_keeps_what_its_magic_can_hold(records: list[NewRecord], codec: Codec, magic: int):
    messages = memoryview(down_convert(build_batch(records, codec=codec), magic))
    assert list(iter_messages(messages, 1 << 20)) == [
        Record(i, record.timestamp if magic else -1, record.key, record.value) for i, record in enumerate(records)
    ]


def is_acceptable(record: NewRecord, topic: ProduceRules) -> bool:
    if topic.compacted and record.key is None:
        return False
    oldest, newest = NOW_MS - topic.timestamp_before_max_ms, NOW_MS + topic.timestamp_after_max_ms
    return topic.is_log_append_time or record.timestamp == -1 or oldest <= record.timestamp <= newest


@given(new_records, st.sampled_from(Codec), rules)
def test_validation_refuses_what_the_topic_does_not_take_and_changes_no_content(
    records: list[NewRecord], codec: Codec, topic: ProduceRules
):
    refused = [index for index, record in enumerate(records) if not is_acceptable(record, topic)]
    batch = memoryview(build_batch(records, codec=codec))
    if refused:
        with pytest.raises(InvalidRecords) as caught:
            validate_produced(batch, topic, 9, NOW_MS)
        assert [index for index, _ in caught.value.record_errors] == refused
        return
    valid = validate_produced(batch, topic, 9, NOW_MS)
    assert check_crc(valid.data)
    timestamps_ms = [NOW_MS if topic.is_log_append_time else record.timestamp for record in records]
    assert list(iter_records(valid.data)) == [
        Record(i, timestamp_ms, record.key, record.value, record.headers)
        for i, (record, timestamp_ms) in enumerate(zip(records, timestamps_ms, strict=True))
    ]


def seeds() -> list[bytes]:
    """Small batches and message sets of every kind, so that a mutation is likely to hit something that matters."""
    records = [NewRecord(NOW_MS + i, b"k%d" % i, b"value " * i, (("h", b"x"), ("n", None))[:i]) for i in range(4)]
    batches = [build_batch(records, codec=codec) for codec in Codec]
    convertible = [build_batch(records, codec=codec) for codec in Codec if codec is not Codec.ZSTD]
    return batches + [down_convert(batch, magic) for batch in convertible for magic in (0, 1)]


def mutate(rng: random.Random, data: bytes) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        position = rng.randrange(len(mutated))
        match rng.randrange(6):
            case 0:
                mutated[position] ^= 1 << rng.randrange(8)
            case 1:
                mutated[position] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
            case 2:
                del mutated[position : position + rng.randrange(1, 4)]
            case 3:
                mutated[position:position] = rng.randbytes(rng.randrange(1, 4))
            case 4:
                mutated[position : position + 4] = struct.pack(">i", rng.choice((-1, 0, 1, 2**31 - 1, -(2**31))))
            case _:
                mutated += data[:position]
        if not mutated:
            return data
    return bytes(mutated)


def reseal(data: bytes) -> bytes:
    """Makes length and CRC of a batch, or of the first message, right again, so that the damage gets past them."""
    if len(data) > MAGIC_POSITION and data[MAGIC_POSITION] < 2:
        (size,) = struct.unpack_from(">i", data, 8)
        end = size + LOG_OVERHEAD if 4 <= size <= len(data) - LOG_OVERHEAD else len(data)
        sealed = struct.pack(">iI", end - LOG_OVERHEAD, zlib.crc32(data[MAGIC_POSITION:end]))
        return data[:8] + sealed + data[MAGIC_POSITION:]
    is_batch = len(data) >= HEADER_SIZE and data[MAGIC_POSITION] == 2 and data[22] & CODEC_MASK in list(Codec)
    if not is_batch:
        return data
    resealed = bytearray(data)
    struct.pack_into(">i", resealed, 8, len(data) - LOG_OVERHEAD)
    return replace_header(memoryview(resealed), read_header(resealed))


def test_damaged_batches_raise_api_errors_and_nothing_else():
    rng = random.Random(20_260_101)
    pool = seeds()
    topics = [
        ProduceRules(1 << 20, compacted, timestamp_type, 10**15, 10**15, compression_type, 1 << 30)
        for compacted in (False, True)
        for timestamp_type in ("CreateTime", "LogAppendTime")
        for compression_type in ("producer", "uncompressed", "lz4")
    ]
    refused = accepted = 0
    for _ in range(MUTATIONS):
        data = mutate(rng, rng.choice(pool))
        if rng.random() < 0.7:
            data = reseal(data)
        try:
            valid = validate_produced(memoryview(data), rng.choice(topics), rng.choice((2, 9)), NOW_MS)
            assert check_crc(valid.data)
            down_convert(valid.data, rng.choice((0, 1)))
            accepted += 1
        except ApiError:
            refused += 1
    # Both must happen a lot, or the mutations test only one side.
    assert refused > MUTATIONS // 20
    assert accepted > MUTATIONS // 20


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_api_errors_and_nothing_else(data: bytes):
    for consume in (
        lambda: list(iter_batches(data)),
        lambda: list(iter_messages(memoryview(data), 1000)),
        lambda: down_convert(data, 1),
    ):
        try:
            consume()
        except ApiError:
            continue
