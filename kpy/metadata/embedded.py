"""The metadata store of a single node: one SQLite file in the data directory, or memory only.

Durability: a change has been fsynced when its method returns (WAL with synchronous=FULL: one fsync a transaction, 0.2
ms where this was chosen, against 0.4 ms for a rollback journal), so it survives kill -9 and a power cut. The file is
locked for as long as it is open: two brokers cannot share it. While it is open, and after a crash, the newest changes
stand in the `-wal` file beside it, so copy both.

Nodes are rows keyed by (parent, name): `children` reads one run of neighbouring rows, `tree` two.

There is no session that could expire here: ephemeral nodes go when the store is closed, or opened again after a crash.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from kpy.errors import StorageError
from kpy.metadata.store import (
    ANY_VERSION,
    BadVersion,
    Check,
    Create,
    Delete,
    Node,
    NodeExists,
    NoNode,
    NotEmpty,
    Op,
    SetData,
    check_size,
    validate_path,
)

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE nodes (
    parent TEXT NOT NULL,
    name TEXT NOT NULL,
    data BLOB,
    version INTEGER NOT NULL DEFAULT 0,
    ephemeral INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID
"""


class EmbeddedStore:
    """A MetadataStore in the SQLite file `path`, created if missing; None keeps everything in memory.

    Raises StorageError when the file cannot be used, and from any method when the disk fails.
    """

    def __init__(self, path: Path | None) -> None:
        self._where = "memory" if path is None else str(path)
        self._watches: dict[str, list[Callable[[str], None]]] = {}
        with self._storage_errors():
            self._db = sqlite3.connect(":memory:" if path is None else path, timeout=0, isolation_level=None)
        try:
            with self._storage_errors():
                self._open()
        except StorageError:
            self._db.close()
            raise

    def get(self, path: str) -> Node:
        node = self._find(path)
        if node is None:
            raise NoNode(path)
        return node

    def exists(self, path: str) -> bool:
        return self._find(path) is not None

    def children(self, path: str) -> list[str]:
        self.get(path)
        with self._storage_errors():
            rows = self._db.execute(
                "SELECT name FROM nodes WHERE parent = ? AND name != '' ORDER BY name", (_as_parent(path),)
            )
            return [name for (name,) in rows]

    def tree(self, path: str) -> dict[str, Node]:
        nodes = {path: self.get(path)}
        prefix = _as_parent(path)
        with self._storage_errors():
            # "0" is the character after "/", so the range holds every parent that starts with "<path>/".
            rows = self._db.execute(
                "SELECT parent, name, data, version FROM nodes"
                " WHERE (parent = ? OR (parent >= ? || '/' AND parent < ? || '0')) AND name != ''",
                (prefix, prefix, prefix),
            )
            for parent, name, data, version in rows:
                nodes[f"{parent}/{name}"] = Node(data, version)
        return nodes

    def create(self, path: str, data: bytes | None = None, *, ephemeral: bool = False) -> None:
        self.multi([Create(path, data, ephemeral)])

    def set(self, path: str, data: bytes | None, version: int = ANY_VERSION) -> int:
        changed: dict[str, None] = {}
        with self._transaction():
            new_version = self._set(SetData(path, data, version), changed)
        self._notify(changed)
        return new_version

    def delete(self, path: str, version: int = ANY_VERSION) -> None:
        self.multi([Delete(path, version)])

    def multi(self, ops: Iterable[Op]) -> None:
        changed: dict[str, None] = {}
        with self._transaction():
            for op in ops:
                match op:
                    case Create():
                        self._create(op, changed)
                    case SetData():
                        self._set(op, changed)
                    case Delete():
                        self._delete(op, changed)
                    case Check():
                        self._check(op.path, op.version)
        self._notify(changed)

    def watch(self, path: str, callback: Callable[[str], None]) -> None:
        validate_path(path)
        self._watches.setdefault(path, []).append(callback)

    def close(self) -> None:
        with self._storage_errors(), contextlib.closing(self._db):
            if not self._closed():
                self._end_old_sessions()

    def _open(self) -> None:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        (schema_version,) = self._db.execute("PRAGMA user_version").fetchone()
        if schema_version > SCHEMA_VERSION:
            raise StorageError(f"The metadata in {self._where} was written by a newer version of kpy.")
        if schema_version == 0:
            with self._transaction():
                self._db.execute(_SCHEMA)
                self._db.execute("INSERT INTO nodes (parent, name) VALUES ('', '')")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        else:
            self._end_old_sessions()

    def _end_old_sessions(self) -> None:
        # A DELETE that finds nothing writes nothing, so a clean start costs no fsync.
        self._db.execute("DELETE FROM nodes WHERE ephemeral = 1")

    def _closed(self) -> bool:
        try:
            self._db.total_changes  # noqa: B018 - reading it is how the sqlite3 module tells a closed connection
        except sqlite3.ProgrammingError:
            return True
        return False

    def _find(self, path: str) -> Node | None:
        validate_path(path)
        parent, _, name = path.rpartition("/")
        with self._storage_errors():
            row = self._db.execute(
                "SELECT data, version FROM nodes WHERE parent = ? AND name = ?", (parent, name)
            ).fetchone()
        return None if row is None else Node(*row)

    def _check(self, path: str, version: int) -> int:
        """The node's version, if it is the expected one."""
        current = self.get(path).version
        if version not in (ANY_VERSION, current):
            raise BadVersion(path)
        return current

    def _create(self, op: Create, changed: dict[str, None]) -> None:
        if self.exists(op.path):
            raise NodeExists(op.path)
        check_size(op.path, op.data)
        parent, _, name = op.path.rpartition("/")
        if not self.exists(parent or "/"):
            raise NoNode(parent)
        with self._storage_errors():
            self._db.execute(
                "INSERT INTO nodes (parent, name, data, ephemeral) VALUES (?, ?, ?, ?)",
                (parent, name, op.data, op.ephemeral),
            )
        changed[op.path] = changed[parent or "/"] = None

    def _set(self, op: SetData, changed: dict[str, None]) -> int:
        version = self._check(op.path, op.version) + 1
        check_size(op.path, op.data)
        parent, _, name = op.path.rpartition("/")
        with self._storage_errors():
            self._db.execute(
                "UPDATE nodes SET data = ?, version = ? WHERE parent = ? AND name = ?", (op.data, version, parent, name)
            )
        changed[op.path] = None
        return version

    def _delete(self, op: Delete, changed: dict[str, None]) -> None:
        self._check(op.path, op.version)
        if op.path == "/" or self.children(op.path):
            raise NotEmpty(op.path)
        parent, _, name = op.path.rpartition("/")
        with self._storage_errors():
            self._db.execute("DELETE FROM nodes WHERE parent = ? AND name = ?", (parent, name))
        changed[op.path] = changed[parent or "/"] = None

    def _notify(self, changed: Iterable[str]) -> None:
        for path in changed:
            for callback in self._watches.get(path, ()):
                callback(path)

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        with self._storage_errors():
            self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            with self._storage_errors():
                self._db.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors, a full disk for one.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _storage_errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise StorageError(f"The metadata in {self._where} is in use by another process.") from error
            raise StorageError(f"The metadata in {self._where} cannot be used: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise StorageError(f"The metadata in {self._where} cannot be used: {error}.") from error


def _as_parent(path: str) -> str:
    """A path as its children's rows have it: the root is the empty string there, for "/a" is parent "" and name "a"."""
    return "" if path == "/" else path
