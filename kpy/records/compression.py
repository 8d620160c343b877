"""The codecs of record batches: gzip, snappy, lz4 and zstd, written as Kafka's Java client writes them.

What a client compressed is hostile: a few bytes may claim, or really hold, gigabytes. So every decompression bounds
its output, checked while the output grows, and a size that the data declares is never allocated on trust.

Two of the formats are dialects, and are framed here rather than by a library:

- snappy travels in the frames of the Java library xerial: a magic, two versions, then length-prefixed raw blocks. Some
  clients send one raw block without a frame; Kafka's readers accept it, so it is accepted here.
- lz4 travels in standard frames, but Kafka refuses blocks that refer to earlier blocks, and libraries write those by
  default. The checksums inside a frame are not verified: the CRC of the batch covers the same bytes, and messages of
  magic 0 carry a header checksum that is known to be wrong (KAFKA-3160).

zstandard and cramjam are imported by the first batch that needs them: zstandard alone costs 15 ms of start-up.
"""

import struct
import zlib
from enum import IntEnum
from typing import Final

from kpy.errors import ApiError, ErrorCode


class Codec(IntEnum):
    """The low three bits of a batch's attributes (Kafka's CompressionType)."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


CODEC_MASK: Final = 0x07
"""The bits that hold the codec in the attributes of a batch, and in those of a legacy message."""

_CODECS: Final = tuple(Codec)

_MAX_GZIP_MEMBERS: Final = 64
"""zlib copies the rest of its input at the end of each member, so many tiny members would take quadratic time."""

_CHUNK_BYTES: Final = 256 * 1024
"""How much zstd output is taken at a time, hence how far it may run past its bound before that is seen."""

_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK_BYTES: Final = 32 * 1024
_SNAPPY_MAX_RATIO: Final = 22
"""A three-byte snappy element copies at most 64 bytes, so a block that declares more than this ratio lies."""

_LZ4_MAGIC: Final = 0x184D2204
_LZ4_DEFAULT_LEVEL: Final = 9
_LZ4_STORED: Final = 0x80000000
_LZ4_MAX_RATIO: Final = 255

_INT32: Final = struct.Struct(">i")
_UINT32_LE: Final = struct.Struct("<I")


def codec_of(attributes: int) -> Codec:
    """The codec that the attributes name; UNSUPPORTED_COMPRESSION_TYPE for the three ids that are not assigned."""
    codec_id = attributes & CODEC_MASK
    if codec_id >= len(_CODECS):
        raise ApiError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"Compression type {codec_id} is unknown")
    return _CODECS[codec_id]


def compress(codec: Codec, data: bytes | bytearray | memoryview, level: int | None = None) -> bytes:
    """Compresses at the codec's own default level unless `level` says otherwise; snappy has no levels."""
    match codec:
        case Codec.NONE:
            return bytes(data)
        case Codec.GZIP:
            return zlib.compress(data, zlib.Z_DEFAULT_COMPRESSION if level is None else level, wbits=31)
        case Codec.SNAPPY:
            return _compress_xerial(data)
        case Codec.LZ4:
            return _compress_lz4(data, level)
        case Codec.ZSTD:
            import zstandard

            return zstandard.ZstdCompressor(level=3 if level is None else level).compress(data)


def decompress(codec: Codec, data: bytes | bytearray | memoryview, max_bytes: int) -> bytes:
    """The decompressed bytes; CORRUPT_MESSAGE for garbage and for output above `max_bytes`.

    Concatenated gzip members, zstd frames, lz4 frames and xerial streams come out joined. zstd data that is cut short
    comes out short, since its reader does not tell; the count of records in the batch's header exposes it.
    """
    match codec:
        case Codec.NONE:
            if len(data) > max_bytes:
                raise _too_large(codec, max_bytes)
            return bytes(data)
        case Codec.GZIP:
            return _decompress_gzip(data, max_bytes)
        case Codec.SNAPPY:
            return _decompress_snappy(memoryview(data), max_bytes)
        case Codec.LZ4:
            return _decompress_lz4(memoryview(data), max_bytes)
        case Codec.ZSTD:
            return _decompress_zstd(data, max_bytes)


def _too_large(codec: Codec, max_bytes: int) -> ApiError:
    return ApiError(ErrorCode.CORRUPT_MESSAGE, f"{codec.name.lower()} data decompresses to more than {max_bytes} bytes")


def _corrupt(codec: Codec, reason: object) -> ApiError:
    return ApiError(ErrorCode.CORRUPT_MESSAGE, f"{codec.name.lower()} data cannot be decompressed: {reason}")


