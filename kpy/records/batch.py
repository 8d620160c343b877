"""Record batches of magic 2, the format of Kafka's log, its Produce and its Fetch (KIP-98, Kafka's DefaultRecordBatch).

A batch is a header of 61 bytes and its records, compressed together if the batch has a codec:

    base_offset i64 | batch_length i32 (of what follows it) | partition_leader_epoch i32 | magic i8 | crc u32 |
    attributes i16 | last_offset_delta i32 | base_timestamp i64 | max_timestamp i64 | producer_id i64 |
    producer_epoch i16 | base_sequence i32 | records_count i32 | records

The CRC-32C covers everything from the attributes on, so a leader stamps base offset and leader epoch and keeps the CRC.

A record is a zigzag varint of its size, then: attributes i8 (unused), timestamp delta varlong, offset delta varint, key
and value (each a varint size, -1 for null, and bytes), a varint count of headers, and for each of them key and value.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from fastcrc.crc32 import iscsi as crc32c

from kpy.errors import ApiError, ErrorCode
from kpy.native import NATIVE
from kpy.records.compression import CODEC_MASK, Codec, codec_of, compress, decompress

HEADER_SIZE: Final = 61
MAGIC: Final = 2
MAGIC_POSITION: Final = 16
MAX_DECOMPRESSED_BYTES: Final = 128 * 1024 * 1024
"""The most that one batch may decompress to. Kafka has no such bound; its batches are 1 MiB unless configured so."""

NO_TIMESTAMP: Final = -1
NO_PRODUCER_ID: Final = -1

LOG_APPEND_TIME: Final = 0x08
TRANSACTIONAL: Final = 0x10
CONTROL: Final = 0x20
DELETE_HORIZON: Final = 0x40
"""The bits of the attributes beside the codec. With DELETE_HORIZON, base_timestamp says when the tombstones may go."""

LOG_OVERHEAD: Final = 12
"""The bytes of base_offset and batch_length, which batch_length does not count."""
CRC_POSITION: Final = 17
ATTRIBUTES_POSITION: Final = 21

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_CRC: Final = struct.Struct(">I")
_LENGTH_AND_MAGIC: Final = struct.Struct(">i4xb")
MIN_RECORD_BYTES: Final = 7
"""A record with neither key, value nor headers has one byte for each of its fields."""
_ZIGZAG: Final = tuple((byte >> 1) ^ -(byte & 1) for byte in range(0x80))
_INT64_LIMIT: Final = 1 << 63

Headers = tuple[tuple[str, bytes | None], ...]


class BatchHeader(NamedTuple):
    """The 61 bytes in front of a batch's records, in the order of the disk."""

    base_offset: int
    batch_length: int
    partition_leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records_count: int

    @property
    def size_bytes(self) -> int:
        """The whole batch, header included."""
        return LOG_OVERHEAD + self.batch_length

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def codec(self) -> Codec:
        return codec_of(self.attributes)

    @property
    def is_transactional(self) -> bool:
        return self.attributes & TRANSACTIONAL != 0

    @property
    def is_control(self) -> bool:
        return self.attributes & CONTROL != 0

    @property
    def is_log_append_time(self) -> bool:
        return self.attributes & LOG_APPEND_TIME != 0

    @property
    def has_delete_horizon(self) -> bool:
        return self.attributes & DELETE_HORIZON != 0


class Record(NamedTuple):
    """One record with its absolute offset and its timestamp in ms (-1 for none)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class NewRecord(NamedTuple):
    """One record that has no offset yet."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class RecordLike(Protocol):
    """What `build_batch` reads of a record: NewRecord, Record, or anything with these attributes."""

    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


def invalid_record(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_RECORD, message)


def read_header(buf: bytes | bytearray | memoryview, pos: int = 0) -> BatchHeader:
    """The header at `pos`; struct.error if fewer than HEADER_SIZE bytes are there. Nothing is checked."""
    return BatchHeader._make(_HEADER.unpack_from(buf, pos))


def check_crc(batch: memoryview) -> bool:
    """Whether the CRC in the header is that of exactly this one batch's bytes."""
    return _CRC.unpack_from(batch, CRC_POSITION)[0] == crc32c(batch[ATTRIBUTES_POSITION:])


