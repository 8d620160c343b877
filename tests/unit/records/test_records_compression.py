import random
import struct
import zlib

import cramjam
import pytest
import zstandard

from kpy.errors import ApiError, ErrorCode
from kpy.records.compression import Codec, codec_of, compress, decompress

COMPRESSING = [codec for codec in Codec if codec is not Codec.NONE]
SIZES = [0, 1, 100, 32 * 1024, 64 * 1024, 64 * 1024 + 1, 300_000]


def text(size: int) -> bytes:
    return (b"the quick brown fox jumps over the lazy dog. " * (size // 45 + 1))[:size]


def noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


def assert_corrupt(codec: Codec, data: bytes, max_bytes: int = 1 << 20) -> None:
    with pytest.raises(ApiError) as caught:
        decompress(codec, data, max_bytes)
    assert caught.value.code is ErrorCode.CORRUPT_MESSAGE


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [text, noise])
def test_what_is_compressed_comes_back(codec: Codec, size: int, make):
    data = make(size)
    assert decompress(codec, compress(codec, memoryview(data)), size) == data


@pytest.mark.parametrize("codec", COMPRESSING)
def test_text_gets_smaller(codec: Codec):
    assert len(compress(codec, text(100_000))) < 10_000


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("make", [text, noise])
def test_output_of_one_byte_above_the_bound_is_refused(codec: Codec, make):
    assert_corrupt(codec, compress(codec, make(100_000)), 99_999)


@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.ZSTD])
def test_a_bomb_is_refused_long_before_it_is_unpacked(codec: Codec):
    bomb = compress(codec, bytes(64 << 20))
    assert len(bomb) < 100_000
    assert_corrupt(codec, bomb, 1 << 20)


@pytest.mark.parametrize(("codec", "levels"), [(Codec.GZIP, (1, 9)), (Codec.LZ4, (1, 12)), (Codec.ZSTD, (1, 19))])
def test_level_is_obeyed(codec: Codec, levels: tuple[int, int]):
    words = random.Random(3).choices([b"alpha", b"beta", b"gamma", b"delta", b"epsilon"], k=40_000)
    data = b" ".join(words)
    low, high = (compress(codec, data, level) for level in levels)
    assert len(high) < len(low)
    assert decompress(codec, high, len(data)) == decompress(codec, low, len(data)) == data


def test_default_level_of_lz4_is_the_fast_algorithm_as_in_kafka():
    assert compress(Codec.LZ4, text(100_000), 9) == compress(Codec.LZ4, text(100_000))


@pytest.mark.parametrize("codec", COMPRESSING)
def test_concatenated_streams_come_out_joined(codec: Codec):
    joined = compress(codec, text(5000)) + compress(codec, noise(70_000))
    assert decompress(codec, joined, 75_000) == text(5000) + noise(70_000)


@pytest.mark.parametrize("codec", COMPRESSING)
def test_bound_holds_for_all_concatenated_streams_together(codec: Codec):
    assert_corrupt(codec, compress(codec, text(5000)) * 3, 14_999)


@pytest.mark.parametrize("codec", COMPRESSING)
@pytest.mark.parametrize("garbage", [b"garbage, and then some more of it", b"\xff" * 40, bytes(40)])
def test_garbage_is_refused(codec: Codec, garbage: bytes):
    assert_corrupt(codec, garbage)


