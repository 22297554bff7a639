"""Databases with rows that only a companion file has."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paglets.core.databases import (
    HEADER,
    TRIES_AT_REST,
    WAIT_SECONDS,
    copy_database,
    database_at,
    remove_file,
    whole_file,
)
from paglets.core.errors import FileChanged, Invalid
from tests.fakes.clock import FakeClock

ROWS = 1000
NAME = "a ?#%20\u00fc.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "user"
    made.mkdir()
    return made


@pytest.fixture
def connection(folder: Path) -> Iterator[sqlite3.Connection]:
    """An open connection to a database whose rows are in its -wal file."""
    with closing(sqlite3.connect(folder / NAME)) as made:
        made.execute("PRAGMA journal_mode=WAL")
        with made:
            made.execute("CREATE TABLE t (n)")
            made.executemany("INSERT INTO t VALUES (?)", ((n,) for n in range(ROWS)))
        yield made


def rows_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as found:
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(found.execute("SELECT count(*) FROM t").fetchone()[0])


def copied(path: Path, target: Path) -> Path:
    copy_database(path, target)
    assert [each.name for each in target.parent.iterdir() if each.name.startswith(target.name)] == [target.name]
    return target


def killed_in_a_transaction(path: Path) -> None:
    """A database with committed rows whose process died during a transaction that had reached the file."""
    code = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1])\n"
        "c.execute('CREATE TABLE t (n)')\n"
        f"c.executemany('INSERT INTO t VALUES (?)', ((n,) for n in range({ROWS})))\n"
        "c.commit()\n"
        "c.execute('PRAGMA cache_size=5')\n"
        "c.executemany('INSERT INTO t VALUES (?)', (('x' * 500,) for n in range(2000)))\n"
        "c.execute('UPDATE t SET n = 1')\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], timeout=60)


def test_rows_of_an_open_connection_are_in_the_copy(
    connection: sqlite3.Connection, folder: Path, tmp_path: Path
) -> None:
    assert rows_in(copied(folder / NAME, tmp_path / "copy")) == ROWS
    with connection:
        connection.execute("INSERT INTO t VALUES (1)")
    assert rows_in(copied(folder / NAME, tmp_path / "next")) == ROWS + 1


def test_the_copy_is_what_closing_the_connection_leaves(
    connection: sqlite3.Connection, folder: Path, tmp_path: Path
) -> None:
    copy = copied(folder / NAME, tmp_path / "copy").read_bytes()
    connection.close()
    assert copy == (folder / NAME).read_bytes()


def test_rows_that_are_not_committed_are_not_in_the_copy(
    connection: sqlite3.Connection, folder: Path, tmp_path: Path
) -> None:
    connection.execute("INSERT INTO t VALUES (1)")
    assert rows_in(copied(folder / NAME, tmp_path / "copy")) == ROWS
    connection.commit()
    assert rows_in(folder / NAME) == ROWS + 1


def test_a_transaction_that_a_process_died_in_is_rolled_back_in_the_copy_only(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    killed_in_a_transaction(path)
    before = path.read_bytes()
    assert rows_in(copied(path, tmp_path / "copy")) == ROWS
    assert (path.read_bytes(), os.path.getsize(f"{path}-journal") > 0) == (before, True)


def test_a_database_that_another_process_has_locked_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "locked.db"
    code = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode=WAL')\n"
        "c.execute('PRAGMA locking_mode=EXCLUSIVE')\n"
        "c.execute('CREATE TABLE t AS SELECT 1 AS n')\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        "c.execute('INSERT INTO t VALUES (2)')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as locking:
        assert locking.stdout is not None
        assert locking.stdout.readline() == b"locked\n"
        assert rows_in(copied(path, tmp_path / "copy")) == 1
        locking.communicate(b"", timeout=60)


def test_a_journal_that_was_kept_after_its_transaction_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "persist.db"
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("PRAGMA journal_mode=PERSIST")
        made.execute("CREATE TABLE t AS SELECT 1 AS n")
    assert database_at(path) is not None
    assert rows_in(copied(path, tmp_path / "copy")) == 1


def test_a_link_and_a_folder_that_is_read_only_are_no_obstacle(
    connection: sqlite3.Connection, folder: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(folder / NAME)
    before = sorted(os.listdir(folder))
    folder.chmod(0o500)
    try:
        with whole_file(link) as (whole, database):
            assert database is not None
            assert rows_in(whole) == ROWS
        assert not whole.exists()
    finally:
        folder.chmod(0o700)
    assert sorted(os.listdir(folder)) == before


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name, data in (("plain.txt", b"text"), ("closed.db", HEADER), ("empty.db", HEADER)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "plain.txt-journal").write_bytes(b"a diary")
    (tmp_path / "empty.db-wal").write_bytes(b"")
    os.mkfifo(tmp_path / "closed.db-wal")
    for name in ("plain.txt", "closed.db", "empty.db", "missing.db"):
        assert database_at(tmp_path / name) is None
    with whole_file(tmp_path / "plain.txt") as found:
        assert found == (tmp_path / "plain.txt", None)


def test_a_file_that_only_looks_like_a_database_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    path.write_bytes(HEADER + b"x" * 5000)
    (tmp_path / "odd.db-wal").write_bytes(b"y" * 100)
    with pytest.raises(Invalid, match=r"cannot be copied \(file is not a database\).* close its connection first"):
        copy_database(path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


class Busy(FakeClock):
    """A clock that writes to the database at each look at the wall time, which is just before a copy."""

    def __init__(self, path: Path, write: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._path = path
        self._write = write

    def wall(self) -> float:
        self._write()
        os.utime(self._path, ns=(0, self._path.stat().st_mtime_ns + 1))
        return super().wall()


def test_a_database_that_is_written_to_all_the_time_is_copied_as_a_reader_sees_it(
    connection: sqlite3.Connection, folder: Path, tmp_path: Path
) -> None:
    def write() -> None:
        with connection:
            connection.execute("INSERT INTO t VALUES (1)")

    clock, target = Busy(folder / f"{NAME}-wal", write), tmp_path / "copy"
    copy_database(folder / NAME, target, clock=clock, pause=clock.advance)
    assert rows_in(target) == ROWS + TRIES_AT_REST + 1 == connection.execute("SELECT count(*) FROM t").fetchone()[0]
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_database_with_a_journal_that_never_rests_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    killed_in_a_transaction(path)
    clock, target = Busy(path), tmp_path / "copy"
    began = clock.monotonic()
    with pytest.raises(FileChanged, match=f"was written to for {WAIT_SECONDS:g} s"):
        copy_database(path, target, clock=clock, pause=lambda seconds: clock.advance(8 * seconds))
    assert WAIT_SECONDS <= clock.monotonic() - began < 2 * WAIT_SECONDS
    assert not target.exists()


def test_a_moved_database_goes_with_the_files_beside_it(connection: sqlite3.Connection, folder: Path) -> None:
    path = folder / NAME
    remove_file(path, database_at(path))
    assert os.listdir(folder) == []
