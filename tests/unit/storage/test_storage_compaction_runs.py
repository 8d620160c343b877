"""Compaction of whole runs of batches in C leaves the bytes that compaction in Python leaves, batch by batch."""

import random
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kpy.errors import ApiError
from kpy.records.batch import HEADER_SIZE, NewRecord, build_batch, check_crc, iter_records, read_header
from kpy.records.compression import Codec
from kpy.records.validate import ValidBatch
from kpy.storage import offset_map
from kpy.storage.fs import OsFs
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs
from kpy.storage.offset_map import OffsetMap
from kpy.storage.scan import CorruptBatchError, scan_batches
from kpy.storage.segment import Segment

SEED = 20_261_128
DAMAGED = 400
LAST = 2**63 - 1
NOW_MS = 10**12
TRANSACTIONAL = 3
CONFIG = LogConfig(
    cleanup_policy=frozenset({"compact"}),
    segment_bytes=20_000,
    index_interval_bytes=300,
    min_cleanable_dirty_ratio=0.0,
    delete_retention_ms=1000,
    file_delete_delay_ms=0,
)


def open_dirs(root: Path) -> LogDirs:
    return LogDirs.open(
        [root], broker_id=1, cluster_id=None, now_ms=NOW_MS, config_for=lambda topic: CONFIG, rng=random.Random(1)
    )


def append(log: Log, data: bytes) -> None:
    log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, NOW_MS)
    log.high_watermark = log.log_end_offset


def some_batch(rng: random.Random) -> bytes:
    """Mostly plain, of few keys, with some of everything that a batch can be."""
    records: list[NewRecord] = []
    for _ in range(rng.choice((1, 1, 2, 30))):
        key = None if rng.random() < 0.03 else b"key %d" % rng.randrange(rng.choice((5, 300)))
        value = None if rng.random() < 0.03 else rng.randbytes(rng.randrange(60))
        records.append(NewRecord(NOW_MS + rng.choice((-500, 0, 0, 500)), key, value))
    return build_batch(
        records,
        codec=rng.choice((*(Codec.NONE,) * 12, *Codec)),
        log_append_time=rng.random() < 0.1,
    )


def fill(log: Log, rng: random.Random, batches: int, producers: Sequence[int]) -> None:
    """Batches of these producers, of which -1 is none, and TRANSACTIONAL has transactions."""
    sequences: dict[int, int] = {}
    for _ in range(batches):
        data = some_batch(rng)
        producer_id = rng.choice(producers)
        if producer_id >= 0:
            sequence, records = sequences.get(producer_id, 0), list(iter_records(memoryview(data)))
            identity = {"producer_id": producer_id, "producer_epoch": 0, "base_sequence": sequence}
            data = build_batch(records, **identity, transactional=producer_id == TRANSACTIONAL)
            sequences[producer_id] = sequence + len(records)
        append(log, data)
        if producer_id == TRANSACTIONAL and rng.random() < 0.5:
            end_transaction(log, rng.random() < 0.5)
    if TRANSACTIONAL in producers:
        end_transaction(log, True)
    log.roll()


def end_transaction(log: Log, abort: bool) -> None:
    key, value = struct.pack(">hh", 0, 0 if abort else 1), struct.pack(">hi", 0, 0)
    marker = [NewRecord(NOW_MS, key, value)]
    append(log, build_batch(marker, producer_id=TRANSACTIONAL, producer_epoch=0, transactional=True, control=True))


def compacted(root: Path, accelerator: Any, monkeypatch: pytest.MonkeyPatch, now_ms: int) -> dict[str, bytes]:
    """Compacts the log in this directory; what it is made of then, but for its indexes."""
    monkeypatch.setattr(offset_map, "NATIVE", accelerator)
    dirs = open_dirs(root)
    dirs.clean(now_ms)
    dirs.remove_deleted(now_ms + 1)
    log = dirs.logs["t", 0]
    check_indexes(log)
    dirs.close()
    return {path.name: path.read_bytes() for path in (root / "t-0").iterdir() if path.suffix in (".log", ".txnindex")}


