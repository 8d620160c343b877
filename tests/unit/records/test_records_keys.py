"""What compaction reads of records agrees with the records themselves, and what it keeps of them is a batch again."""

import random

import pytest

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import (
    HEADER_SIZE,
    NewRecord,
    check_crc,
    iter_keys,
    iter_records,
    read_header,
    rebuild_batch,
    record_bytes,
    with_records,
)
from kpy.records.batch import build_batch as built
from kpy.records.compression import Codec

SIZES = (None, 0, 1, 61, 63, 64, 65, 127, 128, 8190, 8200, 20_000)


def some_batch(rng: random.Random, codec: Codec = Codec.NONE) -> bytes:
    def some() -> bytes | None:
        size = rng.choice(SIZES)
        return None if size is None else rng.randbytes(size)

    headers = (("h", b"1"), ("none", None))
    records = [
        NewRecord(1_700_000_000_000 + rng.choice((0, 5, 70, -70, 20_000)), some(), some(), rng.choice(((), headers)))
        for _ in range(rng.choice((1, 3, 80, 200)))
    ]
    return built(records, base_offset=1 << 40, codec=codec, producer_id=5, producer_epoch=1, base_sequence=7)


@pytest.mark.parametrize("codec", Codec)
def test_keys_are_those_of_the_records(codec: Codec) -> None:
    rng = random.Random(codec)
    for _ in range(20):
        batch = memoryview(some_batch(rng, codec))
        header = read_header(batch)
        data = record_bytes(batch, header)
        found = list(iter_keys(data, header.records_count))
        expected = list(iter_records(batch))
        assert [
            (header.base_timestamp + timestamp, header.base_offset + offset, key, has_value)
            for timestamp, offset, key, has_value, _, _ in found
        ] == [(each.timestamp, each.offset, each.key, each.value is not None) for each in expected]
        assert b"".join(data[start:end] for *_, start, end in found) == data


@pytest.mark.parametrize("codec", Codec)
def test_records_that_are_kept_as_they_are_make_the_batch_that_rebuilding_makes(codec: Codec) -> None:
    rng = random.Random(codec)
    for _ in range(20):
        batch = memoryview(some_batch(rng, codec))
        header = read_header(batch)
        data = record_bytes(batch, header)
        chosen = [rng.random() < 0.5 for _ in range(header.records_count)]
        spans = [
            data[start:end] for keep, (*_, start, end) in zip(chosen, iter_keys(data, len(chosen)), strict=True) if keep
        ]
        kept = with_records(header, len(spans), b"".join(spans))
        records = [record for keep, record in zip(chosen, iter_records(batch), strict=True) if keep]
        if records:
            assert kept == rebuild_batch(header, records)
            assert check_crc(memoryview(kept))


def test_records_that_do_not_fill_their_batch_are_refused() -> None:
    data = built([NewRecord(0, b"key", b"value"), NewRecord(1, None, None)])[HEADER_SIZE:]
    for count, damaged in ((2, data[:-1]), (2, data + b"\0"), (3, data), (1, data), (2, b"\x0c" + data[1:]), (1, b"")):
        with pytest.raises(ApiError) as error:
            list(iter_keys(damaged, count))
        assert error.value.code is ErrorCode.INVALID_RECORD


def test_every_cut_of_a_record_is_refused() -> None:
    data = built([NewRecord(0, b"k" * 70, b"v" * 9000)])[HEADER_SIZE:]
    for size in (*range(100), len(data) - 1):
        with pytest.raises(ApiError):
            list(iter_keys(data[:size], 1))
