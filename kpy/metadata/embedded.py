"""The metadata store of a single node: one SQLite file in the data directory, or memory only.

Durability: a change has been fsynced when its method returns (WAL with synchronous=FULL: one fsync a transaction, 0.2
ms where this was chosen, against 0.4 ms for a rollback journal), so it survives kill -9 and a power cut. The file is
locked for as long as it is open: two brokers cannot share it. While it is open, and after a crash, the newest changes
stand in the `-wal` file beside it, so copy both.

Nodes are rows keyed by (parent, name): `children` reads one run of neighbouring rows, `tree` two.

The methods are coroutines because a MetadataStore's are; none of them ever waits. There is no session that could expire
here: ephemeral nodes go when the store is closed, or opened again after a crash.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Sequence
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
    check_multi_size,
    check_size,
    ignore_path,
    ignore_session,
    validate_path,
)

SCHEMA_VERSION = 2

_SCHEMA_1 = """
CREATE TABLE nodes (
    parent TEXT NOT NULL,
    name TEXT NOT NULL,
    data BLOB,
    version INTEGER NOT NULL DEFAULT 0,
    ephemeral INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID
"""

_SCHEMA_2 = """
ALTER TABLE nodes ADD COLUMN czxid INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN created_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN created_children INTEGER NOT NULL DEFAULT 0;
CREATE TABLE changes (zxid INTEGER NOT NULL);
INSERT INTO changes VALUES (0);
"""

SESSION_ID = 1
"""Of whoever has the store open: there is one at a time."""

NODE = "data, version, czxid, ephemeral, created_ms"
"""The columns of a Node; an ephemeral one is of session 1."""

Aspect = tuple[str, bool]
"""What can be watched: a path, and whether its children or its data are meant."""
DATA, CHILDREN = False, True


class EmbeddedStore:
    """A MetadataStore in the SQLite file `path`, created if missing; None keeps everything in memory.

    Raises StorageError when the file cannot be used, and from any method when the disk fails.
    """

    def __init__(self, path: Path | None, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._where = "memory" if path is None else str(path)
        self._now_ms = now_ms
        self._watched: set[Aspect] = set()
        self.on_change: Callable[[str], None] = ignore_path
        self.on_session: Callable[[], None] = ignore_session
        with self._storage_errors():
            self._db = sqlite3.connect(":memory:" if path is None else path, timeout=0, isolation_level=None)
        try:
            with self._storage_errors():
                self._open()
        except StorageError:
            self._db.close()
            raise

    @property
    def session_id(self) -> int:
        return SESSION_ID

    async def get(self, path: str, *, watch: bool = False) -> Node:
        node = self._get(path)
        if watch:
            self._watched.add((path, DATA))
        return node

    async def find(self, path: str, *, watch: bool = False) -> Node | None:
        node = self._find(path)
        if watch:
            self._watched.add((path, DATA))
        return node

    async def find_all(self, paths: Iterable[str], *, watch: bool = False) -> list[Node | None]:
        return [await self.find(path, watch=watch) for path in paths]

    async def children(self, path: str, *, watch: bool = False) -> list[str]:
        names = self._children(path)
        if watch:
            self._watched.add((path, CHILDREN))
        return names

    async def tree(self, path: str) -> dict[str, Node]:
        nodes = {path: self._get(path)}
        prefix = _as_parent(path)
        with self._storage_errors():
            # "0" is the character after "/", so the range holds every parent that starts with "<path>/".
            rows = self._db.execute(
                f"SELECT parent, name, {NODE} FROM nodes"
                " WHERE (parent = ? OR (parent >= ? || '/' AND parent < ? || '0')) AND name != ''",
                (prefix, prefix, prefix),
            )
            for parent, name, *columns in rows:
                nodes[f"{parent}/{name}"] = Node(*columns)
        return nodes

    async def create(
        self, path: str, data: bytes | None = None, *, ephemeral: bool = False, sequential: bool = False
    ) -> str:
        changed: dict[Aspect, None] = {}
        with self._transaction():
            created = self._create(Create(path, data, ephemeral, sequential), changed)
        self._notify(changed)
        return created

    async def set(self, path: str, data: bytes | None, version: int = ANY_VERSION) -> int:
        changed: dict[Aspect, None] = {}
        with self._transaction():
            new_version = self._set(SetData(path, data, version), changed)
        self._notify(changed)
        return new_version

    async def delete(self, path: str, version: int = ANY_VERSION) -> None:
        await self.multi([Delete(path, version)])

    async def multi(self, ops: Sequence[Op]) -> None:
        check_multi_size(ops)
        changed: dict[Aspect, None] = {}
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

    async def close(self) -> None:
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
        if schema_version < SCHEMA_VERSION:
            self._db.execute("BEGIN IMMEDIATE")
            if schema_version == 0:
                self._db.execute(_SCHEMA_1)
                self._db.execute("INSERT INTO nodes (parent, name) VALUES ('', '')")
            for statement in filter(None, map(str.strip, _SCHEMA_2.split(";"))):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._db.execute("COMMIT")
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
            row = self._db.execute(f"SELECT {NODE} FROM nodes WHERE parent = ? AND name = ?", (parent, name)).fetchone()
        return None if row is None else Node(*row)

    def _get(self, path: str) -> Node:
        node = self._find(path)
        if node is None:
            raise NoNode(path)
        return node

    def _children(self, path: str) -> list[str]:
        self._get(path)
        with self._storage_errors():
            rows = self._db.execute(
                "SELECT name FROM nodes WHERE parent = ? AND name != '' ORDER BY name", (_as_parent(path),)
            )
            return [name for (name,) in rows]

    def _check(self, path: str, version: int) -> int:
        """The node's version, if it is the expected one."""
        current = self._get(path).version
        if version not in (ANY_VERSION, current):
            raise BadVersion(path)
        return current

    def _create(self, op: Create, changed: dict[Aspect, None]) -> str:
        path = op.path
        validate_path(path)
        check_size(path, op.data)
        parent, _, name = path.rpartition("/")
        with self._storage_errors():
            grandparent, _, parent_name = parent.rpartition("/")
            row = self._db.execute(
                "SELECT created_children FROM nodes WHERE parent = ? AND name = ?", (grandparent, parent_name)
            ).fetchone()
            if op.sequential and row is not None:
                path, name = f"{path}{row[0]:010d}", f"{name}{row[0]:010d}"
            if self._find(path) is not None:
                raise NodeExists(path)
            if row is None:
                raise NoNode(parent)
            self._db.execute(
                f"INSERT INTO nodes (parent, name, {NODE}) SELECT ?, ?, ?, 0, zxid, ?, ? FROM changes",
                (parent, name, op.data, op.ephemeral * SESSION_ID, self._now_ms()),
            )
            self._db.execute(
                "UPDATE nodes SET created_children = created_children + 1 WHERE parent = ? AND name = ?",
                (grandparent, parent_name),
            )
        changed[path, DATA] = changed[parent or "/", CHILDREN] = None
        return path

    def _set(self, op: SetData, changed: dict[Aspect, None]) -> int:
        version = self._check(op.path, op.version) + 1
        check_size(op.path, op.data)
        parent, _, name = op.path.rpartition("/")
        with self._storage_errors():
            self._db.execute(
                "UPDATE nodes SET data = ?, version = ? WHERE parent = ? AND name = ?", (op.data, version, parent, name)
            )
        changed[op.path, DATA] = None
        return version

    def _delete(self, op: Delete, changed: dict[Aspect, None]) -> None:
        self._check(op.path, op.version)
        if op.path == "/" or self._children(op.path):
            raise NotEmpty(op.path)
        parent, _, name = op.path.rpartition("/")
        with self._storage_errors():
            self._db.execute("DELETE FROM nodes WHERE parent = ? AND name = ?", (parent, name))
        changed[op.path, DATA] = changed[op.path, CHILDREN] = changed[parent or "/", CHILDREN] = None

    def _notify(self, changed: Iterable[Aspect]) -> None:
        """Tells of what was watched and has changed: once, then no more."""
        seen = [aspect for aspect in changed if aspect in self._watched]
        self._watched.difference_update(seen)
        for path in dict.fromkeys(path for path, _ in seen):
            self.on_change(path)

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        with self._storage_errors():
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("UPDATE changes SET zxid = zxid + 1")
        try:
            yield
            with self._storage_errors():
                self._db.execute("COMMIT")
        finally:
            # Where COMMIT was not reached. SQLite has rolled back by itself after some errors, a full disk for one.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

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
