"""The transactions of the store. The changes of many callers share one COMMIT.

A change is a function that gets the transaction. It must read its input in that transaction and do no I/O. It runs in
its own SAVEPOINT, so that its failure does not undo other changes. `Store.write` returns after the COMMIT. The holder
of the writer lock commits for all waiting callers (group commit). This needs no extra thread, so the simulator runs the
same code.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from paglets.core.content import no_room, write_all
from paglets.core.errors import PagletsError, StoreFull, StoreLocked, StoreTransient
from paglets.store.inspection import (
    BUSY_TIMEOUT_SECONDS,
    check,
    check_identity,
    connect_read_only,
    inspect,
    is_checkpointed,
    size_of,
)
from paglets.store.migrations.steps import migrate
from paglets.store.sqlite_errors import ERROR_RULES, ErrorKind, kind_of, to_paglets_error

T = TypeVar("T")
Change = Callable[["Tx"], T]

MAX_CHANGES_A_COMMIT = 500
"""The maximum number of changes that share a COMMIT.

It bounds the time that the first caller waits, because each change takes well under 1 ms.
"""

CHECKED_BYTES = 1 << 30
"""The maximum size of a database that is checked at each start.

The check takes about 3 s for this size (measured: 330 MiB/s; 0.3 s for 100,000 jobs). Damage in a larger database is
found when the damaged page is read. `paglets doctor` checks a database of any size.
"""

PROBE_BYTES = 256 << 10
PROBE_BEYOND_BYTES = 4 << 20
"""The number of bytes by which a probe file is longer than the database or its WAL, whichever is longer.

Only its first PROBE_BYTES and its last byte are written, so the rest needs no space. This fails if the disk is full or
a limit of the file size is reached.
"""

MAX_WAL_BYTES = 64 << 20
"""The size to which SQLite cuts the WAL file when it starts to overwrite it.