@pytest.mark.parametrize("codec", [Codec.GZIP, Codec.SNAPPY, Codec.LZ4])
def test_data_that_is_cut_short_is_refused(codec: Codec):
    whole = compress(codec, noise(70_000))
    for cut in (20, 100, len(whole) // 2, len(whole) - 1):
        assert_corrupt(codec, whole[:cut])


@pytest.mark.parametrize("codec", COMPRESSING)
def test_a_flipped_bit_gives_other_bytes_or_an_error_but_nothing_else(codec: Codec):
    rng = random.Random(11)
    refused: list[ErrorCode] = []
    whole = compress(codec, text(2000) + noise(500))
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        try:
            size = len(decompress(codec, damaged, 100_000))
        except ApiError as error:
            refused.append(error.code)
        else:
            assert size <= 100_000
    assert set(refused) == {ErrorCode.CORRUPT_MESSAGE}


def test_raw_snappy_without_a_frame_is_read():
    assert decompress(Codec.SNAPPY, bytes(cramjam.snappy.compress_raw(text(5000))), 5000) == text(5000)


def test_snappy_is_framed_as_xerial_frames_it():
    framed = compress(Codec.SNAPPY, text(40_000))
    assert framed[:16] == b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    (first_bytes,) = struct.unpack_from(">i", framed, 16)
    assert len(cramjam.snappy.decompress_raw(framed[20 : 20 + first_bytes])) == 32 * 1024


def test_snappy_block_that_declares_more_than_it_can_hold_is_refused():
    # The varint in front says 1 GiB; a bound above that does not make it believable.
    assert_corrupt(Codec.SNAPPY, b"\x80\x80\x80\x80\x04\x00a", 2 << 30)


@pytest.mark.parametrize("size", [-1, 0, 1000, 2**31 - 1])
def test_xerial_block_of_impossible_size_is_refused(size: int):
    frame = compress(Codec.SNAPPY, text(100))
    assert_corrupt(Codec.SNAPPY, frame[:16] + struct.pack(">i", size) + frame[20:])


@pytest.mark.parametrize("level", [None, 1, 9, 12])
@pytest.mark.parametrize("size", [0, 100, 200_000])
def test_lz4_is_framed_as_kafka_reads_it(size: int, level: int | None):
    # Independent blocks, which Kafka insists on, block checksums, blocks of 64 KiB, and the header's own checksum.
    assert compress(Codec.LZ4, text(size), level)[:7] == bytes.fromhex("04224d187040ad")


def test_lz4_header_with_a_wrong_checksum_is_read():
    frame = bytearray(compress(Codec.LZ4, text(100)))
    frame[6] ^= 0xFF
    assert decompress(Codec.LZ4, frame, 100) == text(100)


@pytest.mark.parametrize("block_code", [4, 5, 6, 7])
@pytest.mark.parametrize("flags", [0x60, 0x64, 0x70, 0x68, 0x7C])
def test_lz4_frames_with_checksums_sizes_and_larger_blocks_are_read(flags: int, block_code: int):
    block = bytes(cramjam.lz4.compress_block(text(60_000), store_size=False))
    frame = struct.pack("<IBB", 0x184D2204, flags, block_code << 4)
    frame += (struct.pack("<Q", 120_000) if flags & 8 else b"") + b"?"
    frame += (struct.pack("<I", len(block)) + block + (b"sum?" if flags & 0x10 else b"")) * 2
    frame += bytes(4) + (b"sum!" if flags & 4 else b"")
    assert decompress(Codec.LZ4, frame, 120_000) == text(60_000) * 2


@pytest.mark.parametrize(
    ("position", "byte"),
    [
        pytest.param(0, 5, id="magic"),
        pytest.param(4, 0x40, id="dependent blocks"),
        pytest.param(4, 0xA0, id="version 2"),
        pytest.param(4, 0x61, id="dictionary"),
        pytest.param(4, 0x62, id="reserved flag"),
        pytest.param(5, 0x30, id="blocks of 16 KiB"),
        pytest.param(5, 0xC0, id="reserved bit of the block size"),
    ],
)
def test_lz4_frame_that_kafka_does_not_read_is_refused(position: int, byte: int):
    frame = bytearray(compress(Codec.LZ4, text(100)))
    frame[position] = byte
    assert_corrupt(Codec.LZ4, frame)


def test_lz4_block_above_the_size_in_the_header_is_refused():
    block = bytes(cramjam.lz4.compress_block(text(70_000), store_size=False))
    assert_corrupt(Codec.LZ4, bytes.fromhex("04224d18604082") + struct.pack("<I", len(block)) + block + bytes(4))


def test_zstd_frame_that_does_not_declare_its_size_is_read():
    compressor = zstandard.ZstdCompressor().compressobj()
    frame = compressor.compress(text(500_000)) + compressor.flush()
    assert zstandard.get_frame_parameters(frame).content_size == zstandard.CONTENTSIZE_UNKNOWN
    assert decompress(Codec.ZSTD, frame, 500_000) == text(500_000)


def test_gzip_of_sixty_four_members_is_read_and_of_one_more_refused():
    member = zlib.compress(b"a", wbits=31)
    assert decompress(Codec.GZIP, member * 64, 1000) == b"a" * 64
    assert_corrupt(Codec.GZIP, member * 65)


def test_attributes_name_the_codec():
    assert [codec_of(0xF8 | codec_id) for codec_id in range(5)] == list(Codec)


@pytest.mark.parametrize("codec_id", [5, 6, 7])
def test_unassigned_codec_is_refused(codec_id: int):
    with pytest.raises(ApiError) as caught:
        codec_of(codec_id)
    assert caught.value.code is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
