"""Every byte of a segment, and of what lies beside it, flipped in turn: damage is found, and no wrong record served.

What a flipped byte of a .log file does today, by where in a batch it is:

- from the attributes on (bytes 21 to the end), and in the CRC itself (17 to 20): the CRC does not match. Recovery cuts
  the log there, consumers refuse the batch, as do kpy's followers. A fetch does not look at it: it is sent from the
  page cache as it is.
- batch_length (8 to 11) and magic (16): a read that comes by answers CORRUPT_MESSAGE. Where the batch lies within what
  is sent, the consumer's walk falls on bytes that are no batch, or whose CRC does not match.
- base_offset (0 to 7): what comes from the disk is walked over before it is sent (header_order.py), and offsets that do
  not rise end it; whoever wants that batch is answered CORRUPT_MESSAGE. Apache Kafka hands on the wrong offset. `kpy
  check-data` and recovery find it.
- partition_leader_epoch (12 to 15): records are not concerned. `kpy check-data` finds it; recovery cuts nothing, and
  takes what the batches around it and the leader-epoch-checkpoint say.
"""

import itertools
import random
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from storage_fs import UnsyncedFs

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import HEADER_SIZE, NewRecord, build_batch, check_crc, iter_batches, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.findings import Severity
from kpy.storage.log import Log
from kpy.storage.log_config import LONG_MAX, LogConfig
from kpy.storage.log_dirs import LogDirs
from kpy.storage.partition_check import PartitionCheck, PartitionFacts
from kpy.storage.recovery import LoadRequest, load_log
from kpy.storage.scan import CorruptBatchError
from kpy.storage.segment import Segment
from kpy.storage.segment_check import SegmentWalk, WalkOptions

SEGMENT_BYTES = 64 * 1024
BATCHES = 10
SAMPLED = 64
"""Of the records, one byte of so many goes through what takes long for each; every byte through the rest."""
END_OFFSET = 2 * BATCHES + 3
BASE_OFFSET, EPOCH, MAGIC = range(8), range(12, 16), range(16, 17)
CONFIG = LogConfig(index_interval_bytes=4096)
FS = UnsyncedFs()
LOG = f"{0:020d}.log"
BITS = tuple(1 << bit for bit in range(8))
ENTRY_BYTES = {".index": 8, ".timeindex": 12, ".txnindex": 34, ".snapshot": 1}
OFFSETS_OF_ENTRIES = {".index": range(4), ".timeindex": range(8, 12), ".txnindex": (), ".snapshot": ()}

Served = list[tuple[int, bytes]]
"""Base offsets, and the batches from their magic on: what makes a consumer's records."""


