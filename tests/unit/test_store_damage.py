"""A damaged store opens with its data or is refused as damaged; errors of SQLite are classified."""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import sqlite3
from pathlib import Path

import pytest

from paglets.core.errors import (
    PagletsError,
    StoreDamaged,
    StoreFull,
    StoreLocked,
    StoreMalformed,
    StoreNewer,
    StoreTransient,
    StoreUndecided,
)
from paglets.store.db import Store, open_store
from paglets.store.inspection import check
from paglets.store.sqlite_errors import ERROR_RULES, ErrorKind, kind_of, to_paglets_error


def error_of(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("some words")
    error.sqlite_errorcode = code  # type: ignore[misc]
    return error


@pytest.mark.parametrize(
    ("code", "kind", "cls", "advice"),
    [
        (sqlite3.SQLITE_FULL, ErrorKind.FULL, StoreFull, "free some"),
        (sqlite3.SQLITE_BUSY_RECOVERY, ErrorKind.LOCKED, StoreLocked, "another program"),
        (sqlite3.SQLITE_NOTADB, ErrorKind.MALFORMED, StoreMalformed, "damaged"),
        (sqlite3.SQLITE_CORRUPT_INDEX, ErrorKind.MALFORMED, StoreMalformed, "damaged"),
        (sqlite3.SQLITE_READONLY_DBMOVED, ErrorKind.NOT_WRITABLE, StoreDamaged, "writable"),
        (sqlite3.SQLITE_IOERR_WRITE, ErrorKind.IO_ERROR, StoreDamaged, "system's log"),
        (sqlite3.SQLITE_CONSTRAINT, ErrorKind.OTHER, StoreDamaged, "nothing was changed"),
    ],
)
def test_each_error_is_told_with_the_file_and_what_to_do(
    code: int, kind: ErrorKind, cls: type[PagletsError], advice: str
) -> None:
    error = error_of(code)
    made = to_paglets_error(Path("/data/paglets.db"), error)
    assert kind_of(error) is kind
    assert type(made) is cls
    assert "/data/paglets.db" in made.message
    assert advice in made.message


def test_each_kind_of_error_has_its_meaning_and_only_what_passes_is_passing() -> None:
    assert set(ERROR_RULES) == set(ErrorKind)
    passing = {kind for kind, meaning in ERROR_RULES.items() if issubclass(meaning.cls, StoreTransient)}
    assert passing == {ErrorKind.FULL, ErrorKind.LOCKED}
    assert not any(ERROR_RULES[kind].ends for kind in passing)
    assert not issubclass(StoreLocked, StoreFull)


def filled(path: Path) -> bytes:
    """The bytes of a database with some rows."""
    store = open_store(path, lambda error: None)
    store.write(lambda tx: tx.run_many("INSERT INTO meta VALUES (?, ?)", ((f"k{n}", "x" * 500) for n in range(400))))
    store.close()
    return path.read_bytes()


def test_after_any_bit_flip_it_is_what_it_was_or_is_refused_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "paglets.db"
    sound = filled(path)
    refused = 0
    for seed in range(60):
        chance = random.Random(seed)
        data = bytearray(sound)
        for _ in range(20):
            data[chance.randrange(100, len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            store = open_store(path, lambda error: None)
        except StoreMalformed:
            refused += 1
            assert path.read_bytes() == bytes(data), seed
        else:
            store.close()
        for name in ("-wal", "-shm"):
            path.with_name(path.name + name).unlink(missing_ok=True)
    assert refused > 20


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_file_is_refused_as_damaged(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "paglets.db"
    sound = filled(path)
    path.write_bytes(sound[: int(len(sound) * keep)])
    with pytest.raises(StoreMalformed):
        open_store(path, lambda error: None)


def damage_all_but_the_first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


@pytest.mark.parametrize("how", ["read", "write"])
def test_damage_that_is_met_at_work_ends_the_host_and_nothing_more_is_stored(tmp_path: Path, how: str) -> None:
    path = tmp_path / "paglets.db"
    filled(path)
    fatal: list[BaseException] = []
    store = open_store(path, fatal.append)
    damage_all_but_the_first_page(path)
    sql = "DELETE FROM meta WHERE key = 'k7'" if how == "write" else "SELECT count(*) FROM meta"
    with pytest.raises(sqlite3.DatabaseError):
        getattr(store, how)(lambda tx: tx.run(sql) if how == "write" else tx.value(sql))
    assert [type(error) for error in fatal] == [StoreMalformed]
    assert store.is_malformed
    with pytest.raises(sqlite3.DatabaseError):
        store.write(lambda tx: tx.run("INSERT INTO meta VALUES ('new', 'x')"))
    assert len(fatal) == 1
    store.close()
    with pytest.raises(StoreMalformed):
        check(path, thorough=True)


def test_a_file_that_may_not_grow_counts_as_a_full_disk_and_heals(tmp_path: Path) -> None:
    path = tmp_path / "paglets.db"
    fatal: list[BaseException] = []
    filled(path)
    store = open_store(path, fatal.append)
    put = "INSERT INTO meta VALUES (?, ?)"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10_000, hard))
    try:
        with pytest.raises(StoreFull, match="full"):
            store.write(lambda tx: tx.run(put, "large", "x" * 2_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.write(lambda tx: tx.run(put, "large", "x" * 2_000_000))
    assert fatal == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["paglets.db", "paglets.db-shm", "paglets.db-wal"]
    store.close()


def test_an_io_error_without_a_full_disk_ends_the_host() -> None:
    fatal: list[BaseException] = []
    failing = error_of(sqlite3.SQLITE_IOERR_WRITE)

    def commit(connection: sqlite3.Connection) -> None:
        raise failing

    store = Store(sqlite3.connect(":memory:", isolation_level=None), commit=commit, on_fatal=fatal.append)
    with pytest.raises(sqlite3.OperationalError):
        store.write(lambda tx: None)
    assert fatal == [failing]


def test_what_another_program_holds_is_not_stored_and_goes_on_when_it_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "paglets.db"
    filled(path)
    fatal: list[BaseException] = []
    writer = sqlite3.connect(path, timeout=0.05, isolation_level=None)
    store = Store(writer, on_fatal=fatal.append)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLocked, match="another program"):
        store.write(lambda tx: tx.run("INSERT INTO meta VALUES ('a', 'b')"))
    other.execute("ROLLBACK")
    store.write(lambda tx: tx.run("INSERT INTO meta VALUES ('a', 'b')"))
    assert fatal == []
    other.close()
    store.close()


def left_by_a_crash(path: Path, at: Path, sql: str) -> None:
    """Make `at` a database in use: its WAL has the changes of `sql`."""
    filled(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute(sql)
        at.parent.mkdir()
        for name in ("", "-wal"):
            shutil.copyfile(f"{path}{name}", f"{at}{name}")
    assert Path(f"{at}-wal").stat().st_size


def bytes_of(path: Path) -> list[bytes]:
    return [Path(f"{path}{name}").read_bytes() for name in ("", "-wal")]


def test_a_newer_database_with_a_wal_is_refused_and_its_wal_is_not_merged(tmp_path: Path) -> None:
    path = tmp_path / "copy" / "paglets.db"
    left_by_a_crash(tmp_path / "paglets.db", path, "INSERT INTO migrations VALUES (99, 'later', 1.0)")
    before = bytes_of(path)
    with pytest.raises(StoreNewer, match="schema 99"):
        open_store(path, lambda error: None)
    assert bytes_of(path) == before


def test_the_database_of_another_host_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "copy" / "paglets.db"
    left_by_a_crash(tmp_path / "paglets.db", path, "INSERT INTO meta VALUES ('store_id', 'theirs')")
    before = bytes_of(path)
    with pytest.raises(StoreUndecided, match=r"store theirs, and this folder to store ours.*Next: "):
        open_store(path, lambda error: None, "ours")
    assert bytes_of(path) == before
    open_store(path, lambda error: None, "theirs").close()


def test_a_database_that_is_none_of_paglets_is_refused_as_that_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "paglets.db"
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.execute("CREATE TABLE photos (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreUndecided, match="has the tables photos"):
        open_store(path, lambda error: None)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["paglets.db"]


def test_a_disk_without_room_is_told_as_full_at_opening_too(tmp_path: Path) -> None:
    """Simulate a full tmpfs, on which SQLite reports an I/O error."""
    path = tmp_path / "paglets.db"
    filled(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StoreFull, match="free some"):
            open_store(path, lambda error: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    open_store(path, lambda error: None).close()


def test_a_reader_that_cannot_be_opened_as_the_disk_is_full_passes(tmp_path: Path) -> None:
    def fails() -> sqlite3.Connection:
        raise error_of(sqlite3.SQLITE_IOERR_SHMSIZE)

    fatal: list[BaseException] = []
    writer = sqlite3.connect(":memory:", isolation_level=None)
    store = Store(writer, open_reader=fails, on_fatal=fatal.append, is_full=lambda: True)
    with pytest.raises(StoreFull):
        store.read(lambda tx: tx.value("SELECT 1"))
    assert fatal == []
