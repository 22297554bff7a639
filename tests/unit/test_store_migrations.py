"""The migrations produce the schema; a database that cannot be used is refused and stays unchanged."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from paglets.api.hosts import MeshHost
from paglets.codec.strict_json import dumps, loads
from paglets.core.errors import StoreDamaged
from paglets.core.record import from_json, to_json
from paglets.store.db import open_store
from paglets.store.migrations.steps import MIGRATIONS, apply, migrate
from tests.fakes.mesh import member

SCHEMA = Path(__file__).parents[2] / "paglets" / "store" / "schema.sql"


def connect(path: Path | str = ":memory:") -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def shape(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Every table, index and trigger by kind and name, with its SQL in one spelling."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    return {(kind, name): re.sub(r"\s*([(),])\s*", r"\1", " ".join(_bare(sql).split())) for kind, name, sql in rows}


def _bare(sql: str) -> str:
    return "\n".join(line.partition("--")[0] for line in sql.splitlines())


def run(connection: sqlite3.Connection, first: int, last: int) -> None:
    for number in range(first, last + 1):
        apply(connection, number)


def test_the_migrations_lead_to_exactly_the_schema_file() -> None:
    migrated, written = connect(), connect()
    migrate(migrated)
    written.executescript(SCHEMA.read_text("utf-8"))
    assert shape(migrated) == shape(written)
    assert len(shape(migrated)) > 20


def test_each_migration_is_recorded_once_and_in_order() -> None:
    connection = connect()
    migrate(connection)
    migrate(connection)
    rows = connection.execute("SELECT id, name FROM migrations ORDER BY id").fetchall()
    assert rows == list(enumerate(MIGRATIONS, start=1))


def test_a_database_with_the_first_fifteen_migrations_recorded_gets_the_rest() -> None:
    connection = connect()
    names = "first bytes model groups moves losses unread large endings kept jobfiles lostgroups due obstacles away"
    run(connection, 1, 15)
    connection.executemany("INSERT INTO migrations VALUES (?, ?, 1.0)", list(enumerate(names.split(), start=1)))
    connection.execute("INSERT INTO members VALUES ('s1', '{}', 7.0)")
    migrate(connection)
    assert connection.execute("SELECT * FROM hosts").fetchall() == [("s1", "{}", 7.0)]
    rows = connection.execute("SELECT id, name FROM migrations ORDER BY id").fetchall()
    assert rows == list(enumerate(MIGRATIONS, start=1))


def test_a_row_of_a_host_is_readable_after_the_renaming_of_its_keys() -> None:
    host = member("w1")
    old = to_json(host)
    old["unreached"] = [{"store_id": "s2", "since": 1.5}]
    del old["unreachable_hosts"]
    connection = connect()
    first = MIGRATIONS.index("hosts") + 1
    run(connection, 1, first - 1)
    rows = [("s1", dumps(old), 7.0), ("s2", "damaged", None)]
    connection.executemany("INSERT INTO members VALUES (?, ?, ?)", rows)
    apply(connection, first)
    good, damaged = connection.execute("SELECT * FROM hosts ORDER BY store_id").fetchall()
    assert (from_json(MeshHost, loads(good[1])), good[2]) == (host, 7.0)
    assert damaged == ("s2", "damaged", None)


def test_stored_hosts_survive_the_migration_that_drops_a_column() -> None:
    connection = connect()
    first = MIGRATIONS.index("unread") + 1
    run(connection, 1, first - 1)
    connection.execute("INSERT INTO members (store_id, name, row) VALUES ('s1', 'w1', '{}')")
    apply(connection, first)
    assert connection.execute("SELECT * FROM members").fetchall() == [("s1", "{}")]


def test_what_was_due_before_a_step_is_due_after_it() -> None:
    connection = connect()
    connection.execute("PRAGMA foreign_keys = ON")
    run(connection, 1, 2)
    connection.execute("INSERT INTO residence VALUES ('p1', 1, 'here', NULL, '', 1, 1, 0.0, 0)")
    connection.execute(
        "INSERT INTO paglets (agent_id, class_name, kind, state, home, hook, created_at)"
        " VALUES ('p1', 'm:C', 'paglet', '{}', '{}', 'arrival', 1.0)"
    )
    connection.execute("INSERT INTO storage VALUES ('p1', 'key', '1')")
    connection.execute("INSERT INTO inbox (agent_id, sender_store, n, message) VALUES ('p1', 's', 1, '{}')")
    run(connection, 3, len(MIGRATIONS))
    assert connection.execute("SELECT hook, inactive, service FROM paglets").fetchall() == [("arrival", 0, "")]
    assert connection.execute("SELECT count(*) FROM storage").fetchone() == (1,)
    assert connection.execute("SELECT priority FROM inbox").fetchall() == [(0,)]


def test_every_table_is_strict() -> None:
    connection = connect()
    migrate(connection)
    sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND strict = 0"
    loose = connection.execute(sql).fetchall()
    assert [name for (name,) in loose if not name.startswith("sqlite_")] == []


def test_what_is_there_stays_when_the_store_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "paglets.db"
    store = open_store(path, lambda error: None)
    store.write(lambda tx: tx.run("INSERT INTO meta VALUES ('a', 'b')"))
    store.close()
    again = open_store(path, lambda error: None)
    assert again.read(lambda tx: tx.value("SELECT value FROM meta")) == "b"
    again.close()


def test_a_schema_of_a_newer_program_is_refused_and_the_file_is_untouched(tmp_path: Path) -> None:
    path = tmp_path / "paglets.db"
    open_store(path, lambda error: None).close()
    with connect(path) as newer:
        newer.execute("INSERT INTO migrations VALUES (99, 'later', 1.0)")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match="newer"):
        open_store(path, lambda error: None)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["paglets.db"], "the connection was left open"


@pytest.mark.parametrize("damage", ["text", "header", "table of tables"])
def test_a_damaged_file_is_refused_and_untouched(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "paglets.db"
    open_store(path, lambda error: None).close()
    data = bytearray(path.read_bytes())
    if damage == "text":
        data = bytearray(b"this is no database, and longer than its header is " * 100)
    elif damage == "header":
        data[:16] = b"SQLite format 9\0"
    else:
        data[100:4096] = b"\xff" * (4096 - 100)
    path.write_bytes(data)
    with pytest.raises(StoreDamaged, match=r"paglets\.db cannot be used"):
        open_store(path, lambda error: None)
    assert path.read_bytes() == bytes(data)


def test_a_migration_that_fails_changes_nothing() -> None:
    connection = connect()
    connection.execute("CREATE TABLE residence (x)")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection)
    assert list(shape(connection)) == [("table", "residence")]


def test_a_store_keeps_to_the_settings_that_its_promises_need(tmp_path: Path) -> None:
    store = open_store(tmp_path / "paglets.db", lambda error: None)
    pragmas = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert {name: store.write(lambda tx, name=name: tx.value(f"PRAGMA {name}")) for name in pragmas} == pragmas
    store.close()


def test_what_may_be_large_keeps_its_value_when_it_moves_to_a_table_of_its_own() -> None:
    connection = connect()
    connection.execute("PRAGMA foreign_keys = ON")
    number = MIGRATIONS.index("large") + 1
    run(connection, 1, number - 1)
    envelope = (
        '{"name":null,"hook":null,"state":{"big":1},"job":{"collector":{"agent_id":"c1"},"outcome":null,'
        '"generation":1,"attempt":0,"status":"PLACING","request":{"resources":{}},"waited_seconds":1.5}}'
    )
    for sql in (
        "INSERT INTO residence VALUES ('j1', 1, 'here', NULL, '', 1, 1, 0.0, 0)",
        "INSERT INTO residence VALUES ('j2', 1, 'leaving', '{}', '', 1, 1, 0.0, 0)",
        "INSERT INTO paglets (agent_id, class_name, kind, state, home, created_at)"
        " VALUES ('j1', 'm:C', 'job', '{\"n\":1}', '{}', 1)",
        "INSERT INTO requests (agent_id, group_id, job_key, generation, status, request, cpu_cores, submitted_state,"
        " checkpoint, outcome, queued_at, here_at, reason_at)"
        " VALUES ('j1', 'g', 'k', 1, 'PLACING', '{}', 1, '{\"s\":1}', NULL, '{\"o\":1}', 0, 0, 0)",
        "INSERT INTO storage VALUES ('j1', 'key', '7')",
        "INSERT INTO handoffs (agent_id, epoch, target_store, target, envelope, kind, began_at)"
        f" VALUES ('j2', 1, 's', '{{}}', '{envelope}', 'job', 1)",
        "INSERT INTO outbox (agent_id, host, host_store, message, created_at) VALUES ('c1', '{}', 's', '{\"m\":1}', 1)",
        "INSERT INTO groups (group_id, digest, class_name, collector_id, collector, return_home, job_keys,"
        " creation_errors, spec, created_at) VALUES"
        " ('g', '', 'm:C', 'c1', '{}', 0, '[\"k\",\"l\"]', '[]', '{\"jobs\":1}', 1),"
        " ('h', '', 'm:C', 'c2', '{}', 0, '[]', '[]', NULL, 1)",
    ):
        connection.execute(sql)
    apply(connection, number)

    def rows(sql: str) -> list[tuple[object, ...]]:
        return connection.execute(sql).fetchall()

    assert rows("SELECT agent_id, state FROM paglet_states") == [("j1", '{"n":1}')]
    assert rows("SELECT outcome, checkpoint, submitted_state FROM job_states") == [('{"o":1}', None, '{"s":1}')]
    assert rows("SELECT agent_id, key, value FROM storage") == [("j1", "key", "7")]
    assert rows("SELECT envelope FROM handoff_envelopes") == [(envelope,)]
    assert rows("SELECT name, size_bytes, asked_for, collector, ended FROM handoffs") == [
        (None, len(envelope), 0, '{"agent_id":"c1"}', 0)
    ]
    summary = '{"generation":1,"attempt":0,"status":"PLACING","request":{"resources":{}},"waited_seconds":1.5}'
    assert rows("SELECT summary FROM handoffs") == [(summary,)]
    assert rows("SELECT n, message FROM outbox_messages") == [(1, '{"m":1}')]
    assert rows("SELECT group_id, job_count FROM groups") == [("g", 2), ("h", 0)]
    assert rows("SELECT group_id, job_keys FROM group_jobs") == [("g", '["k","l"]'), ("h", "[]")]
    assert rows("SELECT * FROM group_specs") == [("g", '{"jobs":1}')]
    assert rows("PRAGMA foreign_key_check") == []