def _decompress_gzip(data: bytes | bytearray | memoryview, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for _ in range(_MAX_GZIP_MEMBERS):
        member = zlib.decompressobj(wbits=31)
        try:
            # One byte more than the bound is asked for: what gives it is too large, what ends without it fits.
            part = member.decompress(data, max_bytes - size + 1)
        except zlib.error as error:
            raise _corrupt(Codec.GZIP, error) from None
        size += len(part)
        if size > max_bytes:
            raise _too_large(Codec.GZIP, max_bytes)
        if not member.eof:
            raise _corrupt(Codec.GZIP, "it ends early")
        parts.append(part)
        data = member.unused_data
        if not data:
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise _corrupt(Codec.GZIP, f"it has more than {_MAX_GZIP_MEMBERS} members")


def _decompress_zstd(data: bytes | bytearray | memoryview, max_bytes: int) -> bytes:
    import zstandard

    parts: list[bytes] = []
    size = 0
    # A decompressor is not shared between threads, and making one costs 2 us.
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    try:
        while part := reader.read(_CHUNK_BYTES):
            size += len(part)
            if size > max_bytes:
                raise _too_large(Codec.ZSTD, max_bytes)
            parts.append(part)
    except zstandard.ZstdError as error:
        raise _corrupt(Codec.ZSTD, error) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _compress_xerial(data: bytes | bytearray | memoryview) -> bytes:
    import cramjam

    view = memoryview(data)
    out = bytearray(_XERIAL_HEADER)
    for start in range(0, len(view), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(view[start : start + _XERIAL_BLOCK_BYTES]))
        out += _INT32.pack(len(block))
        out += block
    return bytes(out)


def _decompress_snappy(data: memoryview, max_bytes: int) -> bytes:
    if bytes(data[: len(_XERIAL_MAGIC)]) != _XERIAL_MAGIC:
        return _decompress_snappy_block(data, max_bytes)
    out = bytearray()
    pos, end = 0, len(data)
    while pos < end:
        if bytes(data[pos : pos + len(_XERIAL_MAGIC)]) == _XERIAL_MAGIC:
            pos += len(_XERIAL_HEADER)
            continue
        if pos + 4 > end:
            raise _corrupt(Codec.SNAPPY, "it ends early")
        block_bytes: int = _INT32.unpack_from(data, pos)[0]
        pos += 4
        if not 0 < block_bytes <= end - pos:
            raise _corrupt(Codec.SNAPPY, f"a block claims {block_bytes} bytes where {end - pos} remain")
        out += _decompress_snappy_block(data[pos : pos + block_bytes], max_bytes - len(out))
        pos += block_bytes
    return bytes(out)


def _decompress_snappy_block(block: memoryview, max_bytes: int) -> bytes:
    import cramjam

    try:
        declared_bytes = cramjam.snappy.decompress_raw_len(block)
        if declared_bytes > _SNAPPY_MAX_RATIO * len(block):
            raise _corrupt(Codec.SNAPPY, f"{len(block)} bytes cannot hold the declared {declared_bytes}")
        if declared_bytes > max_bytes:
            raise _too_large(Codec.SNAPPY, max_bytes)
        return bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise _corrupt(Codec.SNAPPY, error) from None


def _compress_lz4(data: bytes | bytearray | memoryview, level: int | None) -> bytes:
    import cramjam

    # Kafka's default of 9 does not mean level 9 but the fast algorithm, which the library calls 0.
    library_level = 0 if level is None or level == _LZ4_DEFAULT_LEVEL else level
    # Independent blocks of 64 KiB, each with a checksum. Kafka writes none, but reads and verifies those it finds.
    compressor = cramjam.lz4.Compressor(level=library_level, content_checksum=False, block_linked=False)
    compressor.compress(bytes(data))
    return bytes(compressor.finish())


def _decompress_lz4(data: memoryview, max_bytes: int) -> bytes:
    out = bytearray()
    pos = 0
    try:
        while pos < len(data):
            pos = _decompress_lz4_frame(data, pos, out, max_bytes)
    except struct.error:
        raise _corrupt(Codec.LZ4, "it ends early") from None
    return bytes(out)


def _decompress_lz4_frame(data: memoryview, pos: int, out: bytearray, max_bytes: int) -> int:
    """Appends one frame's content to `out` and returns the position after it; struct.error if it is cut short."""
    import cramjam

    flags, max_block_bytes, pos = _read_lz4_header(data, pos)
    block_checksum_bytes = 4 if flags & 0x10 else 0
    scratch = memoryview(b"")
    while True:
        (word,) = _UINT32_LE.unpack_from(data, pos)
        pos += 4
        if word == 0:
            # The content checksum, where there is one, follows the end mark.
            return pos + 4 if flags & 0x04 else pos
        block_bytes = word & ~_LZ4_STORED
        if block_bytes > max_block_bytes or block_bytes > len(data) - pos:
            raise _corrupt(Codec.LZ4, f"a block claims {block_bytes} bytes where {len(data) - pos} remain")
        block = data[pos : pos + block_bytes]
        if word & _LZ4_STORED:
            out += block
        else:
            needed_bytes = min(max_block_bytes, _LZ4_MAX_RATIO * block_bytes)
            if len(scratch) < needed_bytes:
                scratch = memoryview(bytearray(needed_bytes))
            try:
                out += scratch[: cramjam.lz4.decompress_block_into(block, scratch)]
            except cramjam.DecompressionError as error:
                raise _corrupt(Codec.LZ4, error) from None
        if len(out) > max_bytes:
            raise _too_large(Codec.LZ4, max_bytes)
        pos += block_bytes + block_checksum_bytes


def _read_lz4_header(data: memoryview, pos: int) -> tuple[int, int, int]:
    """A frame's flags, its largest block in bytes, and the position of its first block."""
    magic, flags, block_code = struct.unpack_from("<IBB", data, pos)
    if magic != _LZ4_MAGIC:
        raise _corrupt(Codec.LZ4, "it does not begin with a frame")
    # Version 01, independent blocks, no reserved bit, no dictionary.
    if flags & 0xE3 != 0x60:
        raise _corrupt(Codec.LZ4, f"frame flags 0x{flags:02x} are not supported")
    if block_code not in (0x40, 0x50, 0x60, 0x70):
        raise _corrupt(Codec.LZ4, f"block size code 0x{block_code:02x} is not supported")
    content_size_bytes = 8 if flags & 0x08 else 0
    return flags, 1 << (2 * (block_code >> 4) + 8), pos + 6 + content_size_bytes + 1