def check_indexes(log: Log) -> None:
    """That all of the log is found by them, from wherever one reads."""
    batches = [header for header, _ in log.read_batches(log.log_start_offset, log.log_end_offset)]
    for header in batches:
        found = next(iter(log.read_batches(header.base_offset, log.log_end_offset)))[0]
        assert found.base_offset == header.base_offset
    for segment in log.segments()[:-1]:
        newest = max((found.header.max_timestamp for found in segment.headers(0)), default=-1)
        assert segment.max_timestamp == newest
        assert segment.offset_index.last()[1] >= segment.size - 3000 or segment.size < 3000


@pytest.fixture
def portable(compiled_accelerator: Callable[..., Any]) -> Any:
    """The accelerator as it is where the processor has no instruction for CRCs."""
    return compiled_accelerator("-DKPY_PORTABLE")


@pytest.mark.parametrize("seed", range(SEED, SEED + 8))
def test_rounds_in_c_and_in_python_leave_the_same_bytes(
    tmp_path: Path, accelerator: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    roots = [tmp_path / "python", tmp_path / "c"]
    now_ms = NOW_MS
    shrunk = 0
    for step in range(4):
        monkeypatch.setattr(offset_map, "NATIVE", None)
        dirs = open_dirs(roots[0]) if step else new_dirs(roots[0])
        log = dirs.logs["t", 0]
        log.high_watermark = log.log_end_offset
        fill(log, rng, 120, producers=(-1, -1, -1, 1, 2, 3) if step == 0 else (-1,))
        dirs.close()
        shutil.rmtree(roots[1], ignore_errors=True)
        shutil.copytree(roots[0], roots[1])
        before = sum(path.stat().st_size for path in roots[0].glob("t-0/*.log"))
        left = compacted(roots[0], None, monkeypatch, now_ms)
        assert compacted(roots[1], accelerator, monkeypatch, now_ms) == left
        shrunk += sum(len(data) for name, data in left.items() if name.endswith(".log")) < before
        # Tombstones are stamped in one round, and go in the one after the next.
        now_ms += 700
    assert shrunk == 4


def new_dirs(root: Path) -> LogDirs:
    root.mkdir()
    dirs = open_dirs(root)
    dirs.create_log("t", 0, bytes(range(16)), CONFIG)
    return dirs


def plain_log(rng: random.Random) -> bytes:
    """Batches behind one another, some with gaps between them, as compaction leaves them."""
    data, offset = b"", 5
    for _ in range(30):
        batch = bytearray(some_batch(rng))
        offset += rng.choice((0, 0, 3))
        batch[:8] = offset.to_bytes(8)
        offset += read_header(batch).last_offset_delta + 1
        data += batch
    return data


def keys_in(segment: Segment) -> int:
    """How many keys a map finds in a segment, of what is not compressed, by a walk that puts and one that keeps."""
    offsets = OffsetMap(1 << 20)
    walk = (segment.file, segment.path(), 0, segment.size)
    for header, batch in scan_batches(*walk, lambda run, next_offset: offsets.put_run(run, next_offset, 20)):
        if header.codec is Codec.NONE:
            offsets.put(bytes(batch[HEADER_SIZE:]), header.records_count, header.base_offset, 20)

    def keep(run: memoryview, next_offset: int) -> tuple[int, int]:
        kept = offsets.keep_run(run, next_offset, LAST, NOW_MS, 0)
        assert sum(size for size, _, _, _ in kept.stretches) == len(kept.data)
        return kept.size_bytes, kept.next_offset

    for header, batch in scan_batches(*walk, keep):
        if header.codec is Codec.NONE:
            if not check_crc(batch):
                raise CorruptBatchError(segment.path(), header.base_offset, "bad CRC")
            offsets.staying(bytes(batch[HEADER_SIZE:]), header.records_count, header.base_offset, -1, False)
    return len(offsets)


def test_damage_is_found_in_c_as_in_python(tmp_path: Path, accelerator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(SEED)
    refused = 0
    for number in range(DAMAGED):
        if number % 40 == 0:
            whole = plain_log(rng)
        data = bytearray(whole)
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / f"{0:020d}.log").write_bytes(data)
        outcomes: list[int | str] = []
        for kind in (None, accelerator):
            monkeypatch.setattr(offset_map, "NATIVE", kind)
            try:
                outcomes.append(keys_in(Segment.attach(OsFs(), str(tmp_path), 0, 300)))
            except (CorruptBatchError, ApiError) as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1], f"seed {SEED}, number {number}"
        refused += isinstance(outcomes[0], str)
    assert 0 < refused < DAMAGED


