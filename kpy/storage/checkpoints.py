"""The small text files beside the logs: offset checkpoints, leader-epoch-checkpoint and partition.metadata.

A checkpoint is a version line `0`, a line with the number of entries, and one entry a line (Kafka class
CheckpointFile).
"""

from collections.abc import Iterable, Mapping, Sequence

from kpy import ids
from kpy.errors import StorageError
from kpy.storage.fs import Fs, read_file, replace_file

RECOVERY_POINTS = "recovery-point-offset-checkpoint"
LOG_START_OFFSETS = "log-start-offset-checkpoint"
HIGH_WATERMARKS = "replication-offset-checkpoint"
CLEANER_OFFSETS = "cleaner-offset-checkpoint"
LEADER_EPOCHS = "leader-epoch-checkpoint"
PARTITION_METADATA = "partition.metadata"

TopicPartition = tuple[str, int]


def read_offsets(fs: Fs, path: str) -> dict[TopicPartition, int]:
    """Offsets by (topic, partition). Raises FileNotFoundError, and StorageError when the file is malformed."""
    try:
        return {(row[0], int(row[1])): int(row[2]) for row in _read_rows(fs, path, columns=3)}
    except ValueError as error:
        raise StorageError(f"{path} is not an offset checkpoint: {error}") from error


def write_offsets(fs: Fs, path: str, offsets: Mapping[TopicPartition, int]) -> None:
    _write_rows(
        fs, path, [f"{topic} {partition} {offset}\n" for (topic, partition), offset in offsets.items()], sync=True
    )


def read_epochs(fs: Fs, path: str) -> list[tuple[int, int]]:
    """(leader epoch, start offset) pairs in the order of the file, none if there is no file. Raises StorageError."""
    try:
        return [(int(row[0]), int(row[1])) for row in _read_rows(fs, path, columns=2)]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise StorageError(f"{path} is not a leader epoch checkpoint: {error}") from error


def write_epochs(fs: Fs, path: str, epochs: Sequence[tuple[int, int]]) -> None:
    """Replace the file; it is not durable before a sync."""
    _write_rows(fs, path, [f"{epoch} {start_offset}\n" for epoch, start_offset in epochs], sync=False)


def read_topic_id(fs: Fs, path: str) -> bytes:
    """The 16-byte topic id in a partition.metadata file; ZERO_ID when there is none.

    Raises StorageError for a damaged one.
    """
    try:
        text = read_file(fs, path).decode("utf-8")
        fields = dict(line.split(": ", 1) for line in text.splitlines())
        if fields["version"] != "0":
            raise StorageError(f"{path} has version {fields['version']}, which kpy does not know")
        return ids.from_text(fields["topic_id"])
    except FileNotFoundError:
        return ids.ZERO_ID
    except (KeyError, ValueError) as error:
        raise StorageError(f"{path} is not a partition metadata file: {error}") from error


def write_topic_id(fs: Fs, path: str, topic_id: bytes) -> None:
    """Replace the file; it is not durable before a sync."""
    replace_file(fs, path, f"version: 0\ntopic_id: {ids.to_text(topic_id)}".encode("ascii"), sync=False)


def _read_rows(fs: Fs, path: str, columns: int) -> Iterable[list[str]]:
    text = read_file(fs, path).decode("utf-8")
    if not text:
        return []
    if not text.endswith("\n"):
        raise ValueError("the last line is cut short")
    # Not splitlines(), to which other bytes end a line too.
    lines = text[:-1].split("\n")
    if int(lines[0]) != 0:
        raise ValueError(f"unknown version {lines[0]}")
    if len(lines) < 2 or int(lines[1]) != len(lines) - 2:
        raise ValueError(f"{len(lines) - 2} entries where the second line promises another number")
    rows = [line.split(" ") for line in lines[2:]]
    if any(len(row) != columns for row in rows):
        raise ValueError(f"an entry does not have {columns} columns")
    return rows


def _write_rows(fs: Fs, path: str, rows: Sequence[str], sync: bool) -> None:
    replace_file(fs, path, f"0\n{len(rows)}\n{''.join(rows)}".encode(), sync)
