"""The transaction helper: group commit, savepoints, readers, and errors of the disk."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from paglets.core.errors import Conflict, StoreFull
from paglets.store.db import MAX_WAL_BYTES, Store, Tx, open_store
from tests.fakes.store import memory_database, memory_store
from tests.fakes.waiting import wait_until


class Counted:
    """A store in a file that counts its COMMITs and can hold them back."""

    def __init__(self, path: Path) -> None:
        self.commits = 0
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.errors: list[BaseException] = []
        open_store(path, self.errors.append).close()
        writer = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.path = path
        self.store = Store(writer, commit=self._commit, on_fatal=self.errors.append)

    def _commit(self, connection: sqlite3.Connection) -> None:
        self.began.set()
        self.gate.wait(60)
        self.commits += 1
        connection.execute("COMMIT")


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    counted = Counted(tmp_path / "paglets.db")
    yield counted
    counted.gate.set()
    counted.store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "paglets.db", lambda error: pytest.fail(f"fatal: {error!r}"))
    yield store
    store.close()


def put(key: str, value: str = "x"):  # type: ignore[no-untyped-def]
    return lambda tx: tx.run("INSERT INTO meta VALUES (?, ?)", key, value)


def keys(store: Store) -> list[str]:
    return store.read(lambda tx: [row["key"] for row in tx.all("SELECT key FROM meta ORDER BY key")])


def test_changes_that_come_while_a_commit_runs_share_the_next_one(counted: Counted) -> None:
    counted.gate.clear()
    threads = [threading.Thread(target=counted.store.write, args=(put("first"),))]
    threads[0].start()
    assert counted.began.wait(60)
    threads += [threading.Thread(target=counted.store.write, args=(put(f"k{n:02}"),)) for n in range(40)]
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: len(counted.store._waiting) == 40, what="forty changes to wait")
    counted.gate.set()
    for thread in threads:
        thread.join(60)
    assert counted.commits == 2
    assert len(keys(counted.store)) == 41


def test_a_caller_resumes_after_the_commit_and_not_before(counted: Counted) -> None:
    counted.gate.clear()
    resumed = threading.Event()

    def write() -> None:
        counted.store.write(put("a"))
        resumed.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert counted.began.wait(60)
    assert not resumed.is_set()
    with sqlite3.connect(counted.path) as other:
        assert other.execute("SELECT count(*) FROM meta").fetchone() == (0,)
    other.close()
    counted.gate.set()
    assert resumed.wait(60)
    thread.join(60)


def test_a_change_that_fails_undoes_itself_and_no_other(store: Store) -> None:
    def fails(tx: Tx) -> None:
        put("half")(tx)
        raise Conflict("no")

    results = store.write_all([put("a"), fails, put("b")])
    assert keys(store) == ["a", "b"]
    assert results[0] == 1
    assert results[2] == 1
    assert isinstance(results[1], Conflict)
    with pytest.raises(Conflict):
        store.write(fails)


def test_a_change_that_fails_in_sql_undoes_itself_and_no_other(store: Store) -> None:
    results = store.write_all([put("a"), put("a"), put("b")])
    assert isinstance(results[1], sqlite3.IntegrityError)
    assert keys(store) == ["a", "b"]


def test_a_change_that_fails_wakes_nobody(store: Store) -> None:
    told: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    store.on_commit = lambda wakes, touched: told.append((wakes, touched))

    def fails(tx: Tx) -> None:
        tx.wake("bad")
        tx.touch("bad")
        raise Conflict("no")

    def works(tx: Tx) -> None:
        tx.wake("b", "a", "b")
        tx.touch("p1")

    store.write_all([fails, works])
    assert told == [(("b", "a"), ("p1",))]


def test_parts_are_woken_before_the_caller_resumes(store: Store) -> None:
    order: list[str] = []
    store.on_commit = lambda wakes, touched: order.append("woken")
    store.write(lambda tx: tx.wake("a"))
    order.append("resumed")
    assert order == ["woken", "resumed"]


def test_more_changes_than_a_commit_takes_go_in_several(counted: Counted) -> None:
    counted.store.write_all(put(f"k{n}") for n in range(1_100))
    assert counted.commits == 3


def test_readers_see_commits_and_nothing_else(store: Store) -> None:
    seen: list[list[str]] = []

    def change(tx: Tx) -> None:
        put("a")(tx)
        # Readers use another thread, because this one holds the writer's lock.
        thread = threading.Thread(target=lambda: seen.append(keys(store)))
        thread.start()
        thread.join(60)

    store.write(change)
    assert seen == [[]]
    assert keys(store) == ["a"]


def test_a_read_is_of_one_moment(store: Store) -> None:
    def query(tx: Tx) -> tuple[int, int]:
        before = tx.value("SELECT count(*) FROM meta")
        store.write(put("a"))
        return before, tx.value("SELECT count(*) FROM meta")

    assert store.read(query) == (0, 0)


def test_the_wal_file_is_cut_to_its_limit_after_a_large_transaction(tmp_path: Path) -> None:
    store = open_store(tmp_path / "paglets.db", lambda error: pytest.fail(f"fatal: {error!r}"))
    wal = tmp_path / "paglets.db-wal"
    insert = "INSERT INTO meta VALUES (?, hex(zeroblob(?)))"
    store.write(lambda tx: tx.run(insert, "large", MAX_WAL_BYTES // 2 + 1_000_000))
    assert wal.stat().st_size > MAX_WAL_BYTES
    for number in range(3):
        store.write(lambda tx, key=f"small-{number}": tx.run(insert, key, 10))
    assert wal.stat().st_size <= MAX_WAL_BYTES
    store.close()


def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store.read(put("a"))
    assert keys(store) == []


def test_a_reader_whose_query_failed_is_used_again(store: Store) -> None:
    for _ in range(3):
        with pytest.raises(Conflict):
            store.read(lambda tx: (_ for _ in ()).throw(Conflict("no")))
    assert keys(store) == []
    assert len(store._readers) == 1


def test_a_savepoint_undoes_its_block_and_nothing_before_it(store: Store) -> None:
    def change(tx: Tx) -> None:
        put("before")(tx)
        with contextlib.suppress(Conflict), tx.savepoint():
            put("within")(tx)
            with tx.savepoint():
                put("inner")(tx)
            raise Conflict("no")
        with tx.savepoint():
            put("after")(tx)

    store.write(change)
    assert keys(store) == ["after", "before"]


def test_a_full_disk_fails_the_change_and_harms_nothing_else(tmp_path: Path) -> None:
    fatal: list[BaseException] = []
    store = open_store(tmp_path / "paglets.db", fatal.append)
    pages = store.write(lambda tx: tx.value("PRAGMA page_count"))
    store.write(put("there"))
    store._writer.execute(f"PRAGMA max_page_count={pages + 5}")
    with pytest.raises(StoreFull, match="full"):
        store.write(put("large", "x" * 200_000))
    store.write(put("small"))
    assert keys(store) == ["small", "there"]
    assert fatal == []
    assert StoreFull("").status == 507
    store.close()


def test_a_full_disk_that_ends_only_one_statement_is_told_as_such_too(tmp_path: Path) -> None:
    store = open_store(tmp_path / "paglets.db", lambda error: pytest.fail(f"fatal: {error!r}"))
    pages = store.write(lambda tx: tx.value("PRAGMA page_count"))
    store._writer.execute(f"PRAGMA max_page_count={pages + 5}")
    # A statement of many rows has a journal of its own, so that SQLite undoes it and not the transaction.
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 90)"
    results = store.write_all(
        [
            put("small"),
            lambda tx: tx.run(f"{many} INSERT INTO meta SELECT 'k' || (i % 80) || i, hex(zeroblob(2000)) FROM n"),
        ]
    )
    assert isinstance(results[1], StoreFull)
    store.close()


def test_a_commit_that_fails_ends_the_host_and_the_change_is_not_there() -> None:
    fatal: list[BaseException] = []
    breaks = True

    def commit(connection: sqlite3.Connection) -> None:
        if breaks:
            raise sqlite3.OperationalError("disk I/O error")
        connection.execute("COMMIT")

    store = Store(memory_database(), commit=commit, on_fatal=fatal.append)
    with pytest.raises(sqlite3.OperationalError):
        store.write(put("a"))
    assert len(fatal) == 1
    breaks = False
    assert keys(store) == []


def test_a_value_and_a_row_that_are_not_there_are_none() -> None:
    store = memory_store()
    assert store.read(lambda tx: tx.value("SELECT value FROM meta WHERE key = 'no'")) is None
    assert store.read(lambda tx: tx.one("SELECT * FROM meta")) is None
    assert store.read(lambda tx: list(tx.each("SELECT * FROM meta"))) == []


def test_an_insert_gives_the_number_of_its_row() -> None:
    store = memory_store()
    insert = "INSERT INTO events (at, kind, subject, text) VALUES (1, 'k', 's', 't')"
    assert [store.write(lambda tx: tx.insert(insert)) for _ in range(2)] == [1, 2]
