import struct

import pytest
from golden_records import BATCHES, RECORDS

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import (
    DELETE_HORIZON,
    HEADER_SIZE,
    LOG_OVERHEAD,
    NO_TIMESTAMP,
    BatchHeader,
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
from kpy.records.compression import Codec, compress

INT64_MAX = (1 << 63) - 1


def build(*values: bytes, **fields: int) -> memoryview:
    return memoryview(build_batch([NewRecord(1000 + i, b"k", value) for i, value in enumerate(values)], **fields))


def with_records(body: bytes, count: int) -> memoryview:
    """A batch with a sound header over the given bytes for its records."""
    header = read_header(build(b"v"))._replace(records_count=count, last_offset_delta=count - 1)
    donor = bytearray(build(b"")[:HEADER_SIZE]) + body
    struct.pack_into(">i", donor, 8, len(donor) - LOG_OVERHEAD)
    return memoryview(replace_header(memoryview(donor), header))


@pytest.mark.parametrize("codec", list(Codec))
def test_batch_written_by_apache_kafka_is_read(codec: Codec):
    batch = memoryview(BATCHES[codec])
    header = read_header(batch)
    assert header._replace(batch_length=0, crc=0) == BatchHeader(
        base_offset=5,
        batch_length=0,
        partition_leader_epoch=9,
        magic=2,
        crc=0,
        attributes=codec | 0x10,
        last_offset_delta=2,
        base_timestamp=1_700_000_000_000,
        max_timestamp=1_700_000_000_007,
        producer_id=4000,
        producer_epoch=3,
        base_sequence=17,
        records_count=3,
    )
    assert header.size_bytes == len(batch)
    assert header.last_offset == 7
    assert header.codec is codec
    assert header.is_transactional
    assert not header.is_control
    assert not header.is_log_append_time
    assert not header.has_delete_horizon
    assert check_crc(batch)
    assert list(iter_records(batch)) == RECORDS


def test_uncompressed_batch_is_built_byte_for_byte_as_apache_kafka_builds_it():
    built = build_batch(
        RECORDS,
        base_offset=5,
        producer_id=4000,
        producer_epoch=3,
        base_sequence=17,
        partition_leader_epoch=9,
        transactional=True,
    )
    assert built == BATCHES[Codec.NONE]


def test_crc_covers_every_byte_from_the_attributes_on_and_none_before():
    batch = build(b"value")
    for position in range(len(batch)):
        flipped = bytearray(batch)
        flipped[position] ^= 1
        is_covered = position >= 17
        assert check_crc(memoryview(flipped)) is not is_covered


def test_iter_batches_stops_at_a_tail_that_is_cut_short():
    first, second = build(b"a"), build(b"b", base_offset=1)
    whole = bytes(first) + bytes(second)
    for cut in range(len(first), len(whole)):
        assert [header.base_offset for header, _ in iter_batches(whole[:cut])] == [0]
    assert [bytes(batch) for _, batch in iter_batches(whole)] == [first, second]


@pytest.mark.parametrize("damage", [b"\x00\x00\x00\x30", b"\x80\x00\x00\x00", b"\x00\x00\x00\x00"])
def test_iter_batches_refuses_a_length_that_no_batch_has(damage: bytes):
    batch = bytearray(build(b"a"))
    batch[8:12] = damage
    with pytest.raises(ApiError) as caught:
        list(iter_batches(batch))
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


def test_iter_batches_refuses_another_magic():
    batch = bytearray(build(b"a"))
    batch[16] = 1
    with pytest.raises(ApiError) as caught:
        list(iter_batches(batch))
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


def test_iter_batches_does_not_copy():
    whole = memoryview(bytes(build(b"a")) * 2)
    assert all(batch.obj is whole.obj for _, batch in iter_batches(whole))


def test_log_append_time_of_the_batch_is_the_timestamp_of_every_record():
    batch = memoryview(build_batch([NewRecord(5, None, b"a"), NewRecord(9, None, b"b")], log_append_time=True))
    assert read_header(batch).is_log_append_time
    assert [record.timestamp for record in iter_records(batch)] == [9, 9]


def test_control_and_transactional_bits_are_set():
    header = read_header(build(b"x", control=True, transactional=True, producer_id=1, producer_epoch=0))
    assert header.is_control
    assert header.is_transactional


def test_timestamps_at_both_ends_of_int64_share_a_batch():
    timestamps = [-INT64_MAX - 1, INT64_MAX, NO_TIMESTAMP, 0]
    batch = build_batch([NewRecord(timestamp, None, b"") for timestamp in timestamps])
    assert [record.timestamp for record in iter_records(memoryview(batch))] == timestamps
    assert read_header(batch).max_timestamp == INT64_MAX


def test_sizes_around_each_length_of_their_varint_are_kept():
    sizes = [0, 1, 62, 63, 64, 65, 1022, 1023, 1024, 8191, 8192, 1 << 20]
    records = [NewRecord(i * 100_000, b"k" * size, b"v" * size) for i, size in enumerate(sizes)]
    got = list(iter_records(memoryview(build_batch(records))))
    assert [(record.timestamp, record.key, record.value) for record in got] == [record[:3] for record in records]


def test_building_needs_a_record():
    with pytest.raises(ValueError, match="one record at least"):
        build_batch([])


def test_rebuilding_keeps_offsets_and_the_last_offset_of_the_header():
    batch = build(b"a", b"b", b"c", base_offset=40, producer_id=7, producer_epoch=1, base_sequence=9, codec=Codec.LZ4)
    header = read_header(batch)
    middle = [record for record in iter_records(batch) if record.offset == 41]
    kept = memoryview(rebuild_batch(header, middle))
    assert list(iter_records(kept)) == middle
    assert check_crc(kept)
    rebuilt = read_header(kept)
    assert rebuilt._replace(crc=0, batch_length=0, records_count=3) == header._replace(crc=0, batch_length=0)
    assert rebuilt.last_offset == 42


def test_batch_can_be_emptied_and_keeps_its_producer():
    header = read_header(
        build(b"a", b"b", base_offset=3, producer_id=7, producer_epoch=1, base_sequence=9, codec=Codec.ZSTD)
    )
    emptied = memoryview(rebuild_batch(header, []))
    assert len(emptied) == HEADER_SIZE
    assert check_crc(emptied)
    assert list(iter_records(emptied)) == []
    left = read_header(emptied)
    assert (left.last_offset, left.producer_id, left.producer_epoch, left.base_sequence) == (4, 7, 1, 9)
    assert left.codec is Codec.NONE


def test_delete_horizon_takes_the_place_of_the_base_timestamp_and_records_keep_theirs():
    batch = build(b"a", b"b")
    header = read_header(batch)
    marked = header._replace(base_timestamp=999_999, attributes=header.attributes | DELETE_HORIZON)
    rebuilt = memoryview(rebuild_batch(marked, iter_records(batch)))
    assert read_header(rebuilt).has_delete_horizon
    assert read_header(rebuilt).base_timestamp == 999_999
    assert list(iter_records(rebuilt)) == list(iter_records(batch))


@pytest.mark.parametrize("source", list(Codec))
@pytest.mark.parametrize("target", list(Codec))
def test_replacing_the_header_recompresses_where_the_codec_differs(source: Codec, target: Codec):
    batch = build(b"a" * 500, b"b" * 500, codec=source)
    header = read_header(batch)
    changed = memoryview(replace_header(batch, header._replace(attributes=target, max_timestamp=77)))
    assert check_crc(changed)
    assert read_header(changed).codec is target
    assert read_header(changed).max_timestamp == 77
    assert list(iter_records(changed)) == list(iter_records(batch))
    if source is target:
        assert changed[HEADER_SIZE:] == batch[HEADER_SIZE:]


def test_header_key_that_is_not_utf8_survives_a_rebuild():
    body = b"\x00\x00\x00\x01\x01\x02\x06\xff\x80h\x01"
    batch = with_records(bytes((len(body) * 2,)) + body, 1)
    rebuilt = rebuild_batch(read_header(batch), iter_records(batch))
    assert rebuilt[HEADER_SIZE:] == batch[HEADER_SIZE:]


GOOD = bytes.fromhex("0c000000010100")  # size 6: attributes, timestamp, offset, null key, null value, no headers


@pytest.mark.parametrize(
    ("body", "count"),
    [
        pytest.param(GOOD, 2, id="fewer records than counted"),
        pytest.param(GOOD * 2, 1, id="more records than counted"),
        pytest.param(GOOD, -1, id="negative count"),
        pytest.param(GOOD, 2**31 - 1, id="count beyond the bytes"),
        pytest.param(bytes.fromhex("0e000000010100"), 1, id="size too large"),
        pytest.param(bytes.fromhex("0a000000010100"), 1, id="size too small"),
        pytest.param(bytes.fromhex("0d000000010100"), 1, id="negative size"),
        pytest.param(bytes.fromhex("0c000000140100"), 1, id="key beyond the end"),
        pytest.param(bytes.fromhex("0c000000011400"), 1, id="value beyond the end"),
        pytest.param(bytes.fromhex("0c000000feffffff0f0100"), 1, id="key of two gigabytes"),
        pytest.param(bytes.fromhex("ffffffffff010000000101"), 1, id="varint of six bytes"),
        pytest.param(bytes.fromhex("feffffff1f000000010100"), 1, id="varint above 32 bits"),
        pytest.param(bytes.fromhex("2000ffffffffffffffffffff0100010100"), 1, id="varlong of eleven bytes"),
        pytest.param(bytes.fromhex("1e00ffffffffffffffffff0200010100"), 1, id="varlong above 64 bits"),
        pytest.param(bytes.fromhex("0c000000010101"), 1, id="negative count of headers"),
        pytest.param(bytes.fromhex("0c000000010102"), 1, id="headers beyond the end"),
        pytest.param(bytes.fromhex("1600000001010efeffffff0f"), 1, id="more headers than bytes"),
        pytest.param(bytes.fromhex("100000000101020101"), 1, id="header without a key"),
        pytest.param(bytes.fromhex("100000000101020014"), 1, id="header value beyond the end"),
        pytest.param(bytes.fromhex("0c0000000101ff"), 1, id="varint cut off by the end"),
        pytest.param(b"", 1, id="no bytes"),
    ],
)
def test_malformed_records_are_refused(body: bytes, count: int):
    with pytest.raises(ApiError) as caught:
        list(iter_records(with_records(body, count)))
    assert caught.value.code is ErrorCode.INVALID_RECORD


def test_the_good_record_that_the_malformed_ones_vary_is_read():
    assert list(iter_records(with_records(GOOD, 1))) == [Record(0, 1000, None, None)]


def test_batch_that_decompresses_to_more_than_the_bound_is_refused():
    batch = build(bytes(100_000), codec=Codec.ZSTD)
    assert len(batch) < 200
    with pytest.raises(ApiError) as caught:
        list(iter_records(batch, 50_000))
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


def test_zstd_that_is_cut_short_is_refused_by_the_count_of_records():
    records = build(*[bytes((i % 256,)) * 50 for i in range(20_000)])
    compressed = compress(Codec.ZSTD, records[HEADER_SIZE:])
    cut = with_records(compressed[: len(compressed) // 2], 20_000)
    damaged = bytearray(cut)
    struct.pack_into(">h", damaged, 21, Codec.ZSTD)
    with pytest.raises(ApiError) as caught:
        list(iter_records(memoryview(damaged)))
    assert caught.value.code is ErrorCode.INVALID_RECORD


@pytest.mark.parametrize("codec_id", [5, 6, 7])
def test_codec_that_is_not_assigned_is_refused(codec_id: int):
    header = read_header(build(b"a"))._replace(attributes=codec_id)
    with pytest.raises(ApiError) as caught:
        _ = header.codec
    assert caught.value.code is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