def open_dirs(root: Path) -> LogDirs:
    return LogDirs.open(
        [root], broker_id=1, cluster_id=None, now_ms=0, config_for=lambda _: CONFIG, rng=random.Random(1), fs=FS
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A partition of one segment of 64 KiB: two leader epochs, idempotent and transactional batches, an abort."""
    root = tmp_path_factory.mktemp("flips")
    dirs = open_dirs(root)
    log = dirs.create_log("t", 0, bytes(range(16)), CONFIG)
    rng = random.Random(2)
    for number in range(BATCHES):
        append(log, 1000 + 10 * number, rng.randbytes(6400), number, leader_epoch=0 if number < 5 else 3)
    control = NewRecord(1000, b"\0\0\0\0", b"\0\0\0\0\0\1")
    data = build_batch([control], producer_id=7, producer_epoch=0, transactional=True, control=True)
    log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 3, 0)
    append(log, 2000, rng.randbytes(SEGMENT_BYTES - log.size_bytes - 2 * 40), BATCHES, leader_epoch=3)
    assert abs(log.size_bytes - SEGMENT_BYTES) < 200
    dirs.close()
    return root / "t-0"


def append(log: Log, timestamp: int, value: bytes, number: int, leader_epoch: int) -> None:
    records = [NewRecord(timestamp, b"key", value), NewRecord(timestamp - 1, None, b"second")]
    data = build_batch(
        records, producer_id=7, producer_epoch=0, base_sequence=2 * number, transactional=number < BATCHES
    )
    log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), leader_epoch, 0)


@pytest.fixture
def partition(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "t-0")
    return tmp_path / "t-0"


@contextmanager
def flipped(path: Path) -> Iterator["Flips"]:
    with path.open("r+b", buffering=0) as file:
        yield Flips(file, path.read_bytes())


class Flips:
    """A file of which one byte at a time is wrong."""

    def __init__(self, file: object, data: bytes) -> None:
        self._file = file
        self.data = data

    def each(self, masks: tuple[int, ...] = ()) -> Iterator[int]:
        """The position of each byte, which is flipped meanwhile: one bit of it, or by each of the masks."""
        for position, byte in enumerate(self.data):
            for mask in masks or (1 << position * 5 % 8,):
                self.write(position, byte ^ mask)
                yield position
                self.write(position, byte)

    def write(self, position: int, byte: int) -> None:
        self._file.seek(position)  # type: ignore[attr-defined]  # typeshed has no name for a raw file
        self._file.write(bytes((byte,)))  # type: ignore[attr-defined]


def problems(partition: Path) -> list[tuple[str, int | None]]:
    """(path, position) of what `kpy check-data` and `kpy dump-log --verify` find wrong."""
    check = PartitionCheck(FS, str(partition), PartitionFacts(is_clean=True))
    return [(each.path, each.position) for each in check.findings() if each.severity is not Severity.NOTE]


def batch_starts(data: bytes) -> list[int]:
    starts = [0]
    for header, _ in iter_batches(data):
        starts.append(starts[-1] + header.size_bytes)
    return starts


def first_problem(partition: Path) -> tuple[str, int | None] | None:
    """What a check that walks over the batches finds first, in a fraction of the time."""
    walk = SegmentWalk(FS, str(partition), 0, WalkOptions(False, True, LONG_MAX, 4096, lambda size_bytes: None), [])
    return next(((each.path, each.position) for each in walk.walk(0, None)), None)


def attached(partition: Path) -> Segment:
    return Segment.attach(FS, str(partition), 0, CONFIG.index_interval_bytes)


def served(segment: Segment, max_bytes: int, offset: int = 0) -> tuple[Served, bool]:
    """What a consumer that checks CRCs takes from fetches in a row, and whether it is told of damage at the end."""
    taken: Served = []
    try:
        while (region := segment.read(offset, max_bytes, END_OFFSET, END_OFFSET, True)) is not None:
            before = offset
            for header, batch in iter_batches(region.read()):
                if not check_crc(batch):
                    return taken, True
                if header.last_offset >= offset:
                    taken.append((header.base_offset, bytes(batch[16:])))
                    offset = header.last_offset + 1
            if offset == before:
                # Not one whole batch: a consumer takes it for one larger than what it has asked for.
                return taken, True
    except (ApiError, CorruptBatchError):
        return taken, True
    return taken, False


def test_every_flipped_byte_of_a_segment_is_named_by_the_check(partition: Path) -> None:
    log = partition / LOG
    with flipped(log) as flips:
        starts = batch_starts(flips.data)
        assert problems(partition) == []
        assert first_problem(partition) is None
        slot = 0
        for position in flips.each():
            slot += position >= starts[slot + 1]
            within = position - starts[slot]
            if within >= HEADER_SIZE:
                assert first_problem(partition) == (str(log), starts[slot]), position
            else:
                assert (str(log), starts[slot]) in problems(partition), position


def test_no_flipped_byte_of_a_segment_makes_a_fetch_serve_a_wrong_record(partition: Path) -> None:
    """One log that stays open, and reads all at once what has come from the disk anew."""
    with flipped(partition / LOG) as flips:
        starts = batch_starts(flips.data)
        segment = attached(partition)
        sound, was_told = served(segment, SEGMENT_BYTES)
        assert len(sound) == len(starts) - 1
        assert not was_told
        slot = 0
        for position in flips.each():
            slot += position >= starts[slot + 1]
            segment.header_order.forget(segment.size)
            taken, was_told = served(segment, SEGMENT_BYTES)
            if position - starts[slot] in EPOCH:
                assert (taken, was_told) == (sound, False)
            else:
                assert (taken, was_told) == (sound[:slot], True), position


@pytest.mark.parametrize("max_bytes", [1, 10_000, 1 << 20])
def test_fetches_from_a_log_just_opened_serve_no_wrong_record(partition: Path, max_bytes: int) -> None:
    with flipped(partition / LOG) as flips:
        starts = batch_starts(flips.data)
        sound, _ = served(attached(partition), max_bytes)
        slot = 0
        for position in flips.each():
            slot += position >= starts[slot + 1]
            within = position - starts[slot]
            if within >= HEADER_SIZE and position % SAMPLED:
                continue
            taken, was_told = served(attached(partition), max_bytes)
            if within in EPOCH:
                assert (taken, was_told) == (sound, False)
            elif within in BASE_OFFSET and max_bytes == 1:
                # Who is looked up alone can be refused for the one behind it: which of the two is damaged is not known.
                assert taken in (sound[:slot], sound[: slot - 1]), position
                assert was_told
            else:
                assert (taken, was_told) == (sound[:slot], True), position


@pytest.mark.parametrize("within", BASE_OFFSET)
def test_who_wants_a_batch_with_a_flipped_base_offset_is_answered_corrupt_message(
    template: Path, tmp_path: Path, within: int
) -> None:
    data = (template / LOG).read_bytes()
    for slot, start in enumerate(batch_starts(data)[1:-2], start=1):
        root = tmp_path / str(slot)
        shutil.copytree(template.parent, root)
        with closing(open_dirs(root)) as dirs:
            log = dirs.logs["t", 0]
            damaged = bytearray(data)
            damaged[start + within] ^= 1 << slot % 8
            (root / "t-0" / LOG).write_bytes(damaged)
            region = log.read(0, 1 << 20, END_OFFSET, True)
            assert region is not None
            assert region.size == start
            with pytest.raises(ApiError) as error:
                log.read(2 * slot, 1 << 20, END_OFFSET, True)
            assert error.value.code is ErrorCode.CORRUPT_MESSAGE


def test_any_flipped_byte_in_a_batch_changes_its_crc(template: Path) -> None:
    data = bytearray((template / LOG).read_bytes())
    starts = batch_starts(bytes(data))
    for start, end in itertools.pairwise(starts):
        batch = memoryview(data)[start:end]
        for position in range(17, end - start):
            batch[position] ^= 1 << position % 8
            assert not check_crc(batch)
            batch[position] ^= 1 << position % 8


def test_recovery_cuts_the_log_at_every_flipped_byte_but_of_leader_epochs(template: Path, tmp_path: Path) -> None:
    data = (template / LOG).read_bytes()
    starts = batch_starts(data)
    for slot, start in enumerate(starts[:-1]):
        for position in [*range(start, start + HEADER_SIZE), starts[slot + 1] - 1]:
            partition = tmp_path / f"t-{position}"
            shutil.copytree(template, partition)
            damaged = bytearray(data)
            damaged[position] ^= 1 << position % 8
            (partition / LOG).write_bytes(damaged)
            request = LoadRequest(FS, str(partition), CONFIG, False, 0, 0, 1 << 40, 0)
            loaded = load_log(request)
            kept = data if position - start in EPOCH else data[:start]
            if position - start not in EPOCH:
                assert (partition / LOG).read_bytes() == kept, position
            assert loaded.segments[-1].size == len(kept), position
            shutil.rmtree(partition)


@pytest.mark.parametrize("keeps_checkpoint", [True, False])
def test_recovery_brings_back_the_leader_epochs_whatever_bit_of_a_batchs_own_is_flipped(
    partition: Path, keeps_checkpoint: bool
) -> None:
    """Without a checkpoint those at the ends of an epoch, where it has no two batches in a row, cannot be told."""
    data = (partition / LOG).read_bytes()
    checkpoint = (partition / "leader-epoch-checkpoint").read_bytes()
    starts = batch_starts(data)[:-1]
    with flipped(partition / LOG) as flips:
        for slot, position, mask in itertools.product(range(len(starts) - 1), EPOCH, BITS):
            if slot in (0, 4, 5, 6) and not keeps_checkpoint:
                continue
            flips.write(starts[slot] + position, data[starts[slot] + position] ^ mask)
            (partition / "leader-epoch-checkpoint").write_bytes(checkpoint if keeps_checkpoint else b"")
            loaded = load_log(LoadRequest(FS, str(partition), CONFIG, False, 0, 0, 1 << 40, 0))
            assert loaded.leader_epochs.entries() == [(0, 0), (3, 10)], (slot, position, mask)
            assert loaded.segments[-1].size == len(data)
            flips.write(starts[slot] + position, data[starts[slot] + position])


def test_recovery_of_a_compacted_log_cuts_base_offsets_that_the_next_batch_contradicts(
    template: Path, tmp_path: Path
) -> None:
    data = (template / LOG).read_bytes()
    starts = batch_starts(data)
    config = LogConfig(cleanup_policy=frozenset({"compact"}))
    for start in starts[:-2]:
        for position in (start + byte for byte in BASE_OFFSET):
            partition = tmp_path / f"t-{position}"
            shutil.copytree(template, partition)
            damaged = bytearray(data)
            damaged[position] ^= 0x40
            (partition / LOG).write_bytes(damaged)
            loaded = load_log(LoadRequest(FS, str(partition), config, False, 0, 0, 1 << 40, 0))
            assert loaded.segments[-1].size == start, position
            shutil.rmtree(partition)


@pytest.mark.parametrize("suffix", [".index", ".timeindex", ".txnindex", ".snapshot"])
def test_every_flipped_bit_beside_a_segment_is_found(partition: Path, suffix: str) -> None:
    path = next(partition.glob(f"*{suffix}"))
    with flipped(path) as flips:
        assert len(flips.data) >= 34
        for position in flips.each(BITS):
            found = [found for found, _ in problems(partition)]
            # An offset may still be one of its batch, or of the append that the batch began: lookups do not change.
            if found or position % ENTRY_BYTES[suffix] not in OFFSETS_OF_ENTRIES[suffix]:
                assert found == [str(path)], position


def test_every_flipped_bit_of_the_leader_epochs_is_found(partition: Path) -> None:
    path = partition / "leader-epoch-checkpoint"
    with flipped(path) as flips:
        for position in flips.each(BITS):
            assert str(path) in {found for found, _ in problems(partition)}, position


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_lookups_are_right_with_every_flipped_bit_of_an_index(partition: Path, suffix: str) -> None:
    path = next(partition.glob(f"*{suffix}"))
    sound = [read_header(data) for _, data in iter_batches((partition / LOG).read_bytes())]
    with flipped(path) as flips:
        for position in flips.each(BITS):
            segment = attached(partition)
            for header in sound:
                found = segment.find(header.last_offset)
                assert found is not None
                assert found.header == header, position
                times = segment.batches_from_timestamp(header.max_timestamp, 0)
                earliest = next(each for each in sound if each.max_timestamp >= header.max_timestamp)
                assert next(times)[0] == earliest, position
            path.write_bytes(flips.data)


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_fetches_serve_the_right_records_with_every_flipped_bit_of_an_index(partition: Path, suffix: str) -> None:
    path = next(partition.glob(f"*{suffix}"))
    sound = {max_bytes: served(attached(partition), max_bytes) for max_bytes in (1, 10_000, 1 << 20)}
    with flipped(path) as flips:
        for position in flips.each(BITS):
            for max_bytes, expected in sound.items():
                assert served(attached(partition), max_bytes) == expected, position
            path.write_bytes(flips.data)
