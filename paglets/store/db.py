"""The one transaction helper: many callers' changes, one COMMIT.

A change is a function of the transaction. It reads what it decides on there, does no I/O, and has its
own SAVEPOINT, so that one failure undoes no other. `Store.write` returns after the COMMIT. Whoever
holds the writer lock commits for all who wait behind it (group commit); no thread is needed for that,
so the simulator runs this same code.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from paglets.core.errors import PagletsError, StoreDamaged
from paglets.store.migrations import migrate

T = TypeVar("T")
Change = Callable[["Tx"], T]

MAX_CHANGES_A_COMMIT = 500
"""Bounds how long the first caller of a batch waits: 500 changes of well under 1 ms."""

BUSY_TIMEOUT_SECONDS = 10.0
"""A backup tool may hold the database's lock for a moment; nobody else writes."""


class StoreFull(PagletsError):
    """The disk is full: nothing of this change was stored, and nothing else is harmed."""

    code, status = "disk_full", 507


class Tx:
    """One open transaction. `wake` names parts of the host that must look at what changed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.wakes: dict[str, None] = {}
        self.touched: dict[str, None] = {}

    def run(self, sql: str, *args: Any) -> int:
        """Execute; gives the number of rows changed."""
        return self._connection.execute(sql, args).rowcount

    def insert(self, sql: str, *args: Any) -> int:
        """Execute an INSERT; gives the rowid."""
        return self._connection.execute(sql, args).lastrowid or 0

    def run_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self._connection.executemany(sql, rows)

    def one(self, sql: str, *args: Any) -> sqlite3.Row | None:
        return cast("sqlite3.Row | None", self._connection.execute(sql, args).fetchone())

    def all(self, sql: str, *args: Any) -> list[sqlite3.Row]:
        return self._connection.execute(sql, args).fetchall()

    def each(self, sql: str, *args: Any) -> Iterator[sqlite3.Row]:
        """Rows as they are taken; nothing they are read from may be changed meanwhile."""
        return iter(self._connection.execute(sql, args))

    def value(self, sql: str, *args: Any) -> Any:
        """The first column of the first row, or None."""
        row = self._connection.execute(sql, args).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What the block did is undone when it raises."""
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
        """After the COMMIT, these parts of the host are due at once."""
        self.wakes.update(dict.fromkeys(parts))

    def touch(self, agent_id: str) -> None:
        """This paglet's state changed: parked calls on it are tried again after the COMMIT."""
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


def _full(error: BaseException) -> StoreFull | None:
    """SQLite's own word for a full disk, as ours; None for anything else."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_FULL:
        return None
    return StoreFull(f"the disk of the host's database is full ({error}); nothing was stored")


class Store:
    """A host's database: one writer connection, and readers that never write nor checkpoint.

    `on_commit(wakes, touched)` runs after each COMMIT, before the callers resume. `commit` is the seam
    where a simulation crashes. `on_fatal` is called when a COMMIT fails for another reason than a full
    disk: the host must end.
    """

    def __init__(
        self,
        writer: sqlite3.Connection,
        *,
        open_reader: Callable[[], sqlite3.Connection] | None = None,
        commit: Callable[[sqlite3.Connection], None] = _commit,
        on_fatal: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        writer.row_factory = sqlite3.Row
        writer.isolation_level = None
        self._writer = writer
        self._commit = commit
        self._on_fatal = on_fatal
        self._open_reader = open_reader
        self._readers: list[sqlite3.Connection] = []
        self._waiting: deque[_Ticket[Any]] = deque()
        self._lock = threading.RLock()
        self.on_commit: Callable[[tuple[str, ...], tuple[str, ...]], None] = lambda wakes, touched: None

    def write(self, change: Change[T]) -> T:
        """Run `change` in a transaction; give its value after the COMMIT, or raise what it raised."""
        ticket = _Ticket(change)
        self._waiting.append(ticket)
        with self._lock:
            while not ticket.done:
                self._commit_waiting()
        return ticket.result()

    def write_all(self, changes: Iterable[Change[Any]]) -> list[Any | BaseException]:
        """Run many changes in as few transactions as the bound allows; for each its value or error."""
        tickets = [_Ticket(change) for change in changes]
        self._waiting.extend(tickets)
        with self._lock:
            while not all(ticket.done for ticket in tickets):
                self._commit_waiting()
        return [ticket.value if ticket.error is None else ticket.error for ticket in tickets]

    def read(self, query: Change[T]) -> T:
        """Run `query` on a reader and give its value; it sees the last COMMIT."""
        if self._open_reader is None:
            with self._lock:
                return query(Tx(self._writer))
        try:
            reader = self._readers.pop()
        except IndexError:
            reader = self._open_reader()
            reader.row_factory = sqlite3.Row
            reader.isolation_level = None
        try:
            reader.execute("BEGIN")
            return query(Tx(reader))
        finally:
            reader.execute("ROLLBACK")
            self._readers.append(reader)

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
            if not self._writer.in_transaction:
                raise
            ticket.error = _full(error) or error
            self._writer.execute("ROLLBACK TO change")
            self._writer.execute("RELEASE change")
            return
        self._writer.execute("RELEASE change")
        tx.wakes.update(inner.wakes)
        tx.touched.update(inner.touched)

    def _undo(self, batch: list[_Ticket[Any]], error: BaseException) -> None:
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        full = _full(error)
        if full is not None:
            error = full
        elif isinstance(error, sqlite3.Error):
            self._on_fatal(error)
        for ticket in batch:
            ticket.error, ticket.done = error, True
        if not isinstance(error, Exception):
            raise error


def fitting(rows: Iterable[sqlite3.Row], column: str, most_bytes: int) -> list[sqlite3.Row]:
    """The first of the rows, at least one, as many as have at most `most_bytes` of text in `column` together."""
    chosen: list[sqlite3.Row] = []
    total = 0
    for row in rows:
        total += len(row[column].encode())
        if chosen and total > most_bytes:
            break
        chosen.append(row)
    return chosen


def open_store(path: Path, on_fatal: Callable[[BaseException], None]) -> Store:
    """The store in the file `path`, created or migrated. Raises StoreDamaged, which leaves the file as it is."""
    try:
        writer = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_SECONDS, check_same_thread=False, isolation_level=None, cached_statements=512
        )
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    try:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "mmap_size=0"):
            writer.execute(f"PRAGMA {pragma}")
        migrate(writer)
    except sqlite3.Error as error:
        writer.close()
        raise _damaged(path, error) from error
    except BaseException:
        writer.close()
        raise

    def open_reader() -> sqlite3.Connection:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False, cached_statements=512
        )

    return Store(writer, open_reader=open_reader, on_fatal=on_fatal)


def _damaged(path: Path, error: sqlite3.Error) -> StoreDamaged:
    return StoreDamaged(f"the database {path} cannot be used: {error}. It was not changed; move it aside to start anew")
