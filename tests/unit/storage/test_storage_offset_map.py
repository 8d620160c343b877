"""The map of compaction and what stays by it, in Python and in C: the same for sound batches and for damaged ones."""

import random
import threading
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


@pytest.fixture(params=["Python", "C"])
def new_map(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], OffsetMap]:
    """Makes maps of one kind."""
    monkeypatch.setattr(offset_map, "NATIVE", request.getfixturevalue("accelerator") if request.param == "C" else None)
    return lambda: OffsetMap(1_000_000)


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
    """What the map holds and what stays, or what is refused."""
    base_offset, first_offset, latest_offset, without_tombstones = numbers
    monkeypatch.setattr(offset_map, "NATIVE", native)
    offsets = OffsetMap(1000)
    found: list[Any] = []
    for look in (
        lambda: offsets.put(data, count, base_offset, first_offset),
        lambda: offsets.staying(data, count, base_offset, latest_offset, bool(without_tombstones)),
    ):
        try:
            found.append(look())
        except ApiError as error:
            found.append(str(error))
    return found, offsets._offsets


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
        kinds.add(type(wanted[0][1]))
    assert kinds == {Staying, str}


def test_sound_records_have_the_same_outcome_in_c_and_in_python(
    accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(SEED)
    for _ in range(100):
        data = some_records(rng, 1, 3, 80, 200)
        count = next(
            count for count in (1, 3, 80, 200) if accelerator.put_keys({}, None, 1 << 62, data, count, 0, LAST)
        )
        for numbers in ((0, 0, LAST, 0), (5, 40, 60, 1), (1 << 40, 0, (1 << 40) + 100, 1)):
            wanted = outcome(None, monkeypatch, data, count, numbers)
            assert isinstance(wanted[0][1], Staying)
            assert outcome(accelerator, monkeypatch, data, count, numbers) == wanted


def test_c_leaves_nothing_sound_to_python(accelerator: Any) -> None:
    data = encoded(*[(b"key-%d" % (number % 50), b"v" * number) for number in range(300)])
    offsets: dict[bytes, int] = {}
    assert accelerator.put_keys(offsets, None, HASH_SIZE, data, 300, 7, 0)
    assert offsets == {b"key-%d" % number: 257 + number for number in range(50)}
    assert accelerator.staying_records(offsets, None, HASH_SIZE, data, 300, 7, LAST, False)[0] == 50


def test_errors_of_the_digest_are_met_in_python(accelerator: Any) -> None:
    data = encoded((b"a" * HASH_SIZE, b"1"))
    for digest in (None, lambda key: 1 / 0, lambda key: []):
        assert accelerator.put_keys({}, digest, HASH_SIZE, data, 1, 0, 0) is None
        assert accelerator.staying_records({}, digest, HASH_SIZE, data, 1, 0, LAST, False) is None


def test_others_run_while_a_large_batch_is_looked_at(accelerator: Any) -> None:
    """A batch may hold millions of records, and who serves clients must not wait for all of them."""
    count = 200_000
    data = encoded(*[(b"%d" % number, None) for number in range(count)])
    growing: list[dict[bytes, int]] = [{}]
    seen_half_full = threading.Event()

    def fill() -> None:
        while not seen_half_full.is_set() and len(growing) < ROUNDS:
            growing.append({})
            accelerator.put_keys(growing[-1], None, HASH_SIZE, data, count, 0, 0)

    worker = threading.Thread(target=fill)
    worker.start()
    while worker.is_alive() and not seen_half_full.is_set():
        if 0 < len(growing[-1]) < count:
            seen_half_full.set()
    worker.join()
    assert seen_half_full.is_set()


def test_no_memory_is_lost(accelerator: Any) -> None:
    data = encoded(*[(b"k" * (number % 60), b"v" * number) for number in range(100)])
    offsets: dict[bytes, int] = {}

    def work() -> None:
        for end in (len(data), *range(0, len(data), 97)):
            accelerator.put_keys(offsets, offset_map.digest, HASH_SIZE, data[:end], 100, 0, 0)
            accelerator.staying_records(offsets, offset_map.digest, HASH_SIZE, data[:end], 100, 0, 90, True)

    assert grown_bytes(work) < 5000
