"""Message sets of magic 0 and 1: what Kafka's clients before 0.11 write and read in place of record batches.

A message set is a run of messages, each of which is (Kafka's LegacyRecord):

    offset i64 | size i32 (of what follows it) | crc u32 | magic i8 | attributes i8 | timestamp i64 (magic 1) |
    key i32 + bytes | value i32 + bytes

The CRC is zlib's, over everything from the magic on. A compressed set is a single message, the wrapper, whose value is
itself a message set. The wrapper's offset is that of the last message inside, and in magic 1 those inside count theirs
from zero.

The log holds batches of magic 2 only. So Produce 0-2 reads message sets (`iter_messages`, of which validate.py builds
one batch), and Fetch 0-3 writes them (`down_convert`).
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import (
    LOG_APPEND_TIME,
    LOG_OVERHEAD,
    MAGIC,
    MAGIC_POSITION,
    MAX_DECOMPRESSED_BYTES,
    NO_TIMESTAMP,
    BatchHeader,
    Record,
    invalid_record,
    iter_batches,
    iter_records,
)
from kpy.records.compression import Codec, codec_of, compress, decompress

_MIN_ENTRY_LENGTH: Final = 14
"""The smallest size field there can be: a message of magic 0 with neither key nor value."""

_HEAD: Final = struct.Struct(">qiIbb")
_INT32: Final = struct.Struct(">i")
_INT64: Final = struct.Struct(">q")

_LZ4_CHECKSUM_POSITION: Final = 6
_LZ4_MAGIC0_CHECKSUM: Final = 0xEC
"""The header checksum of our lz4 in messages of magic 0, whose clients hash the frame's magic as well (KAFKA-3160)."""


class _Message(NamedTuple):
    """One message as it stands in its set. If `attributes` name a codec, `value` holds further messages."""

    offset: int
    magic: int
    attributes: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def entry_size(buf: memoryview, pos: int) -> int | None:
    """The size in bytes of the batch or message, whichever it is, at `pos`; None if it is cut short.

    Raises CORRUPT_MESSAGE for a size or magic that neither has (Kafka's ByteBufferLogInputStream).
    """
    remaining = len(buf) - pos
    if remaining < LOG_OVERHEAD:
        return None
    length: int = _INT32.unpack_from(buf, pos + 8)[0]
    if length < _MIN_ENTRY_LENGTH:
        raise ApiError(ErrorCode.CORRUPT_MESSAGE, f"A record batch or message cannot have the length {length}")
    if LOG_OVERHEAD + length > remaining:
        return None
    if buf[pos + MAGIC_POSITION] > MAGIC:
        raise ApiError(ErrorCode.CORRUPT_MESSAGE, f"Magic {buf[pos + MAGIC_POSITION]} is unknown")
    return LOG_OVERHEAD + length


def iter_messages(message_set: memoryview, max_message_bytes: int) -> Iterator[Record]:
    """Every record of a set that a client sent, numbered from zero: whatever its offsets are, the log assigns its own.

    The set is one wrapper or any number of plain messages, all of one magic. A last message that is cut short is
    dropped, and a message of magic 0 has no timestamp. As the iteration gets there, raises MESSAGE_TOO_LARGE for a
    message above `max_message_bytes`, CORRUPT_MESSAGE for damaged bytes, INVALID_RECORD for a set that breaks rules.
    """
    first: _Message | None = None
    for index, message in enumerate(_read_messages(message_set, max_message_bytes)):
        if first is None:
            first = message
        elif message.magic != first.magic:
            raise invalid_record(f"Messages of magic {first.magic} and {message.magic} are in one set")
        elif codec_of(first.attributes | message.attributes) is not Codec.NONE:
            raise invalid_record("A compressed message is not the only one of its set")
        if codec_of(message.attributes) is Codec.NONE:
            yield Record(index, message.timestamp, message.key, message.value)
        else:
            yield from _unwrap(message)
    if first is None:
        raise invalid_record("A message set has no complete message")


def _unwrap(wrapper: _Message) -> Iterator[Record]:
    """The records inside a compressed message, numbered from zero."""
    codec = codec_of(wrapper.attributes)
    if codec is Codec.ZSTD or wrapper.value is None:
        raise invalid_record(f"A message of magic {wrapper.magic} with codec {codec.name.lower()} holds no message set")
    message_set = memoryview(decompress(codec, wrapper.value, MAX_DECOMPRESSED_BYTES))
    log_append_time = wrapper.timestamp if wrapper.magic and wrapper.attributes & LOG_APPEND_TIME else None
    message: _Message | None = None
    for index, message in enumerate(_read_messages(message_set, MAX_DECOMPRESSED_BYTES)):
        if message.magic != wrapper.magic:
            raise invalid_record(f"A message of magic {message.magic} is inside one of magic {wrapper.magic}")
        if codec_of(message.attributes) is not Codec.NONE:
            raise invalid_record("A compressed message is inside a compressed message")
        timestamp = message.timestamp if log_append_time is None else log_append_time
        yield Record(index, timestamp, message.key, message.value)
    if message is None:
        raise invalid_record("A compressed message has no message inside")
    # librdkafka used to leave the wrapper's offset 0, which Kafka forgives.
    if wrapper.magic == 1 and 0 != wrapper.offset < message.offset:
        raise invalid_record(f"A compressed message has offset {wrapper.offset}, its last one {message.offset}")


