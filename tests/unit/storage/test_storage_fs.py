"""The file seam: whole reads and writes, atomic replacement, locks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kpy.storage.fs import READ_AT_ONCE_BYTES, File, FileRegion, OsFs, read_file, remove_tree, replace_file

FS = OsFs()


class OneByteFs(OsFs):
    """Reads and writes one byte a call."""

    def pread(self, fd: int, size: int, position: int) -> bytes:  # type: ignore[override]  # OsFs binds os.pread
        return os.pread(fd, min(size, 1), position)

    def pwritev(self, fd, buffers, position):  # type: ignore[no-untyped-def, override]  # OsFs binds os.pwritev
        return os.pwrite(fd, b"".join(buffers)[:1], position)


def test_reads_and_writes_are_completed_however_short_the_calls_are(tmp_path: Path) -> None:
    file = File(OneByteFs(), f"{tmp_path}/f", create=True)
    file.write(b"some bytes", 2)
    assert file.read(100, 0) == b"\0\0some bytes"
    assert file.read(4, 3) == b"ome "
    assert file.read(4, 50) == b""


def test_file_larger_than_one_read_is_read_whole(tmp_path: Path) -> None:
    data = os.urandom(2 * READ_AT_ONCE_BYTES + 17)
    (tmp_path / "f").write_bytes(data)
    assert read_file(FS, f"{tmp_path}/f") == data


def test_descriptor_lives_as_long_as_what_refers_to_it(tmp_path: Path) -> None:
    file = File(FS, f"{tmp_path}/f", create=True)
    file.write(b"content", 0)
    region = FileRegion(file, 1, 3)
    descriptor = file.fileno()
    os.remove(tmp_path / "f")
    del file
    assert (len(region), region.read()) == (3, b"ont")
    del region
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_missing_file_is_not_made_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        File(FS, f"{tmp_path}/missing")
    assert list(tmp_path.iterdir()) == []


def test_replaced_file_has_the_new_content_and_leaves_no_other(tmp_path: Path) -> None:
    replace_file(FS, f"{tmp_path}/f", b"a longer old content")
    replace_file(FS, f"{tmp_path}/f", b"new", sync=False)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_tree_is_removed_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"")
    remove_tree(FS, f"{tmp_path}/d")
    assert list(tmp_path.iterdir()) == []


def test_lock_is_refused_while_another_process_holds_it(tmp_path: Path) -> None:
    holder = "import sys, kpy.storage.fs as fs; print(fs.OsFs().lock(sys.argv[1]) is not None, flush=True); input()"
    command = [sys.executable, "-c", holder, f"{tmp_path}/.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        assert FS.lock(f"{tmp_path}/.lock") is None
        process.communicate("\n")
    descriptor = FS.lock(f"{tmp_path}/.lock")
    assert descriptor is not None
    os.close(descriptor)