def iter_batches(buf: bytes | bytearray | memoryview) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Each complete batch and its bytes, without a copy; stops at a tail that is cut short.

    Raises CORRUPT_MESSAGE at a length or magic that no batch has. CRCs are not checked.
    """
    view = memoryview(buf)
    pos, end = 0, len(view)
    while end - pos >= CRC_POSITION:
        batch_length, magic = _LENGTH_AND_MAGIC.unpack_from(view, pos + 8)
        if batch_length < HEADER_SIZE - LOG_OVERHEAD or magic != MAGIC:
            raise ApiError(ErrorCode.CORRUPT_MESSAGE, f"No batch begins at {pos}: length {batch_length}, magic {magic}")
        batch_end = pos + LOG_OVERHEAD + batch_length
        if batch_end > end:
            return
        yield read_header(view, pos), view[pos:batch_end]
        pos = batch_end


def iter_records(batch: memoryview, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> Iterator[Record]:
    """The records of one complete batch of magic 2, decompressed up to `max_bytes`.

    Raises CORRUPT_MESSAGE for data that does not decompress, and INVALID_RECORD for malformed records, this as the
    iteration gets there. A batch that compaction has emptied has none.
    """
    header = read_header(batch)
    if header.records_count == 0:
        return iter(())
    data = record_bytes(batch, header, max_bytes)
    if not 0 < header.records_count <= len(data) // MIN_RECORD_BYTES:
        raise invalid_record(f"{len(data)} bytes cannot hold {header.records_count} records")
    return _read_records_natively(data, header) if NATIVE else _read_records(data, header)


def record_bytes(batch: memoryview, header: BatchHeader, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> bytes:
    """The records of a batch as one run of bytes, decompressed. Raises CORRUPT_MESSAGE."""
    body, codec = batch[HEADER_SIZE : header.size_bytes], header.codec
    return bytes(body) if codec is Codec.NONE else decompress(codec, body, max_bytes)


def iter_keys(data: bytes, records_count: int) -> Iterator[tuple[int, int, bytes | None, bool, int, int]]:
    """What compaction must know of the records in `data`, in a third of the time that whole ones take.

    For each: its timestamp and its offset, from those of the batch on; its key; whether it has a value; where in `data`
    it begins and ends. Raises INVALID_RECORD for records that do not fill `data`; values and headers are not looked at.
    """
    zigzag, read_varint = _ZIGZAG, _read_varint
    pos = 0
    try:
        for _ in range(records_count):
            start = pos
            byte, following = data[pos], data[pos + 1]
            if byte < 0x80:
                end = pos = pos + 1
                end += zigzag[byte]
            elif following < 0x80:
                end = pos = pos + 2
                size = byte & 0x7F | following << 7
                end += (size >> 1) ^ -(size & 1)
            else:
                size, pos = read_varint(data, pos, 32)
                end = pos + size
            pos += 1
            byte = data[pos]
            if byte < 0x80:
                timestamp = zigzag[byte]
                pos += 1
            else:
                timestamp, pos = read_varint(data, pos, 64)
            byte, following = data[pos], data[pos + 1]
            if byte < 0x80:
                offset = zigzag[byte]
                pos += 1
            elif following < 0x80:
                size = byte & 0x7F | following << 7
                offset = (size >> 1) ^ -(size & 1)
                pos += 2
            else:
                offset, pos = read_varint(data, pos, 32)
            byte = data[pos]
            size, pos = (zigzag[byte], pos + 1) if byte < 0x80 else read_varint(data, pos, 32)
            key = None if size < 0 else data[pos : pos + size]
            pos += max(size, 0)
            if pos >= end:
                raise invalid_record("A record runs past its end")
            yield timestamp, offset, key, data[pos] != _NULL, start, end
            pos = end
    except IndexError:
        raise invalid_record("A record runs past the end of its batch") from None
    if pos != len(data):
        raise invalid_record(f"{len(data)} bytes do not hold {records_count} records")


def _read_records_natively(data: bytes, header: BatchHeader) -> Iterator[Record]:
    """The same in C, which hands over to `_read_records` at the first record that is not well-formed."""
    timestamp = header.max_timestamp if header.is_log_append_time else None
    count, offset, base_timestamp = header.records_count, header.base_offset, header.base_timestamp
    return NATIVE.Records(data, header, count, offset, base_timestamp, timestamp, Record, _read_records)


def _read_records(data: bytes, header: BatchHeader, pos: int = 0, index: int = 0) -> Iterator[Record]:
    """The records in `data` from the one at `pos` on, which is the `index`th."""
    try:
        yield from _read_records_unchecked(data, header, pos, index)
    except IndexError:
        raise invalid_record("A record runs past the end of its batch") from None


def _read_records_unchecked(data: bytes, header: BatchHeader, pos: int, index: int) -> Iterator[Record]:
    """The same; IndexError if they run past the end of `data`.

    This loop bounds how fast a batch can be examined, so varints of one byte, as nearly all are, are read in place.
    """
    base_offset = header.base_offset
    base_timestamp = header.base_timestamp
    log_append_time = header.max_timestamp if header.is_log_append_time else None
    zigzag = _ZIGZAG
    for _ in range(index, header.records_count):
        byte = data[pos]
        size, pos = (zigzag[byte], pos + 1) if byte < 0x80 else _read_varint(data, pos, 32)
        record_end = pos + size
        pos += 1  # The byte of attributes: no bit of it has ever been given a meaning.
        if (byte := data[pos]) < 0x80:
            timestamp = base_timestamp + zigzag[byte]
            pos += 1
        else:
            delta, pos = _read_varint(data, pos, 64)
            timestamp = base_timestamp + delta
        if (byte := data[pos]) < 0x80:
            offset = base_offset + zigzag[byte]
            pos += 1
        else:
            delta, pos = _read_varint(data, pos, 32)
            offset = base_offset + delta
        if (byte := data[pos]) < 0x80:
            size = zigzag[byte]
            pos += 1
        else:
            size, pos = _read_varint(data, pos, 32)
        key = None if size < 0 else data[pos : pos + size]
        pos += max(size, 0)
        if (byte := data[pos]) < 0x80:
            size = zigzag[byte]
            pos += 1
        else:
            size, pos = _read_varint(data, pos, 32)
        value = None if size < 0 else data[pos : pos + size]
        pos += max(size, 0)
        headers: Headers = ()
        if data[pos]:
            headers, pos = _read_headers(data, pos, record_end)
        else:
            pos += 1
        if pos != record_end:
            raise invalid_record(f"The record at offset delta {offset - base_offset} does not end where its size says")
        if log_append_time is not None:
            timestamp = log_append_time
        elif not -_INT64_LIMIT <= timestamp < _INT64_LIMIT:
            timestamp = _wrap_int64(timestamp)
        yield Record(offset, timestamp, key, value, headers)
    if pos != len(data):
        raise invalid_record(f"{len(data) - pos} bytes remain after the last record")


def _read_varint(data: bytes, pos: int, bits: int) -> tuple[int, int]:
    """A zigzag varint of at most 32 or 64 `bits`, and the position after it."""
    byte = data[pos]
    value = byte & 0x7F
    shift = 0
    while byte > 0x7F:
        pos += 1
        shift += 7
        byte = data[pos]
        value |= (byte & 0x7F) << shift
        if value >> bits or shift >= bits:
            raise invalid_record(f"A varint does not fit in {bits} bits")
    return (value >> 1) ^ -(value & 1), pos + 1


def _wrap_int64(value: int) -> int:
    """What Java's long arithmetic makes of it: with deltas that wrap, any two timestamps fit in one batch."""
    return (value + _INT64_LIMIT) % (2 * _INT64_LIMIT) - _INT64_LIMIT