def _read_messages(message_set: memoryview, max_message_bytes: int) -> Iterator[_Message]:
    """The complete messages of a set, their CRCs verified and their values as they are."""
    pos = 0
    while (size_bytes := entry_size(message_set, pos)) is not None:
        if size_bytes > max_message_bytes:
            text = f"A message of {size_bytes} bytes exceeds the maximum of {max_message_bytes}"
            raise ApiError(ErrorCode.MESSAGE_TOO_LARGE, text)
        entry = message_set[pos : pos + size_bytes]
        offset, _, crc, magic, attributes = _HEAD.unpack_from(entry)
        if magic == MAGIC:
            raise invalid_record("A record batch of magic 2 is in a message set")
        if crc != zlib.crc32(entry[MAGIC_POSITION:]):
            raise ApiError(ErrorCode.CORRUPT_MESSAGE, f"The CRC of the message at {pos} is wrong")
        try:
            timestamp, at = (NO_TIMESTAMP, _HEAD.size) if magic == 0 else (_INT64.unpack_from(entry, 18)[0], 26)
            key, at = _read_bytes(entry, at)
            value, at = _read_bytes(entry, at)
        except struct.error:
            raise invalid_record(f"The message at {pos} ends early") from None
        if at != size_bytes:
            raise invalid_record(f"The message at {pos} does not end where its size says")
        yield _Message(offset, magic, attributes, timestamp, key, value)
        pos += size_bytes


def _read_bytes(entry: memoryview, pos: int) -> tuple[bytes | None, int]:
    (size,) = _INT32.unpack_from(entry, pos)
    pos += 4
    return (None, pos) if size < 0 else (bytes(entry[pos : pos + size]), pos + size)


def down_convert(batches: bytes | memoryview, magic: int, first_offset: int = 0) -> bytes:
    """The message set of magic 0 or 1 that stands for these batches of magic 2, but for a last one that is cut short.

    Offsets, and so their gaps, are kept; headers and control batches are dropped; compressed batches stay compressed.
    Of batches without compression, records below `first_offset` are left out: some versions of librdkafka rely on it.
    Raises UNSUPPORTED_COMPRESSION_TYPE for zstd, which clients of these message sets cannot read (KIP-110).
    """
    out = bytearray()
    for header, batch in iter_batches(batches):
        if header.is_control:
            continue
        codec = header.codec
        if codec is Codec.ZSTD:
            text = f"A batch compressed with zstd cannot be converted to messages of magic {magic}"
            raise ApiError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, text)
        records = iter_records(batch)
        if codec is Codec.NONE:
            out += _plain_messages((r for r in records if r.offset >= first_offset), magic, header, 0)
        else:
            out += _wrapper(records, magic, header, codec)
    return bytes(out)


def _plain_messages(records: Iterable[Record], magic: int, header: BatchHeader, base_offset: int) -> bytes:
    attributes = header.attributes & LOG_APPEND_TIME if magic else 0
    return b"".join(
        _write_message(
            _Message(record.offset - base_offset, magic, attributes, record.timestamp, record.key, record.value)
        )
        for record in records
    )


def _wrapper(records: Iterable[Record], magic: int, header: BatchHeader, codec: Codec) -> bytes:
    """One compressed message that holds all the records, or nothing if there are none."""
    inside = list(records)
    if not inside:
        return b""
    base_offset = inside[0].offset if magic else 0
    payload = bytearray(compress(codec, _plain_messages(inside, magic, header, base_offset)))
    if codec is Codec.LZ4 and magic == 0:
        payload[_LZ4_CHECKSUM_POSITION] = _LZ4_MAGIC0_CHECKSUM
    attributes = codec | (header.attributes & LOG_APPEND_TIME if magic else 0)
    timestamp = max(record.timestamp for record in inside)
    return _write_message(_Message(inside[-1].offset, magic, attributes, timestamp, None, bytes(payload)))


def _write_message(message: _Message) -> bytes:
    body = b"".join(
        (
            bytes((message.magic, message.attributes)),
            _INT64.pack(message.timestamp) if message.magic else b"",
            _write_bytes(message.key),
            _write_bytes(message.value),
        )
    )
    return struct.pack(">qiI", message.offset, 4 + len(body), zlib.crc32(body)) + body


def _write_bytes(content: bytes | None) -> bytes:
    return _INT32.pack(-1) if content is None else _INT32.pack(len(content)) + content