A large transaction, such as a submission of 50,000 jobs, makes the file longer. Without a limit it never shrinks.
"""


class Tx:
    """An open transaction, which also collects the parts to wake and the changed paglets."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.wakes: dict[str, None] = {}
        self.touched: dict[str, None] = {}

    def run(self, sql: str, *args: Any) -> int:
        """Execute a statement and return the number of changed rows."""
        return self._connection.execute(sql, args).rowcount

    def insert(self, sql: str, *args: Any) -> int:
        """Execute an INSERT and return the rowid of the new row."""
        return self._connection.execute(sql, args).lastrowid or 0

    def run_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self._connection.executemany(sql, rows)

    def one(self, sql: str, *args: Any) -> sqlite3.Row | None:
        return cast("sqlite3.Row | None", self._connection.execute(sql, args).fetchone())

    def all(self, sql: str, *args: Any) -> list[sqlite3.Row]:
        return self._connection.execute(sql, args).fetchall()

    def each(self, sql: str, *args: Any) -> Iterator[sqlite3.Row]:
        """Yield the rows one by one. The tables that the query reads must not change during the iteration."""
        return iter(self._connection.execute(sql, args))

    def value(self, sql: str, *args: Any) -> Any:
        """Return the first column of the first row, or None."""
        row = self._connection.execute(sql, args).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo the changes of the block if it raises."""
        self._connection.execute("SAVEPOINT step")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO step")
                self._connection.execute("RELEASE step")
            raise
        self._connection.execute("RELEASE step")

    def wake(self, *parts: str) -> None:
        """Make these parts of the host run at once after the COMMIT."""
        self.wakes.update(dict.fromkeys(parts))

    def touch(self, agent_id: str) -> None:
        """Mark this paglet as changed: after the COMMIT, parked requests are retried and its status is reported."""
        self.touched[agent_id] = None


class _Ticket(Generic[T]):
    def __init__(self, change: Change[T]) -> None:
        self.change = change
        self.value: T | None = None
        self.error: BaseException | None = None
        self.done = False

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self.value)


def _commit(connection: sqlite3.Connection) -> None:
    connection.execute("COMMIT")


class Store:
    """The database of a host: one writer connection, and readers that never write or checkpoint.

    `on_commit(wakes, touched)` runs after each COMMIT, before the callers resume. A simulation replaces `commit` to
    crash during it. `on_fatal` is called if a COMMIT fails with an error that is not transient, or if the database is
    damaged. The host must then stop, and nothing more is stored. `is_full` returns True if the disk is full or a quota
    or file size limit is reached. SQLite may report these causes only as an I/O error.
    """

    def __init__(
        self,
        writer: sqlite3.Connection,
        *,
        open_reader: Callable[[], sqlite3.Connection] | None = None,
        commit: Callable[[sqlite3.Connection], None] = _commit,
        on_fatal: Callable[[BaseException], None] = lambda error: None,
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        writer.row_factory = sqlite3.Row
        writer.isolation_level = None
        self._writer = writer
        self._commit = commit
        self._on_fatal = on_fatal
        self._is_full = is_full
        self._dead: sqlite3.Error | None = None
        self._open_reader = open_reader
        self._readers: list[sqlite3.Connection] = []
        self._waiting: deque[_Ticket[Any]] = deque()
        self._lock = threading.RLock()
        self.on_commit: Callable[[tuple[str, ...], tuple[str, ...]], None] = lambda wakes, touched: None

    def write(self, change: Change[T]) -> T:
        """Run `change` in a transaction. Return its value after the COMMIT, or raise its error."""
        ticket = _Ticket(change)
        self._waiting.append(ticket)
        with self._lock:
            while not ticket.done:
                self._commit_waiting()
        return ticket.result()

    def write_all(self, changes: Iterable[Change[Any]]) -> list[Any | BaseException]:
        """Run many changes in as few transactions as MAX_CHANGES_A_COMMIT allows. Return the value or error of each."""
        tickets = [_Ticket(change) for change in changes]
        self._waiting.extend(tickets)
        with self._lock:
            while not all(ticket.done for ticket in tickets):
                self._commit_waiting()
        return [ticket.value if ticket.error is None else ticket.error for ticket in tickets]

    def read(self, query: Change[T]) -> T:
        """Run `query` on a reader connection and return its value. It sees the last COMMIT."""
        if self._open_reader is None:
            with self._lock:
                return query(Tx(self._writer))
        reader: sqlite3.Connection | None = None
        try:
            reader = self._reader()
            reader.execute("BEGIN")
            return query(Tx(reader))
        except sqlite3.Error as error:
            transient = self._transient(error)
            if transient is not None:
                raise transient from error
            if kind_of(error) in (ErrorKind.MALFORMED, ErrorKind.IO_ERROR):
                self._die(error)
            raise
        finally:
            if reader is not None:
                if reader.in_transaction:
                    reader.execute("ROLLBACK")
                self._readers.append(reader)

    def _reader(self) -> sqlite3.Connection:
        """Return an unused reader connection. Raises sqlite3.Error."""
        try:
            return self._readers.pop()
        except IndexError:
            assert self._open_reader is not None
            reader = self._open_reader()
            reader.row_factory = sqlite3.Row
            reader.isolation_level = None
            return reader

    @property
    def is_malformed(self) -> bool:
        """True if a query or change has found damage in the database since it was opened."""
        return self._dead is not None and kind_of(self._dead) is ErrorKind.MALFORMED

    def close(self) -> None:
        with self._lock:
            while self._readers:
                self._readers.pop().close()
            self._writer.close()

    def _commit_waiting(self) -> None:
        batch: list[_Ticket[Any]] = []
        while self._waiting and len(batch) < MAX_CHANGES_A_COMMIT:
            batch.append(self._waiting.popleft())
        tx = Tx(self._writer)
        try:
            if self._dead is not None:
                raise self._dead
            self._writer.execute("BEGIN IMMEDIATE")
            for ticket in batch:
                self._run_in_savepoint(tx, ticket)
            self._commit(self._writer)
        except BaseException as error:
            self._undo(batch, error)
            return
        for ticket in batch:
            ticket.done = True
        self.on_commit(tuple(tx.wakes), tuple(tx.touched))

    def _run_in_savepoint(self, tx: Tx, ticket: _Ticket[Any]) -> None:
        inner = Tx(self._writer)
        self._writer.execute("SAVEPOINT change")
        try:
            ticket.value = ticket.change(inner)
        except Exception as error:
            transient = self._transient(error)
            if not self._writer.in_transaction or (transient is None and ERROR_RULES[kind_of(error)].ends):
                raise
            ticket.error = transient or error
            self._writer.execute("ROLLBACK TO change")
            self._writer.execute("RELEASE change")
            return
        self._writer.execute("RELEASE change")
        tx.wakes.update(inner.wakes)
        tx.touched.update(inner.touched)

    def _undo(self, batch: list[_Ticket[Any]], error: BaseException) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        transient = self._transient(error)
        if transient is not None:
            error = transient
        elif isinstance(error, sqlite3.Error):
            self._die(error)
        for ticket in batch:
            ticket.error, ticket.done = error, True
        if not isinstance(error, Exception):
            raise error

    def _transient(self, error: BaseException) -> StoreTransient | None:
        """Map a transient SQLite error (disk full, locked) to StoreTransient. Return None for any other error."""
        kind = kind_of(error)
        if kind is ErrorKind.FULL or (kind is ErrorKind.IO_ERROR and self._is_full()):
            return StoreFull(f"the disk of the host's database is full ({error}); nothing was stored")
        if kind is ErrorKind.LOCKED:
            return StoreLocked(f"another program has locked the host's database ({error}); nothing was stored")
        return None

    def _die(self, error: sqlite3.Error) -> None:
        if self._dead is None:
            self._dead = error
            self._on_fatal(error)


def open_store(path: Path, on_fatal: Callable[[BaseException], None], store_id: str = "") -> Store:
    """Open the store in the file `path`, after creating or migrating it. Raises StoreDamaged, StoreTransient.

    If this function raises, the stored data is unchanged. The database must have the id `store_id`, unless that is "".
    `on_fatal` is as in `Store`, but gets an error that names the file and the next step.
    """
    try:
        check_identity(path, inspect(path, immutable=is_checkpointed(path)), store_id)
        if 0 < size_of(path) <= CHECKED_BYTES:
            check(path)
        writer = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_SECONDS, check_same_thread=False, isolation_level=None, cached_statements=512
        )
    except sqlite3.Error as error:
        raise _open_error(path, error) from error
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "mmap_size=0"):
            writer.execute(f"PRAGMA {pragma}")
        writer.execute(f"PRAGMA journal_size_limit={MAX_WAL_BYTES}")
        migrate(writer)
    except sqlite3.Error as error:
        writer.close()
        raise _open_error(path, error) from error
    except BaseException:
        writer.close()
        raise
    return Store(
        writer,
        open_reader=lambda: connect_read_only(path),
        on_fatal=lambda error: on_fatal(to_paglets_error(path, error)),
        is_full=lambda: _has_no_room(path),
    )


def _open_error(path: Path, error: sqlite3.Error) -> PagletsError:
    """Map an SQLite error at the opening of a database. SQLite may report a full disk as a different error."""
    kind = kind_of(error)
    if kind in (ErrorKind.IO_ERROR, ErrorKind.NOT_WRITABLE) and _has_no_room(path):
        kind = ErrorKind.FULL
    return to_paglets_error(path, error, kind)


def _has_no_room(path: Path) -> bool:
    """Return True if the disk has no space for a probe file that is a little longer than the database."""
    probe = path.with_name(f"{path.name}.probe")
    try:
        files = [path, path.with_name(f"{path.name}-wal")]
        reach = max(each.stat().st_size for each in files if each.exists()) + PROBE_BEYOND_BYTES
        with os.fdopen(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            write_all(file.fileno(), bytes(PROBE_BYTES))
            os.fsync(file.fileno())
            os.lseek(file.fileno(), reach, os.SEEK_SET)
            write_all(file.fileno(), b"0")
    except OSError as error:
        return no_room(error, path.parent) is not None
    finally:
        with suppress(OSError):
            probe.unlink()
    return False
