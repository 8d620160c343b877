"""The map of compaction and what stays by it, in Python and in C: the same for sound batches and for damaged ones."""

import random
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import HEADER_SIZE, NewRecord, build_batch
from kpy.storage import offset_map
from kpy.storage.offset_map import HASH_SIZE, NOTHING, OffsetMap, Staying
from tests.unit.memory_growth import grown_bytes

SEED = 20_261_127
DAMAGED = 20_000
EDGES = [0, 1, 0x7F, 0x80, 0xFF]
LAST = 2**63 - 1
ROUNDS = 100
BUFFER_BYTES = 1 << 20
TABLE_KEY = bytes(range(16))


@pytest.fixture(params=["Python", "C"])
def new_map(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], OffsetMap]:
    """Makes maps of one kind."""
    monkeypatch.setattr(offset_map, "NATIVE", request.getfixturevalue("accelerator") if request.param == "C" else None)
    return lambda: OffsetMap(BUFFER_BYTES)


def encoded(*records: tuple[bytes | None, bytes | None], timestamps: tuple[int, ...] = ()) -> bytes:
    """Records of these keys and values as they are in a batch, at offset deltas from 0 on."""
    times = timestamps or (1000,) * len(records)
    return build_batch([NewRecord(time, *record) for time, record in zip(times, records, strict=True)])[HEADER_SIZE:]


def staying(
    offsets: OffsetMap, data: bytes, count: int, base: int = 0, latest: int = LAST, without_tombstones: bool = False
) -> Staying:
    return offsets.staying(data, count, base, latest, without_tombstones)


def test_only_the_last_record_of_each_key_stays(new_map: Callable[[], OffsetMap]) -> None:
    offsets = new_map()
    first = encoded((b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"c", b"1"))
    second = encoded((b"b", b"2"))
    offsets.put(first, 4, 10, 0)
    offsets.put(second, 1, 14, 0)
    assert len(offsets) == 3
    half = len(first) // 2
    assert staying(offsets, first, 4, 10) == Staying(2, 0, True, first[half:])
    assert staying(offsets, second, 1, 14) == Staying(1, 0, True, second)


def test_all_stay_as_they_are_where_nothing_is_superseded(new_map: Callable[[], OffsetMap]) -> None:
    data = encoded((b"a", b"1"), (b"b", None), (b"", b"2"))
    offsets = new_map()
    assert staying(offsets, data, 3) == Staying(3, 0, False, data)
    offsets.put(data, 3, 0, 0)
    assert staying(offsets, data, 3) == Staying(3, 0, False, data)
    assert staying(offsets, b"", 0) == NOTHING


def test_records_without_key_go_and_take_no_place_in_the_map(new_map: Callable[[], OffsetMap]) -> None:
    data = encoded((None, b"1"), (None, None))
    offsets = new_map()
    offsets.put(data, 2, 0, 0)
    assert len(offsets) == 0
    assert staying(offsets, data, 2) == NOTHING


def test_what_lies_behind_the_latest_offset_is_not_judged(new_map: Callable[[], OffsetMap]) -> None:
    data = encoded((None, b"1"), (b"a", b"1"), (None, b"2"), (b"a", b"2"))
    offsets = new_map()
    offsets.put(data, 4, 5, 0)
    assert [staying(offsets, data, 4, 5, latest).records_count for latest in (-1, 4, 5, 6, 7, 8)] == [4, 4, 3, 2, 1, 1]


def test_keys_count_from_the_first_dirty_offset_on(new_map: Callable[[], OffsetMap]) -> None:
    data = encoded(*[(b"%d" % number, b"") for number in range(10)])
    for first_offset, entries in ((0, 10), (20, 10), (21, 9), (29, 1), (30, 0), (LAST, 0)):
        offsets = new_map()
        offsets.put(data, 10, 20, first_offset)
        assert len(offsets) == entries


def test_tombstones_stay_until_they_are_not_wanted(new_map: Callable[[], OffsetMap]) -> None:
    data = encoded((b"a", b"1"), (b"b", None), (b"c", b""), timestamps=(0, 7, 5))
    offsets = new_map()
    assert staying(offsets, data, 3)[:3] == (3, 7, False)
    assert staying(offsets, data, 3, without_tombstones=True)[:3] == (2, 5, True)
    assert staying(offsets, data, 3, latest=-1, without_tombstones=True)[:3] == (3, 7, False)


def test_newest_timestamp_is_that_of_what_stays_even_below_the_batch(new_map: Callable[[], OffsetMap]) -> None:
    data = encoded((b"a", b"1"), (b"b", b"1"), (b"c", b"1"), timestamps=(1000, 400, 700))
    offsets = new_map()
    offsets.put(encoded((b"a", b"2")), 1, 100, 0)
    assert staying(offsets, data, 3)[:2] == (2, -300)