def test_a_wrong_crc_is_left_to_python(accelerator: Any, portable: Any) -> None:
    """In both ways of computing it."""
    rng = random.Random(SEED)
    records = [NewRecord(NOW_MS, b"%d" % (number % 7), rng.randbytes(number)) for number in range(60)]
    batch = build_batch(records)
    left: list[bytes] = []
    for kind in (accelerator, portable):
        table = kind.OffsetTable(1 << 20, 0.9, bytes(16))
        assert table.put_batches(batch, 0, 0) == (len(batch), 60)
        taken, next_offset, read, kept, data, stretches = table.keep_batches(batch, 0, 59, LAST, 0, 0)
        assert (taken, next_offset, read, kept) == (len(batch), 60, 60, 7)
        assert stretches == [(len(data), 59, NOW_MS, 59)]
        assert [record.offset for record in iter_records(memoryview(data))] == list(range(53, 60))
        left.append(data)
        for position in (17, 25, 60, len(batch) - 1):
            damaged = bytearray(batch)
            damaged[position] ^= 1
            assert table.keep_batches(damaged, 0, 59, LAST, 0, 0) == (0, 0, 0, 0, b"", [])
    assert left[0] == left[1]


def test_a_run_ends_at_what_is_not_plain_and_below_what_may_stay_empty(accelerator: Any) -> None:
    plain = [build_batch([NewRecord(NOW_MS, b"a", b"1")], base_offset=offset) for offset in range(4)]
    size = len(plain[0])
    table = accelerator.OffsetTable(1 << 20, 0.9, bytes(16))
    run = b"".join(plain)
    assert table.put_batches(run, 0, 0) == (4 * size, 4)
    assert table.put_batches(run, 1, 0) == (0, 1), "offsets that do not rise"
    assert table.put_batches(run[size:], 0, 0)[0] == 3 * size, "a gap"
    assert table.put_batches(run[3 * size :], 0, 0)[0] == 0, "a gap, and nothing behind the batch that tells of damage"
    assert table.put_batches(plain[3] + plain[1] + plain[2], 0, 0)[0] == 0, "what follows lies in the gap"
    assert table.put_batches(run[: 3 * size - 1], 0, 0)[0] == 2 * size, "a batch that is cut short"
    table.put_batches(run, 0, 0)
    assert table.keep_batches(run, 0, 3, 2, 0, 0)[:5] == (2 * size, 2, 2, 0, b"")
    assert table.keep_batches(run, 0, 3, 9, 0, 0)[:5] == (4 * size, 4, 4, 1, plain[3])
    options: list[dict[str, Any]] = [
        {"codec": Codec.ZSTD},
        {"transactional": True, "producer_id": 1, "producer_epoch": 0},
        {"control": True},
    ]
    for option in options:
        other = build_batch([NewRecord(NOW_MS, b"a", b"1")], base_offset=2, **option)
        assert table.put_batches(run[: 2 * size] + other, 0, 0) == (2 * size, 2)
    tombstone = build_batch([NewRecord(NOW_MS, b"a", None)], base_offset=4)
    assert table.put_batches(run + tombstone, 0, 0)[1] == 5
    assert table.keep_batches(run + tombstone, 0, 4, 9, 0, 0)[:2] == (4 * size, 4), "it is to get a horizon"
