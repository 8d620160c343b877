import struct
import zlib

import pytest
from golden_records import BATCHES, MESSAGE_SETS, RECORDS

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import (
    LOG_APPEND_TIME,
    NO_TIMESTAMP,
    NewRecord,
    Record,
    build_batch,
    iter_records,
    read_header,
    rebuild_batch,
)
from kpy.records.compression import Codec, compress, decompress
from kpy.records.legacy import down_convert, entry_size, iter_messages

LIMIT = 1_000_000
CODECS = [Codec.NONE, Codec.GZIP, Codec.SNAPPY, Codec.LZ4]


def message(
    value: bytes | None,
    *,
    magic: int = 1,
    offset: int = 0,
    attributes: int = 0,
    timestamp: int = 5,
    key: bytes | None = None,
) -> bytes:
    body = struct.pack(">bb", magic, attributes) + (struct.pack(">q", timestamp) if magic else b"")
    for content in (key, value):
        body += struct.pack(">i", -1) if content is None else struct.pack(">i", len(content)) + content
    return struct.pack(">qiI", offset, len(body) + 4, zlib.crc32(body)) + body


def wrapper(inside: bytes, codec: Codec = Codec.GZIP, *, magic: int = 1, offset: int = 0, attributes: int = 0) -> bytes:
    return message(compress(codec, inside), magic=magic, offset=offset, attributes=codec | attributes, timestamp=1000)


def read(message_set: bytes) -> list[Record]:
    return list(iter_messages(memoryview(message_set), LIMIT))


def assert_refused(message_set: bytes, code: ErrorCode) -> None:
    with pytest.raises(ApiError) as caught:
        read(message_set)
    assert caught.value.code is code


def expected(magic: int, offsets: range) -> list[Record]:
    """The golden records as a message set can tell them."""
    return [
        Record(offset, record.timestamp if magic else NO_TIMESTAMP, record.key, record.value)
        for offset, record in zip(offsets, RECORDS, strict=True)
    ]


@pytest.mark.parametrize(("magic", "codec"), list(MESSAGE_SETS))
def test_message_set_written_by_apache_kafka_is_read(magic: int, codec: Codec):
    assert read(MESSAGE_SETS[magic, codec]) == expected(magic, range(3))


@pytest.mark.parametrize("magic", [0, 1])
def test_plain_batch_is_down_converted_byte_for_byte_as_apache_kafka_does(magic: int):
    assert down_convert(BATCHES[Codec.NONE], magic) == MESSAGE_SETS[magic, Codec.NONE]


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.SNAPPY, Codec.LZ4])
def test_compressed_batch_becomes_one_wrapper_as_in_apache_kafka(magic: int, codec: Codec):
    ours, theirs = down_convert(BATCHES[codec], magic), MESSAGE_SETS[magic, codec]
    value_position = 26 if magic == 0 else 34
    # The CRC and the sizes differ with the compressor; the offset, the magic, the attributes and the timestamp do not.
    assert ours[:8] == theirs[:8]
    assert ours[16 : value_position - 8] == theirs[16 : value_position - 8]
    inside = [decompress(codec, found[value_position:], LIMIT) for found in (ours, theirs)]
    assert inside[0] == inside[1]
    assert read(ours) == expected(magic, range(3))


def test_lz4_of_magic_0_carries_the_header_checksum_of_its_time():
    # xxhash's third byte over magic and descriptor in magic 0, over the descriptor alone since.
    headers = [down_convert(BATCHES[Codec.LZ4], magic)[position:][:7] for magic, position in ((0, 26), (1, 34))]
    assert headers == [bytes.fromhex("04224d187040ec"), bytes.fromhex("04224d187040ad")]


def test_zstd_cannot_be_down_converted():
    with pytest.raises(ApiError) as caught:
        down_convert(BATCHES[Codec.ZSTD], 1)
    assert caught.value.code is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE


@pytest.mark.parametrize("codec", CODECS)
def test_down_conversion_keeps_the_gaps_that_compaction_left(codec: Codec):
    batch = build_batch([NewRecord(5, b"k", b"%d" % i) for i in range(6)], base_offset=100, codec=codec)
    gappy = rebuild_batch(read_header(batch), [r for r in iter_records(memoryview(batch)) if r.offset in (101, 104)])
    converted = down_convert(gappy, 1)
    if codec is Codec.NONE:
        assert [struct.unpack_from(">q", converted, position)[0] for position in (0, len(converted) // 2)] == [101, 104]
    else:
        inside = decompress(codec, converted[34:], LIMIT)
        assert struct.unpack_from(">q", converted) == (104,)
        # Relative to the first one, so a reader finds 101 and 104.
        assert [struct.unpack_from(">q", inside, position)[0] for position in (0, len(inside) // 2)] == [0, 3]


def test_down_conversion_of_magic_0_keeps_absolute_offsets_inside_the_wrapper():
    batch = build_batch([NewRecord(5, None, b"a"), NewRecord(5, None, b"b")], base_offset=9, codec=Codec.GZIP)
    inside = decompress(Codec.GZIP, down_convert(batch, 0)[26:], LIMIT)
    assert [struct.unpack_from(">q", inside, position)[0] for position in (0, len(inside) // 2)] == [9, 10]


@pytest.mark.parametrize("codec", CODECS)
def test_log_append_time_is_marked_in_magic_1_and_unknown_to_magic_0(codec: Codec):
    batch = build_batch([NewRecord(5, None, b"a"), NewRecord(9, None, b"b")], log_append_time=True, codec=codec)
    assert down_convert(batch, 1)[17] == codec | LOG_APPEND_TIME
    assert down_convert(batch, 0)[17] == codec
    assert [record.timestamp for record in read(down_convert(batch, 1))] == [9, 9]


def test_control_batches_and_emptied_batches_leave_no_message():
    marker = build_batch([NewRecord(5, b"\0\0\0\1", b"")], control=True, transactional=True, producer_id=1)
    header = read_header(build_batch([NewRecord(5, None, b"a")], codec=Codec.GZIP))
    assert down_convert(marker + rebuild_batch(header, []), 1) == b""


def test_records_below_the_fetch_offset_are_left_out_of_plain_batches_only():
    records = [NewRecord(5, None, b"%d" % i) for i in range(4)]
    plain, packed = (build_batch(records, base_offset=10, codec=codec) for codec in (Codec.NONE, Codec.GZIP))
    assert [record.value for record in read(down_convert(plain, 1, 12))] == [b"2", b"3"]
    assert [record.value for record in read(down_convert(packed, 1, 12))] == [b"0", b"1", b"2", b"3"]


def test_batch_that_is_cut_short_is_not_converted():
    batch = build_batch([NewRecord(5, None, b"a")])
    assert down_convert(batch + batch[:-1], 1) == down_convert(batch, 1)


def test_last_message_that_is_cut_short_is_dropped():
    whole = message(b"a") + message(b"b", offset=1)
    for cut in range(len(message(b"a")), len(whole)):
        assert [record.value for record in read(whole[:cut])] == [b"a"]


def test_message_inside_a_wrapper_that_is_cut_short_is_dropped():
    assert [record.value for record in read(wrapper(message(b"a") + message(b"b")[:-1]))] == [b"a"]


def test_records_are_numbered_from_zero_whatever_their_offsets():
    assert [record.offset for record in read(message(b"a", offset=7) + message(b"b", offset=7))] == [0, 1]


def test_timestamp_of_a_wrapper_with_log_append_time_is_that_of_the_messages_inside():
    inside = message(b"a", timestamp=1) + message(b"b", timestamp=2, offset=1)
    assert [r.timestamp for r in read(wrapper(inside, offset=1, attributes=LOG_APPEND_TIME))] == [1000, 1000]
    assert [r.timestamp for r in read(wrapper(inside, offset=1))] == [1, 2]


@pytest.mark.parametrize("offset", [0, 1, 50])
def test_wrapper_may_have_offset_0_or_any_from_its_last_message_on(offset: int):
    inside = message(b"a") + message(b"b", offset=1)
    assert len(read(wrapper(inside, offset=offset))) == 2


def test_damaged_message_is_refused():
    good = message(b"value", key=b"key")
    for position in range(16, len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0x20
        assert_refused(bytes(damaged), ErrorCode.CORRUPT_MESSAGE)


@pytest.mark.parametrize(
    ("message_set", "code"),
    [
        pytest.param(b"", ErrorCode.INVALID_RECORD, id="empty"),
        pytest.param(message(b"a")[:-1], ErrorCode.INVALID_RECORD, id="nothing complete"),
        pytest.param(message(b"a") + message(b"b", magic=0), ErrorCode.INVALID_RECORD, id="two magics"),
        pytest.param(message(b"a") + BATCHES[Codec.NONE], ErrorCode.INVALID_RECORD, id="a batch of magic 2"),
        pytest.param(wrapper(message(b"a")) + message(b"b"), ErrorCode.INVALID_RECORD, id="wrapper, then plain"),
        pytest.param(message(b"b") + wrapper(message(b"a")), ErrorCode.INVALID_RECORD, id="plain, then wrapper"),
        pytest.param(wrapper(message(b"a")) * 2, ErrorCode.INVALID_RECORD, id="two wrappers"),
        pytest.param(wrapper(wrapper(message(b"a"))), ErrorCode.INVALID_RECORD, id="wrapper in a wrapper"),
        pytest.param(wrapper(message(b"a", magic=0)), ErrorCode.INVALID_RECORD, id="other magic inside"),
        pytest.param(wrapper(b""), ErrorCode.INVALID_RECORD, id="nothing inside"),
        pytest.param(wrapper(message(b"a", offset=4), offset=3), ErrorCode.INVALID_RECORD, id="offset below its last"),
        pytest.param(wrapper(message(b"a"), Codec.ZSTD), ErrorCode.INVALID_RECORD, id="zstd"),
        pytest.param(message(None, attributes=1), ErrorCode.INVALID_RECORD, id="wrapper without a value"),
        pytest.param(message(b"a", attributes=5), ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, id="unknown codec"),
        pytest.param(message(b"not gzip", attributes=1), ErrorCode.CORRUPT_MESSAGE, id="garbage for gzip"),
        pytest.param(wrapper(b"\0" * 20), ErrorCode.CORRUPT_MESSAGE, id="garbage inside"),
        pytest.param(message(bytes(LIMIT)), ErrorCode.MESSAGE_TOO_LARGE, id="too large"),
    ],
)
def test_message_set_against_the_rules_is_refused(message_set: bytes, code: ErrorCode):
    assert_refused(message_set, code)


@pytest.mark.parametrize("sizes", [(3, 5), (-1, 100), (2**31 - 1, 0), (0, -7), (-1, 2)])
def test_key_and_value_must_fill_their_message_exactly(sizes: tuple[int, int]):
    body = struct.pack(">bbqi", 1, 0, 5, sizes[0]) + b"abc" + struct.pack(">i", sizes[1]) + b"efgh"
    assert_refused(struct.pack(">qiI", 0, len(body) + 4, zlib.crc32(body)) + body, ErrorCode.INVALID_RECORD)


def test_message_of_exactly_the_largest_size_is_read():
    largest = message(b"a" * 100)
    assert len(list(iter_messages(memoryview(largest), len(largest)))) == 1
    with pytest.raises(ApiError) as caught:
        list(iter_messages(memoryview(largest), len(largest) - 1))
    assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE


@pytest.mark.parametrize("found", [message(b"a", magic=0), message(b"a"), BATCHES[Codec.NONE]])
def test_entry_size_is_known_for_every_magic(found: bytes):
    assert entry_size(memoryview(b"12345" + found + b"more"), 5) == len(found)
    assert entry_size(memoryview(found[:-1]), 0) is None
    assert entry_size(memoryview(found[:11]), 0) is None


@pytest.mark.parametrize(("position", "field"), [(8, b"\0\0\0\x0d"), (8, b"\xff\0\0\0"), (16, b"\x03"), (16, b"\xff")])
def test_entry_with_an_impossible_length_or_magic_is_corrupt(position: int, field: bytes):
    damaged = bytearray(message(b"a"))
    damaged[position : position + len(field)] = field
    with pytest.raises(ApiError) as caught:
        entry_size(memoryview(damaged), 0)
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE
