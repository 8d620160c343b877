"""The SQLite store: the conformance suite on disk and in memory, and what only a file has: crashes, locks, damage."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_conformance
import trio
from store_conformance import run

from kpy.errors import StorageError
from kpy.metadata.embedded import SCHEMA_VERSION, EmbeddedStore
from kpy.metadata.store import Create, MetadataStore


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MetadataStore]:
    store = EmbeddedStore(tmp_path / "metadata.db" if request.param == "disk" else None)
    yield store
    run(store.close())


@pytest.mark.parametrize("check", store_conformance.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: store_conformance.Conformance, store: MetadataStore) -> None:
    trio.run(check, store)


def test_what_was_written_is_there_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    first = EmbeddedStore(path)
    run(first.create("/a", b"0"))
    run(first.set("/a", b"1"))
    run(first.close())
    assert [file.name for file in tmp_path.iterdir()] == ["metadata.db"]
    second = EmbeddedStore(path)
    assert run(second.get("/a"))[:2] == (b"1", 1)
    run(second.close())


CRASHING_WRITER = """
import os, signal, sys
from pathlib import Path
import trio
from kpy.metadata.embedded import EmbeddedStore

async def write():
    store = EmbeddedStore(Path(sys.argv[1]))
    await store.create("/session", b"", ephemeral=True)
    await store.create("/kept", b"0")
    await store.set("/kept", b"1")
    os.kill(os.getpid(), signal.SIGKILL)

trio.run(write)
"""


def test_a_kill_loses_no_change_but_ends_the_session(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    writer = subprocess.run([sys.executable, "-c", CRASHING_WRITER, str(path)], check=False)
    assert writer.returncode == -signal.SIGKILL
    store = EmbeddedStore(path)
    assert run(store.get("/kept"))[:2] == (b"1", 1)
    assert run(store.find("/session")) is None
    run(store.close())


INTERRUPTED_WRITER = """
import os, signal, sys
from pathlib import Path
import trio
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.store import Create

class Changes(list):
    def __iter__(self):
        yield Create("/half", bytes(400_000))
        yield Create("/half/child", bytes(400_000))
        if self:
            self.pop()  # The first time is the check of the size.
        else:
            os.kill(os.getpid(), signal.SIGKILL)

async def write():
    store = EmbeddedStore(Path(sys.argv[1]))
    await store.create("/kept")
    await store.multi(Changes([None]))

trio.run(write)
"""


def test_a_kill_in_a_multi_leaves_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    writer = subprocess.run([sys.executable, "-c", INTERRUPTED_WRITER, str(path)], check=False)
    assert writer.returncode == -signal.SIGKILL
    store = EmbeddedStore(path)
    assert run(store.children("/")) == ["kept"]
    run(store.close())


def test_closing_ends_the_session(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    first = EmbeddedStore(path)
    run(first.multi([Create("/stays"), Create("/session", ephemeral=True)]))
    run(first.close())
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT name FROM nodes ORDER BY name").fetchall() == [("",), ("stays",)]
    raw.close()


def test_a_second_broker_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    first = EmbeddedStore(path)
    run(first.create("/a"))
    with pytest.raises(StorageError, match="in use by another process"):
        EmbeddedStore(path)
    run(first.close())


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    path.write_bytes(b"not a database at all, " * 100)
    with pytest.raises(StorageError, match=r"metadata\.db cannot be used: file is not a database"):
        EmbeddedStore(path)


def test_a_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open database file"):
        EmbeddedStore(tmp_path / "missing" / "metadata.db")


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    run(EmbeddedStore(path).close())
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    raw.close()
    with pytest.raises(StorageError, match="newer version of kpy"):
        EmbeddedStore(path)


def test_a_file_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    with sqlite3.connect(path) as raw:
        raw.execute(
            "CREATE TABLE nodes (parent TEXT NOT NULL, name TEXT NOT NULL, data BLOB,"
            " version INTEGER NOT NULL DEFAULT 0, ephemeral INTEGER NOT NULL DEFAULT 0,"
            " PRIMARY KEY (parent, name)) WITHOUT ROWID"
        )
        raw.execute("INSERT INTO nodes VALUES ('', '', NULL, 0, 0), ('', 'a', 'data', 3, 0), ('', 'session', '', 0, 1)")
        raw.execute("PRAGMA user_version = 1")
    raw.close()
    store = EmbeddedStore(path)
    assert run(store.children("/")) == ["a"]
    assert run(store.get("/a")).version == 3
    run(store.create("/b"))
    assert run(store.get("/b")).czxid > run(store.get("/a")).czxid
    run(store.close())


def test_a_full_disk_fails_the_change_and_keeps_the_rest(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "metadata.db")
    run(store.create("/a", b"0"))
    store._db.execute(f"PRAGMA max_page_count = {store._db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(StorageError, match="full"):
        run(store.multi([Create("/b"), Create("/large", bytes(100_000))]))
    assert run(store.children("/")) == ["a"]
    assert run(store.set("/a", b"1")) == 1
    run(store.close())


def test_sqlite_syncs_every_transaction(tmp_path: Path) -> None:
    """Power cuts cannot be tested here, so the setting is: FULL (2) fsyncs the write-ahead log at each commit."""
    store = EmbeddedStore(tmp_path / "metadata.db")
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    run(store.close())
