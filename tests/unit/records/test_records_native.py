"""The accelerator's record reader: the records that Python reads, and the same errors at the same record."""

import random
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kpy.errors import ApiError
from kpy.records import batch as batches
from kpy.records.batch import HEADER_SIZE, BatchHeader, NewRecord, Record, build_batch, iter_records, read_header
from tests.unit.memory_growth import grown_bytes

DAMAGED = 30_000
SEED = 20_261_126
EDGES = [0, 1, 0x7F, 0x80, 0xFF]

Reader = Callable[[bytes, BatchHeader], Iterator[Record]]


@pytest.fixture
def natively(accelerator: Any, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr(batches, "NATIVE", accelerator)
    return batches._read_records_natively


def records(count: int) -> list[NewRecord]:
    return [
        NewRecord(
            1000 - 3 * i,
            None if i % 3 == 0 else b"key-%d" % i,
            None if i % 5 == 0 else b"v" * (i * 7),
            (("h", None), ("ü", b"x"), ("\udcff", b"")) if i % 4 == 0 else (),
        )
        for i in range(count)
    ]


def outcome(read: Reader, data: bytes, header: BatchHeader) -> list[Any]:
    """The records, and behind them the error that ended them."""
    found: list[Any] = []
    try:
        found.extend(read(data, header))
    except ApiError as error:
        found.append((type(error), str(error)))
    return found


@pytest.mark.parametrize("log_append_time", [False, True])
def test_records_are_those_that_python_reads(natively: Reader, log_append_time: bool) -> None:
    batch = memoryview(build_batch(records(200), base_offset=7, log_append_time=log_append_time))
    header, data = read_header(batch), bytes(batch[HEADER_SIZE:])
    found = list(natively(data, header))
    assert found == list(batches._read_records(data, header))
    assert {type(each) for each in found} == {Record}
    assert [hash(each) for each in found] == [hash(Record(*each)) for each in found]
    assert list(iter_records(batch)) == found


def test_damaged_records_have_the_same_outcome_as_in_python(natively: Reader) -> None:
    rng = random.Random(SEED)
    batch = memoryview(build_batch(records(12)))
    whole, plain = bytes(batch[HEADER_SIZE:]), read_header(batch)
    is_error: set[bool] = set()
    for number in range(DAMAGED):
        data = bytearray(whole[: rng.randrange(1, 400)])
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.choice([*EDGES, rng.randrange(256)])
        header = plain._replace(
            records_count=rng.randrange(8),
            base_offset=rng.choice([0, 2**63 - 3]),
            base_timestamp=rng.choice([0, 2**63 - 1]),
            attributes=rng.choice([0, batches.LOG_APPEND_TIME]),
        )
        wanted = outcome(batches._read_records, bytes(data), header)
        assert outcome(natively, bytes(data), header) == wanted, f"seed {SEED}, number {number}: {data.hex()}, {header}"
        is_error.add(bool(wanted) and not isinstance(wanted[-1], Record))
    assert is_error == {True, False}


@pytest.mark.parametrize("size_bits", [31, 32, 33, 63, 64, 65])
def test_varints_at_their_limits_are_read_or_refused_as_in_python(natively: Reader, size_bits: int) -> None:
    number = (1 << size_bits) - 1
    varint = bytearray()
    while number > 0x7F:
        varint.append(number & 0x7F | 0x80)
        number >>= 7
    varint.append(number)
    header = read_header(memoryview(build_batch([NewRecord(0, None, None)])))
    for before in (b"", b"\0", b"\0\0", b"\0\0\0", b"\0\0\0\1"):
        body = before + varint + bytes(8)
        data = bytes([2 * len(body)]) + body
        for each in (data, bytes(varint) + body):
            assert outcome(natively, each, header) == outcome(batches._read_records, each, header)


def test_records_come_one_at_a_time_so_that_memory_is_bounded(natively: Reader) -> None:
    count = 200_000
    batch = memoryview(build_batch([NewRecord(0, None, None)] * count))
    header, data = read_header(batch), bytes(batch[HEADER_SIZE:])
    tracemalloc.start()
    assert sum(1 for _ in natively(data, header)) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000


def test_no_memory_is_lost(natively: Reader) -> None:
    batch = memoryview(build_batch(records(40)))
    header, data = read_header(batch), bytes(batch[HEADER_SIZE:])

    def work() -> None:
        for end in range(0, len(data), 5):
            outcome(natively, data[:end], header)
        next(natively(data, header))

    assert grown_bytes(work) < 5000


@pytest.mark.parametrize("record", [list, int, object])
def test_records_of_another_type_are_refused(accelerator: Any, record: type) -> None:
    with pytest.raises(TypeError):
        accelerator.Records(b"", None, 0, 0, 0, None, record, None)
