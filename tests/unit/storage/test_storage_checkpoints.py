"""The text files beside the logs, byte for byte as Apache Kafka writes them."""

from pathlib import Path

import pytest

from kpy import ids
from kpy.errors import StorageError
from kpy.storage.checkpoints import (
    read_epochs,
    read_offsets,
    read_topic_id,
    write_epochs,
    write_offsets,
    write_topic_id,
)
from kpy.storage.fs import OsFs

FS = OsFs()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"{tmp_path}/file"


def content(path: str) -> str:
    return Path(path).read_text()


def test_offset_checkpoint_has_version_count_and_one_line_an_entry(path: str) -> None:
    offsets = {("topic-a", 0): 12, ("b", 31): 0}
    write_offsets(FS, path, offsets)
    assert content(path) == "0\n2\ntopic-a 0 12\nb 31 0\n"
    assert read_offsets(FS, path) == offsets


def test_empty_offset_checkpoint_is_written_and_read(path: str) -> None:
    write_offsets(FS, path, {})
    assert content(path) == "0\n0\n"
    assert read_offsets(FS, path) == {}


def test_checkpoint_of_no_bytes_holds_nothing(path: str) -> None:
    Path(path).touch()
    assert read_offsets(FS, path) == {}
    assert read_epochs(FS, path) == []


@pytest.mark.parametrize(
    "text",
    [
        "1\n0\n",
        "0\n",
        "0\n1\n",
        "0\n2\na 0 1\n",
        "0\n1\na 0\n",
        "0\n1\na 0 1 2\n",
        "0\n1\na x 1\n",
        "x\n0\n",
        "0\n1\na 0 1",
    ],
)
def test_malformed_checkpoint_is_refused(path: str, text: str) -> None:
    Path(path).write_text(text)
    with pytest.raises(StorageError, match="is not an offset checkpoint"):
        read_offsets(FS, path)


def test_missing_offset_checkpoint_is_not_an_empty_one(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_offsets(FS, path)


def test_epoch_checkpoint_has_epoch_and_start_offset_in_a_line(path: str) -> None:
    write_epochs(FS, path, [(0, 0), (3, 17)])
    assert content(path) == "0\n2\n0 0\n3 17\n"
    assert read_epochs(FS, path) == [(0, 0), (3, 17)]


def test_epoch_whose_number_is_cut_short_is_refused(path: str) -> None:
    Path(path).write_text("0\n1\n3 1")
    with pytest.raises(StorageError, match="cut short"):
        read_epochs(FS, path)


def test_partition_metadata_has_no_final_newline(path: str) -> None:
    topic_id = bytes(range(16))
    write_topic_id(FS, path, topic_id)
    assert content(path) == "version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw"
    assert read_topic_id(FS, path) == topic_id


def test_log_without_partition_metadata_has_no_id(path: str) -> None:
    assert read_topic_id(FS, path) == ids.ZERO_ID


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xff", b"version: 1\ntopic_id: AAECAwQFBgcICQoLDA0ODw", b"version: 0\ntopic_id: A", b"version: 0"],
)
def test_damaged_partition_metadata_is_refused(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)
    with pytest.raises(StorageError):
        read_topic_id(FS, path)
