import struct
from collections.abc import Callable
from typing import Any

import pytest

from kpy.errors import WireError
from kpy.wire import primitives as p


def read(reader: Callable[[memoryview, int, int], tuple[Any, int]], data: bytes) -> tuple[Any, int]:
    return reader(memoryview(data), 0, len(data))


def written(writer: Callable[[bytearray, Any], None], value: Any) -> bytes:
    out = bytearray()
    writer(out, value)
    return bytes(out)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (2**31 - 1, "ffffffff07"),
        (2**32 - 1, "ffffffff0f"),
    ],
)
def test_uvarint(value: int, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert p.uvarint(value) == data
    assert read(p.read_uvarint, data) == (value, len(data))


def test_uvarint_of_eleven_bytes_is_refused() -> None:
    with pytest.raises(WireError, match="longer than 5 bytes"):
        read(p.read_uvarint, b"\x80" * 10 + b"\x01")


def test_uvarint_of_six_bytes_is_refused() -> None:
    with pytest.raises(WireError, match="longer than 5 bytes"):
        read(p.read_uvarint, b"\x80" * 5 + b"\x01")


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff"])
def test_truncated_uvarint_is_malformed(data: bytes) -> None:
    with pytest.raises(p.MALFORMED):
        read(p.read_uvarint, data)


STRINGS: list[tuple[Any, Any, Any, str]] = [
    (p.read_string, p.write_string, "", "0000"),
    (p.read_string, p.write_string, "é!", "0003c3a921"),
    (p.read_nullable_string, p.write_nullable_string, None, "ffff"),
    (p.read_nullable_string, p.write_nullable_string, "a", "000161"),
    (p.read_compact_string, p.write_compact_string, "", "01"),
    (p.read_compact_string, p.write_compact_string, "é!", "04c3a921"),
    (p.read_compact_string, p.write_compact_string, "x" * 127, "8001" + "78" * 127),
    (p.read_compact_nullable_string, p.write_compact_nullable_string, None, "00"),
    (p.read_compact_nullable_string, p.write_compact_nullable_string, "a", "0261"),
    (p.read_bytes, p.write_bytes, b"\x00\xff", "0000000200ff"),
    (p.read_nullable_bytes, p.write_nullable_bytes, None, "ffffffff"),
    (p.read_nullable_bytes, p.write_nullable_bytes, b"a", "0000000161"),
    (p.read_compact_bytes, p.write_compact_bytes, b"", "01"),
    (p.read_compact_bytes, p.write_compact_bytes, b"\x00\xff", "0300ff"),
    (p.read_compact_nullable_bytes, p.write_compact_nullable_bytes, None, "00"),
    (p.read_compact_nullable_bytes, p.write_compact_nullable_bytes, b"a", "0261"),
]


@pytest.mark.parametrize(("reader", "writer", "value", "encoded"), STRINGS)
def test_strings_and_bytes(reader: Any, writer: Any, value: Any, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert written(writer, value) == data
    assert read(reader, data) == (value, len(data))


@pytest.mark.parametrize(
    ("reader", "encoded", "reason"),
    [
        (p.read_string, "ffff", "null"),
        (p.read_string, "fffe", "negative length -2"),
        (p.read_nullable_string, "fffe", "negative length -2"),
        (p.read_string, "000561", "length 5, but only 1 bytes remain"),
        (p.read_compact_string, "00", "null"),
        (p.read_compact_string, "0661", "length 5, but only 1 bytes remain"),
        (p.read_compact_string, "8180020161", "a string of 32768 bytes, but the most is 32767"),
        (p.read_compact_nullable_string, "0661", "length 5, but only 1 bytes remain"),
        (p.read_bytes, "ffffffff", "null"),
        (p.read_bytes, "fffffffe", "negative length -2"),
        (p.read_nullable_bytes, "80000000", "negative length -2147483648"),
        (p.read_bytes, "7fffffff61", "length 2147483647, but only 1 bytes remain"),
        (p.read_compact_bytes, "00", "null"),
        (p.read_compact_bytes, "ffffffff0f61", "length 4294967294, but only 1 bytes remain"),
        (p.read_compact_nullable_bytes, "0661", "length 5, but only 1 bytes remain"),
    ],
)
def test_bad_lengths_are_refused(reader: Any, encoded: str, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        read(reader, bytes.fromhex(encoded))


def test_a_length_is_held_against_the_end_of_the_message_not_of_the_buffer() -> None:
    data = memoryview(b"\x04abcdef")
    with pytest.raises(WireError, match="length 3, but only 2 bytes remain"):
        p.read_compact_string(data, 0, 3)


@pytest.mark.parametrize("data", [b"\x03\xc3\x28", b"\x02\xff", b"\x04\xed\xa0\x80"])
def test_broken_utf_8_is_malformed(data: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        read(p.read_compact_string, data)


@pytest.mark.parametrize("writer", [p.write_string, p.write_compact_string])
def test_a_string_longer_than_its_limit_is_not_written(writer: Any) -> None:
    assert len(written(writer, "x" * p.MAX_STRING_BYTES)) > p.MAX_STRING_BYTES
    with pytest.raises(WireError, match="32768 bytes"):
        written(writer, "x" * (p.MAX_STRING_BYTES + 1))


def test_numbers_and_ids() -> None:
    numbers = memoryview(struct.pack(">3i", 1, -2, 3))
    assert p.read_numbers(numbers, 0, 12, 3, "i") == ([1, -2, 3], 12)
    assert p.read_uuids(memoryview(bytes(16) + b"\x01" * 16), 0, 32, 2) == ([bytes(16), b"\x01" * 16], 32)
    assert p.read_many(memoryview(b"\x02a\x02b"), 0, 4, 2, p.read_compact_string) == (["a", "b"], 4)


@pytest.mark.parametrize("count", [-1, -2, 4, 2**31 - 1])
def test_array_counts_are_held_against_what_remains(count: int) -> None:
    data = memoryview(bytes(48))
    with pytest.raises(WireError, match=r"null|negative count|elements, but only 12 bytes remain"):
        p.read_numbers(data, 0, 12, count, "i")
    with pytest.raises(WireError, match=r"null|negative count|elements, but only 48 bytes remain"):
        p.read_uuids(data, 0, 48, count)
    with pytest.raises(WireError, match=r"null|negative count|elements, but only 3 bytes remain"):
        p.read_many(data, 0, 3, count, p.read_compact_string)


TAGS = "0001ff" + "0302abcd" + "8001 01ee"


def test_tagged_section() -> None:
    data = memoryview(bytes.fromhex(TAGS))
    assert p.read_tags(data, 0, len(data), 3) == ([(0, 2, 3), (3, 5, 7), (128, 10, 11)], 11)
    assert p.skip_tags(data, 0, len(data), 3) == 11
    assert written(p.write_tags, {0: b"\xff", 3: b"\xab\xcd", 128: b"\xee"}).hex() == "03" + TAGS.replace(" ", "")


@pytest.mark.parametrize(
    ("encoded", "count", "reason"),
    [
        ("0001ff0001ff", 2, "tag 0 behind tag 0"),
        ("0501ff0401ff", 2, "tag 4 behind tag 5"),
        ("0005ff", 1, "tag 0 has 5 bytes, but only 1 remain"),
        ("0001ff", 2, "2 elements, but only 3 bytes remain"),
    ],
)
def test_bad_tagged_sections_are_refused(encoded: str, count: int, reason: str) -> None:
    data = memoryview(bytes.fromhex(encoded))
    with pytest.raises(WireError, match=reason):
        p.read_tags(data, 0, len(data), count)


def test_a_huge_number_of_tags_is_refused() -> None:
    data = memoryview(b"\xff\xff\xff\x7f")
    with pytest.raises(WireError, match="268435455 elements, but only 0 bytes remain"):
        p.read_tags(data, 1, len(data), data[0])