@pytest.mark.parametrize("size", [HASH_SIZE - 1, HASH_SIZE, HASH_SIZE + 1, 5000])
def test_keys_of_any_size_are_told_apart(new_map: Callable[[], OffsetMap], size: int) -> None:
    key, other = bytes(size), bytes(size - 1) + b"\1"
    data = encoded((key, b"1"), (other, b"1"), (key, b"2"))
    offsets = new_map()
    offsets.put(data, 3, 0, 0)
    assert len(offsets) == 2
    assert staying(offsets, data, 3).records_count == 2


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"\0" + data[1:]])
def test_damaged_records_are_refused(new_map: Callable[[], OffsetMap], damage: Callable[[bytes], bytes]) -> None:
    data = damage(encoded((b"a", b"1"), (b"b" * 200, b"2" * 300)))
    offsets = new_map()
    for look in (lambda: offsets.put(data, 2, 0, 0), lambda: staying(offsets, data, 2)):
        with pytest.raises(ApiError) as error:
            look()
        assert error.value.code is ErrorCode.INVALID_RECORD


def some_records(rng: random.Random, *counts: int) -> bytes:
    keys = [None, b"", b"a", b"b", b"c" * (HASH_SIZE - 1), b"d" * HASH_SIZE, b"e" * 70, b"f" * 9000]
    values = [None, None, b"", b"v" * 63, b"w" * 8200]
    records = [(rng.choice(keys[: rng.choice((3, 8))]), rng.choice(values)) for _ in range(rng.choice(counts))]
    times = tuple(1000 + rng.choice((0, 5, 70, -70, 20_000, -(2**62))) for _ in records)
    return encoded(*records, timestamps=times)


def outcome(native: Any, monkeypatch: pytest.MonkeyPatch, data: bytes, count: int, numbers: tuple[int, ...]) -> Any:
    """How many keys the map holds and what stays, or what is refused."""
    base_offset, first_offset, latest_offset, without_tombstones = numbers
    monkeypatch.setattr(offset_map, "NATIVE", native)
    offsets = OffsetMap(BUFFER_BYTES)
    found: list[Any] = []
    try:
        found.append(offsets.put(data, count, base_offset, first_offset))
        found.append(len(offsets))
        found.append(offsets.staying(data, count, base_offset, latest_offset, bool(without_tombstones)))
    except ApiError as error:
        found.append(str(error))
    return found


def test_damaged_records_have_the_same_outcome_in_c_and_in_python(
    accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(SEED)
    kinds: set[type] = set()
    for number in range(DAMAGED):
        if number % 100 == 0:
            whole = some_records(rng, 1, 3, 12)
        data = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole) + 1), rng.randrange(1, 40)))])
        for _ in range(rng.randrange(3) if data else 0):
            data[rng.randrange(min(len(data), 400))] = rng.choice([*EDGES, rng.randrange(256)])
        numbers = (
            rng.choice((0, 1 << 40, LAST - 3)),
            rng.choice((0, 2, 1 << 40, (1 << 40) + 9, LAST)),
            rng.choice((-1, 2, (1 << 40) + 40, LAST)),
            rng.randrange(2),
        )
        count = rng.choice((rng.randrange(4), 12))
        wanted = outcome(None, monkeypatch, bytes(data), count, numbers)
        found = outcome(accelerator, monkeypatch, bytes(data), count, numbers)
        assert found == wanted, f"seed {SEED}, number {number}: {data.hex()}, {count}, {numbers}"
        kinds.add(type(wanted[-1]))
    assert kinds == {Staying, str}


def test_sound_records_have_the_same_outcome_in_c_and_in_python(
    accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(SEED)
    for _ in range(100):
        count = rng.choice((1, 3, 80, 200))
        data = some_records(rng, count)
        for numbers in ((0, 0, LAST, 0), (5, 40, 60, 1), (1 << 40, 0, (1 << 40) + 100, 1)):
            wanted = outcome(None, monkeypatch, data, count, numbers)
            assert isinstance(wanted[-1], Staying)
            assert outcome(accelerator, monkeypatch, data, count, numbers) == wanted


def test_a_full_map_says_where_it_ends_and_keeps_what_it_has(new_map: Callable[[], OffsetMap]) -> None:
    offsets = new_map()
    room = offsets.max_entries
    keys = [b"%d" % number for number in range(room)]
    for start in range(0, room, 1000):
        data = encoded(*[(key, b"") for key in keys[start : start + 1000]])
        assert offsets.put(data, len(keys[start : start + 1000]), start, 0) is None
    assert len(offsets) == room
    known, unknown = (keys[7], b""), (b"one more", b"")
    assert offsets.put(encoded(known, (None, b""), known), 3, room, 0) is None, "what it knows needs no room"
    assert offsets.put(encoded(known, unknown, known), 3, room + 3, 0) == room + 4
    assert offsets.put(encoded(unknown, known), 2, room + 3, room + 4) is None, "only what counts needs room"
    assert len(offsets) == room
    for start in range(0, room, 1000):
        data = encoded(*[(key, b"") for key in keys[start : start + 1000]])
        count = len(keys[start : start + 1000])
        assert staying(offsets, data, count, start).records_count == count - (start == 0)


@pytest.mark.parametrize("buffer_bytes", [-1, 0, 1, 100, 10_000, 98_303, 98_304, 150_000, 1 << 20])
def test_each_buffer_has_room_for_a_key_and_is_never_exceeded(
    new_map: Callable[[], OffsetMap], buffer_bytes: int
) -> None:
    del new_map  # It has settled of which kind maps are.
    batches = [
        encoded(*[(b"a key that is longer than its hash %d" % n, None) for n in range(k, k + 100)])
        for k in range(0, 50_000, 100)
    ]
    tracemalloc.start()
    offsets = OffsetMap(buffer_bytes)
    assert offsets.max_entries >= 1
    for number, batch in enumerate(batches):
        if offsets.put(batch, 100, 100 * number, 0) is not None:
            break
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(offsets) == min(offsets.max_entries, 50_000)
    assert peak_bytes < max(buffer_bytes, 0) + 5000


@pytest.mark.parametrize("load_factor", [1e-9, 0.5, 0.9, 1.0, 7.0])
def test_a_table_is_as_full_as_its_load_factor_says(accelerator: Any, load_factor: float) -> None:
    table = accelerator.OffsetTable(24 * 1000, load_factor, TABLE_KEY)
    assert table.max_entries == max(1, min(999, int(1000 * load_factor)))
    data = encoded(*[(b"%d" % number, None) for number in range(1000)])
    assert table.put(data, 1000, 0, 0) == table.max_entries == len(table)


@pytest.mark.parametrize(
    ("load_factor", "key"), [(0.0, TABLE_KEY), (-1.0, TABLE_KEY), (float("nan"), TABLE_KEY), (0.9, b"short")]
)
def test_a_table_that_cannot_be_is_refused(accelerator: Any, load_factor: float, key: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        accelerator.OffsetTable(1000, load_factor, key)


@pytest.mark.skipif(sys.byteorder == "big", reason="the vectors are little-endian, and the hash as the machine is")
@pytest.mark.parametrize(
    ("size", "hash_value"),
    [
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (8, "3b62a9ba6258f5610f83e264f31497b4"),
    ],
)
def test_the_hash_is_that_of_the_reference_implementation(accelerator: Any, size: int, hash_value: str) -> None:
    table = accelerator.OffsetTable(BUFFER_BYTES, 0.9, TABLE_KEY)
    assert table.hash(bytes(range(size))).hex() == hash_value


def test_each_map_has_a_hash_of_its_own(accelerator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_map, "NATIVE", accelerator)
    assert OffsetMap(BUFFER_BYTES)._table.hash(b"a") != OffsetMap(BUFFER_BYTES)._table.hash(b"a")


def test_c_leaves_nothing_sound_to_python(accelerator: Any) -> None:
    data = encoded(*[(b"key-%d" % (number % 50), b"v" * number) for number in range(300)])
    table = accelerator.OffsetTable(BUFFER_BYTES, 0.9, TABLE_KEY)
    assert table.put(data, 300, 7, 0) == LAST
    assert len(table) == 50
    assert table.staying(data, 300, 7, LAST, False)[0] == 50


def test_others_run_while_a_large_batch_is_looked_at_but_not_on_the_same_table(accelerator: Any) -> None:
    """A batch may hold millions of records, and who serves clients must not wait for all of them."""
    count = 200_000
    data = encoded(*[(b"%d" % number, None) for number in range(count)])
    table = accelerator.OffsetTable(24 * 2 * count, 0.9, TABLE_KEY)
    refused: list[str] = []

    def fill() -> None:
        for _ in range(ROUNDS):
            if not refused:
                table.put(data, count, 0, 0)

    worker = threading.Thread(target=fill)
    worker.start()
    while worker.is_alive() and not refused:
        try:
            table.put(b"", 0, 0, 0)
        except RuntimeError as error:
            refused.append(str(error))
    worker.join()
    assert refused == ["another thread is using this table"]


def test_no_memory_is_lost(accelerator: Any) -> None:
    data = encoded(*[(b"k" * (number % 60), b"v" * number) for number in range(100)])
    batch = build_batch([NewRecord(1000, b"%d" % number, b"v") for number in range(9000)])
    batches = memoryview(
        batch + build_batch([NewRecord(1000, b"%d" % number, b"v") for number in range(7)], base_offset=9000)
    )

    def work() -> None:
        table = accelerator.OffsetTable(BUFFER_BYTES, 0.9, TABLE_KEY)
        for end in (len(data), *range(0, len(data), 97)):
            table.put(data[:end], 100, 0, 0)
            table.staying(data[:end], 100, 0, 90, True)
        for end in (len(batches), 100, 60):
            table.put_batches(batches[:end], 0, 0)
            table.keep_batches(batches[:end], 0, 8999, LAST, 0, 0)

    assert grown_bytes(work) < 5000