def _read_headers(data: bytes, pos: int, end: int) -> tuple[Headers, int]:
    count, pos = _read_varint(data, pos, 32)
    # A header takes two bytes at least.
    if not 0 <= count <= (end - pos) // 2:
        raise invalid_record(f"A record cannot have {count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        size, pos = _read_varint(data, pos, 32)
        if size < 0:
            raise invalid_record("A record header has no key")
        # Bytes that are not UTF-8 come through a rebuilt batch unchanged.
        key = data[pos : pos + size].decode("utf-8", "surrogateescape")
        pos += size
        size, pos = _read_varint(data, pos, 32)
        if size < 0:
            headers.append((key, None))
            continue
        headers.append((key, data[pos : pos + size]))
        pos += size
    return tuple(headers), pos


def build_batch(
    records: Iterable[RecordLike],
    *,
    base_offset: int = 0,
    codec: Codec = Codec.NONE,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    partition_leader_epoch: int = -1,
    transactional: bool = False,
    control: bool = False,
    log_append_time: bool = False,
    level: int | None = None,
) -> bytes:
    """A batch of these records, which must be one at least, at consecutive offsets from `base_offset`.

    With `log_append_time`, readers take the largest of the given timestamps for that of every record.
    """
    body = bytearray()
    base_timestamp = max_timestamp = NO_TIMESTAMP
    count = 0
    for record in records:
        timestamp = record.timestamp
        if count == 0:
            base_timestamp = max_timestamp = timestamp
        elif timestamp > max_timestamp:
            max_timestamp = timestamp
        _write_record(body, timestamp - base_timestamp, count, record)
        count += 1
    if count == 0:
        raise ValueError("A batch is built of one record at least")
    payload = compress(codec, body, level)
    header = BatchHeader(
        base_offset=base_offset,
        batch_length=_batch_length(payload),
        partition_leader_epoch=partition_leader_epoch,
        magic=MAGIC,
        crc=0,
        attributes=codec
        | (LOG_APPEND_TIME if log_append_time else 0)
        | (TRANSACTIONAL if transactional else 0)
        | (CONTROL if control else 0),
        last_offset_delta=count - 1,
        base_timestamp=base_timestamp,
        max_timestamp=max_timestamp,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        records_count=count,
    )
    return _seal(header, payload)


def rebuild_batch(header: BatchHeader, records: Iterable[Record], level: int | None = None) -> bytes:
    """A batch with the identity of `header` and these records, if any, at their own offsets, which may have gaps.

    Base and last offset, producer, leader epoch, attributes with the codec, and both timestamps are taken over from
    `header`. So a caller changes the codec, say, or sets a delete horizon as base_timestamp, with `header._replace`.
    """
    body = bytearray()
    count = 0
    for record in records:
        _write_record(body, record.timestamp - header.base_timestamp, record.offset - header.base_offset, record)
        count += 1
    attributes, payload = header.attributes, b""
    if count == 0:
        attributes &= ~CODEC_MASK
    else:
        payload = compress(header.codec, body, level)
    length = _batch_length(payload)
    return _seal(header._replace(batch_length=length, attributes=attributes, records_count=count), payload)


def with_records(header: BatchHeader, records_count: int, body: bytes | bytearray) -> bytes:
    """A batch with the identity of `header` and these records, encoded as they are in a batch with its base values."""
    payload = compress(header.codec, body)
    return _seal(header._replace(batch_length=_batch_length(payload), records_count=records_count), payload)


def replace_header(batch: memoryview, header: BatchHeader, level: int | None = None) -> bytes:
    """The records of `batch`, unread, under another header; if that names another codec, they are recompressed.

    Length and CRC of `header` are ignored and made right. Raises CORRUPT_MESSAGE for records that do not decompress.
    """
    old = read_header(batch)
    payload: bytes | memoryview = batch[HEADER_SIZE : old.size_bytes]
    if header.codec is not old.codec:
        payload = compress(header.codec, decompress(old.codec, payload, MAX_DECOMPRESSED_BYTES), level)
    return _seal(header._replace(batch_length=_batch_length(payload)), payload)


def _batch_length(payload: bytes | memoryview) -> int:
    return HEADER_SIZE - LOG_OVERHEAD + len(payload)


def _seal(header: BatchHeader, payload: bytes | memoryview) -> bytes:
    """Puts the header in front of records that are compressed already, with the CRC they have."""
    packed = _HEADER.pack(*header)
    crc = crc32c(payload, crc32c(packed[ATTRIBUTES_POSITION:]))
    return b"".join((packed[:CRC_POSITION], _CRC.pack(crc), packed[ATTRIBUTES_POSITION:], payload))


def _varint(value: int) -> bytes:
    value = _wrap_int64(value)
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_NULL: Final = 1
"""The varint of -1, the size of a key or value that is null."""
_SHORT_VARINTS: Final = tuple(_varint(value) for value in range(-1, 1024))
"""The varints of -1, which is null, and of common sizes and deltas, at the index one above their value."""


def _write_record(out: bytearray, timestamp_delta: int, offset_delta: int, record: RecordLike) -> None:
    short = _SHORT_VARINTS
    last = len(short) - 2
    key, value, headers = record.key, record.value, record.headers
    parts = [
        b"\x00",
        short[timestamp_delta + 1] if -1 <= timestamp_delta <= last else _varint(timestamp_delta),
        short[offset_delta + 1] if -1 <= offset_delta <= last else _varint(offset_delta),
    ]
    if key is None:
        parts.append(short[0])
    else:
        size = len(key)
        parts += (short[size + 1] if size <= last else _varint(size), key)
    if value is None:
        parts.append(short[0])
    else:
        size = len(value)
        parts += (short[size + 1] if size <= last else _varint(size), value)
    parts.append(_varint(len(headers)) if headers else b"\x00")
    for name, content in headers:
        encoded = name.encode("utf-8", "surrogateescape")
        parts += (_varint(len(encoded)), encoded)
        parts += (short[0],) if content is None else (_varint(len(content)), content)
    body = b"".join(parts)
    size = len(body)
    out += short[size + 1] if size <= last else _varint(size)
    out += body
