"""Files that were cut or changed while the broker was down: the log opens with a valid prefix and sound indexes."""

import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_fs import UnsyncedFs

from kpy.errors import StorageError
from kpy.records.batch import NewRecord, build_batch, iter_batches, iter_records, read_header
from kpy.records.legacy import down_convert
from kpy.records.validate import ValidBatch
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig(index_interval_bytes=150, segment_bytes=1500)
TOPIC_ID = bytes(range(16))
BATCHES = 40
LOG = f"{0:020d}.log"


def open_dirs(root: Path, config: LogConfig = CONFIG) -> LogDirs:
    return LogDirs.open(
        [root],
        broker_id=1,
        cluster_id=None,
        now_ms=0,
        config_for=lambda topic: config,
        rng=random.Random(1),
        fs=UnsyncedFs(),
    )


def append(log: Log, timestamp: int, producer_id: int = -1, sequence: int = -1) -> None:
    records = [NewRecord(timestamp, b"key", b"value %d" % timestamp), NewRecord(timestamp - 1, b"key", b"earlier")]
    epoch = 0 if producer_id >= 0 else -1
    data = build_batch(records, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)
    log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, 0)


def contents(log: Log) -> list[bytes]:
    found: list[bytes] = []
    offset = log.log_start_offset
    while (region := log.read(offset, 400, log.log_end_offset, True)) is not None:
        for header, data in iter_batches(region.read()):
            found.append(bytes(data))
            offset = header.last_offset + 1
    return found


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cleanly closed data directory: three segments, timestamps that go up and down, and what was written."""
    root = tmp_path_factory.mktemp("template")
    dirs = open_dirs(root)
    log = dirs.create_log("t", 0, TOPIC_ID, CONFIG)
    rng = random.Random(3)
    for sequence in range(BATCHES):
        append(log, 1000 + rng.randrange(500), producer_id=7, sequence=2 * sequence)
    assert len(log.segment_base_offsets()) > 2
    dirs.close()
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def expected(template: Path) -> list[bytes]:
    return [bytes(data) for path in sorted(template.glob("t-0/*.log")) for _, data in iter_batches(path.read_bytes())]


def last_log(root: Path) -> Path:
    return max(root.glob("t-0/*.log"))


def positions_of_last_batch(path: Path) -> range:
    data = path.read_bytes()
    *_, (_, batch) = iter_batches(data)
    return range(len(data) - len(batch), len(data))


def reopened(root: Path) -> Iterator[Log]:
    dirs = open_dirs(root)
    try:
        yield dirs.logs["t", 0]
    finally:
        dirs.close()


@pytest.mark.parametrize("was_clean", [True, False])
def test_log_cut_anywhere_in_its_last_batch_loses_that_batch_only(
    template: Path, tmp_path: Path, expected: list[bytes], was_clean: bool
) -> None:
    for position in positions_of_last_batch(last_log(template)):
        root = tmp_path / str(position)
        shutil.copytree(template, root)
        if not was_clean:
            (root / ".kafka_cleanshutdown").unlink()
        with last_log(root).open("r+b") as file:
            file.truncate(position)
        for log in reopened(root):
            assert contents(log) == expected[:-1]
            assert log.log_end_offset == 2 * BATCHES - 2
            assert log.producer_state.producers[7].last_sequence == 2 * BATCHES - 3
            append(log, 5, producer_id=7, sequence=2 * BATCHES - 2)
        for log in reopened(root):
            assert len(contents(log)) == BATCHES


def test_any_changed_byte_of_the_last_batch_is_found_after_an_unclean_shutdown(
    template: Path, tmp_path: Path, expected: list[bytes]
) -> None:
    """But for the leader epoch, bytes 12 to 15, which leaders stamp outside the CRC."""
    positions = positions_of_last_batch(last_log(template))
    for position in positions:
        if 12 <= position - positions.start < 16:
            continue
        root = tmp_path / str(position)
        shutil.copytree(template, root)
        (root / ".kafka_cleanshutdown").unlink()
        damage(last_log(root), position, 0x10)
        for log in reopened(root):
            assert contents(log) == expected[:-1]


def test_damage_in_the_middle_of_the_unflushed_part_ends_the_log_there(
    template: Path, tmp_path: Path, expected: list[bytes]
) -> None:
    size = (template / "t-0" / LOG).stat().st_size
    for position in range(100, size, 37):
        root = tmp_path / str(position)
        shutil.copytree(template, root)
        (root / ".kafka_cleanshutdown").unlink()
        (root / "recovery-point-offset-checkpoint").write_text("0\n0\n")
        with (root / "t-0" / LOG).open("r+b") as file:
            file.seek(position)
            file.write(b"\xff" * 16)
        for log in reopened(root):
            survived = contents(log)
            assert survived == expected[: len(survived)]
            assert log.segment_base_offsets() == [0]
            assert sum(map(len, survived)) <= position < sum(map(len, expected[: len(survived) + 1])) + 16


def damage(path: Path, position: int, mask: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def check_lookups(log: Log, expected: list[bytes]) -> None:
    """Everything is found by offset and by time, as a search through all records finds it."""
    assert contents(log) == expected
    for data in expected:
        header = read_header(data)
        region = log.read(header.last_offset, 1, log.log_end_offset, True)
        assert region is not None
        assert region.read() == data
    bases = [*log.segment_base_offsets(), log.log_end_offset]
    for timestamp in range(995, 1500, 50):
        for base, end in itertools.pairwise(bases):
            records = [
                record
                for data in expected
                if base <= read_header(data).base_offset < end
                for record in iter_records(memoryview(data))
            ]
            matches = [(each.timestamp, each.offset) for each in records if each.timestamp >= timestamp]
            if matches:
                found = log.offset_for_timestamp(timestamp)
                assert found is not None
                assert (found.timestamp, found.offset) == matches[0]
                break


@pytest.mark.parametrize("suffix", ["index", "timeindex"])
def test_any_changed_byte_of_an_index_is_found_and_the_index_rebuilt(
    template: Path, tmp_path: Path, expected: list[bytes], suffix: str
) -> None:
    for name in sorted(path.name for path in template.glob(f"t-0/*.{suffix}")):
        size = (template / "t-0" / name).stat().st_size
        assert size > 8
        for position in range(0, size, 3):
            root = tmp_path / f"{name}-{position}"
            shutil.copytree(template, root)
            damage(root / "t-0" / name, position, 0x41)
            for log in reopened(root):
                check_lookups(log, expected)


@pytest.mark.parametrize("suffix", ["index", "timeindex"])
@pytest.mark.parametrize("content", [None, b"", b"\xff", b"garbage garbage garbage.", bytes(96)])
def test_replaced_indexes_are_rebuilt(root: Path, expected: list[bytes], suffix: str, content: bytes | None) -> None:
    for path in root.glob(f"t-0/*.{suffix}"):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
    for log in reopened(root):
        check_lookups(log, expected)


@pytest.mark.parametrize("name", ["leader-epoch-checkpoint", f"{2 * BATCHES:020d}.snapshot"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0\n7\n1 2\n", b"0\n1\n0 1"])
def test_damaged_epochs_and_snapshots_are_rebuilt(root: Path, expected: list[bytes], name: str, content: bytes) -> None:
    assert (root / "t-0" / name).exists()
    (root / "t-0" / name).write_bytes(content)
    (root / ".kafka_cleanshutdown").unlink()
    for log in reopened(root):
        assert contents(log) == expected
        assert log.leader_epochs.entries() == [(0, 0)]
        assert log.producer_state.producers[7].last_sequence == 2 * BATCHES - 1


@pytest.mark.parametrize("name", ["recovery-point-offset-checkpoint", "log-start-offset-checkpoint"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"0\n7\nt 0 2\n", b"1\n0\n", b"0\n1\nt 0\n"])
def test_log_survives_a_damaged_checkpoint(root: Path, expected: list[bytes], name: str, content: bytes | None) -> None:
    (root / ".kafka_cleanshutdown").unlink()
    (root / name).unlink(missing_ok=True)
    if content is not None:
        (root / name).write_bytes(content)
    for log in reopened(root):
        assert contents(log) == expected


def test_leftovers_of_deletion_and_compaction_go(root: Path, expected: list[bytes]) -> None:
    for leftover in (f"{LOG}.deleted", f"{2:020d}.log.cleaned", f"{2:020d}.index.cleaned", f"{3:020d}.timeindex"):
        (root / "t-0" / leftover).write_bytes(b"leftover")
    (root / f"gone-3.{'0' * 32}-delete").mkdir()
    (root / f"gone-3.{'0' * 32}-delete" / LOG).write_bytes(b"leftover")
    dirs = open_dirs(root)
    assert contents(dirs.logs["t", 0]) == expected
    assert not [
        path.name for path in (root / "t-0").iterdir() if path.name.startswith(("00000000000000000002", "leftover"))
    ]
    dirs.retention(0)
    dirs.remove_deleted(0)
    assert not list(root.glob("*-delete"))
    dirs.close()


def test_messages_of_an_old_format_are_refused_and_not_truncated(root: Path) -> None:
    path = last_log(root)
    *_, (_, batch) = iter_batches(path.read_bytes())
    old = path.read_bytes()[: -len(batch)] + down_convert(bytes(batch), 1)
    path.write_bytes(old)
    (root / ".kafka_cleanshutdown").unlink()
    with pytest.raises(StorageError, match="format v1"):
        open_dirs(root)
    assert path.read_bytes() == old
