"""Waiting rows cost nothing: counts of SQLite's instructions with many rows and with four times as many."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from host_rig import Rig, envelope, group, host_ref, job, job_part, slot_request

from paglets.codec.envelope import WireMessage
from paglets.core.refs import ArtifactRef, BlobRef, ProxyRef
from paglets.store import blobs, copies, posts, queue, residence, views
from paglets.store.db import Tx
from paglets.store.jobs import DEFAULTS_A_PASS
from paglets.store.migrations.steps import migrate

FEW = 600
FEW_PLACING = 2_100
"""A number of rows beyond one page of the part that reads them, so that a page costs the same with more rows."""

STEP = 20
"""Instructions between two counts; a statement that finds its row by a key takes fewer."""


SCAN = re.compile(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?")
"""A line of a query plan: the table, by the name that the statement gives it, and the index."""


class Counted(sqlite3.Connection):
    """Counts the executions and the steps of each statement, by moments of the virtual clock."""

    counting = False

    def begin(self, now: Any) -> None:
        """Count from here on. `now` gives the moment."""
        self.now = now
        self.statement = ""
        self.work: Counter[tuple[float, str]] = Counter()
        self.seen: dict[str, tuple[Any, ...]] = {}
        self.set_progress_handler(self._step, STEP)
        self.counting = True

    def _step(self) -> None:
        self.work[self.now(), self.statement] += 1

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if self.counting:
            self.statement = sql
            self.seen[sql] = tuple(parameters)
            self.work[self.now(), sql] += 1
        return super().execute(sql, parameters)

    def most(self) -> dict[str, int]:
        """The most that each statement took in one moment."""
        found: dict[str, int] = {}
        for (_, sql), count in self.work.items():
            found[sql] = max(count, found.get(sql, 0))
        return found

    def plans(self) -> dict[str, list[str]]:
        """The tables that each statement scans, by the names that it gives them."""
        self.counting = False
        found = {}
        for sql, parameters in self.seen.items():
            if sql.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT", "WITH"):
                lines = [row[3] for row in super().execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
                scans = [match for line in lines if (match := SCAN.match(line))]
                found[sql] = [match[1] for match in scans if match[2] not in SMALL_INDEXES]
        return found


def new_rig() -> Rig:
    database = sqlite3.connect(
        ":memory:", check_same_thread=False, isolation_level=None, cached_statements=512, factory=Counted
    )
    database.execute("PRAGMA foreign_keys=ON")
    migrate(database)
    rig = Rig(database=database)
    rig.peer("w1")
    return rig


def counted(rig: Rig) -> Counted:
    connection = rig.store._writer
    assert isinstance(connection, Counted)
    return connection


def multiply(rig: Rig, tables: tuple[str, ...], count: int, key: str, only: Any, other: dict[str, str]) -> None:
    """Add copies of the row of `only` in each table until there are `count`; `other`: columns that differ, in SQL."""
    for table in tables:
        columns = [row[0] for row in rig.all("SELECT name FROM pragma_table_info(?)", table)]
        values = ", ".join(other.get(column, f"t.{column}") for column in columns)
        sql = (
            "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < ?)"
            f" INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM numbers, {table} t WHERE t.{key} = ?"
        )
        rig.write(lambda tx, sql=sql: tx.run(sql, count - 1, only))


JOB = {"agent_id": "t.agent_id || '.' || i", "job_key": "t.job_key || '.' || i"}
AWAY = host_ref("away")


def placing(rig: Rig, count: int) -> None:
    wish = slot_request(rules={"required_tags": ("nowhere",)})
    rig.write(lambda tx: rig.host.submission.submit(tx, "ab" * 16, group("a", request=wish, collector_host="home")))
    rig.run(1)
    tables = ("residence", "paglets", "paglet_states", "requests", "job_states")
    multiply(rig, tables, count, "agent_id", rig.value("SELECT agent_id FROM requests"), JOB)


def queued(rig: Rig, count: int) -> None:
    placing(rig, count)
    rig.write(lambda tx: tx.run("UPDATE requests SET status = 'WAITING_FOR_SLOT', reason = 'cores', reason_text = 'x'"))
    rig.write(
        lambda tx: tx.run("UPDATE requests SET request = replace(request, '\"cpu_cores\":1', '\"cpu_cores\":64')")
    )


def leaving(rig: Rig, count: int) -> None:
    job = envelope("j1", kind="job", hook=None, job=job_part(collector=ProxyRef(agent_id="collector-x", host=AWAY)))

    def leave(tx: Tx) -> None:
        residence.create(tx, job, rig.now())
        residence.leave(tx, "j1", AWAY, rig.now())

    rig.write(leave)
    multiply(rig, ("residence", "handoffs", "handoff_envelopes"), count, "agent_id", "j1", JOB)


def unsent(rig: Rig, count: int) -> None:
    target = ProxyRef(agent_id="p9", host=AWAY)
    n = rig.write(lambda tx: posts.send(tx, target, WireMessage(kind="news", args={}), rig.now()))
    multiply(rig, ("outbox", "outbox_messages"), count, "n", n, {"n": "t.n + i"})


def unsent_files(rig: Rig, count: int) -> None:
    blob = BlobRef(sha256="a" * 64, size_bytes=5)
    rig.write(lambda tx: blobs.add(tx, blob, rig.now()))
    carried = ArtifactRef(
        artifact_id="art-1", name="x", size_bytes=5, sha256=blob.sha256, host_name="away", owner="p9", created_at=1.0
    )
    message = WireMessage(kind="news", args={}, artifacts=(carried,))
    n = rig.write(lambda tx: posts.send(tx, ProxyRef(agent_id="p9", host=AWAY), message, rig.now()))
    multiply(rig, ("outbox", "outbox_messages", "outbox_blobs"), count, "n", n, {"n": "t.n + i"})


def long_gone(rig: Rig, count: int) -> None:
    """A year of history: paglets that left, with acknowledged hand-offs."""
    rig.write(lambda tx: residence.create(tx, envelope("p1"), rig.now()))
    rig.write(lambda tx: residence.dispose(tx, "p1", rig.now()))
    multiply(rig, ("residence",), count, "agent_id", "p1", JOB)


SCENES = {
    "placing": placing,
    "queued": queued,
    "leaving": leaving,
    "unsent": unsent,
    "unsent files": unsent_files,
    "long gone": long_gone,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Statements that read all waiting rows now and then."""

    text: str
    why: str


ALLOWED = (
    Allowed(text="SELECT count(*) FROM requests WHERE status IN", why="counts an index; a millisecond for 50,000"),
    Allowed(
        text="SELECT r.agent_id, r.group_id, r.job_key, r.collector",
        why="the whole census, a page of 1,000 copies at most",
    ),
    Allowed(
        text="SELECT key, value FROM storage WHERE agent_id = ? AND key IN",
        why="the collector's rows for the copies of a report, at most 500",
    ),
    Allowed(text="SELECT agent_id, epoch, group_id, job_key, target", why="the same, of jobs that leave"),
)


def grown(few: dict[str, int], many: dict[str, int]) -> list[str]:
    """Return the statements that took much more and are not allowed to."""
    return [
        f"{few.get(sql, 0)} -> {count}: {sql}"
        for sql, count in many.items()
        if count > 1.5 * few.get(sql, 0) + 50 and not any(allowed.text in sql for allowed in ALLOWED)
    ]


SMALL = ("json_each", "leases", "lease_units", "runs", "peers", "fences", "groups", "group_specs", "hosts", "CONSTANT")
"""Tables that do not grow with waiting jobs; `hosts` and `addressees` are steps over an index, CONSTANT is one row."""

SMALL_INDEXES = ("paglets_collectors", "handoffs_collectors", "handoffs_recall", "groups_open")
"""Small indexes: of collectors, of hand-offs with a requested rollback, of groups that are not detached."""


def scanning(plans: dict[str, list[str]]) -> list[str]:
    """The statements that scan a table that grows, and are not allowed to."""
    return [
        f"scans {', '.join(names)}: {sql}"
        for sql, names in plans.items()
        if set(names) - {*SMALL, "addressees"} and not any(allowed.text in sql for allowed in ALLOWED)
    ]


@pytest.mark.parametrize("scene", SCENES)
def test_a_turn_costs_the_same_with_four_times_as_many_jobs_that_wait(scene: str) -> None:
    work = []
    few = FEW_PLACING if scene == "placing" else FEW
    for count in (few, 4 * few):
        rig = new_rig()
        SCENES[scene](rig, count)
        rig.run(30)
        counted(rig).begin(rig.clock.monotonic)
        rig.run(15)
        work.append(counted(rig).most())
        found = scanning(counted(rig).plans())
        assert not found, "\n".join(found)
    assert not (found := grown(*work)), "\n".join(found)


def costs(scene: str, count: int, query: Any) -> tuple[int, int]:
    """Return the steps and the rows of `query`, a function of a transaction, while `count` jobs wait."""
    rig = new_rig()
    SCENES[scene](rig, count)
    rig.run(30)
    counted(rig).begin(rig.clock.monotonic)
    found = rig.store.read(query)
    return sum(counted(rig).most().values()), len(found)


def test_a_page_of_copies_costs_the_same_however_many_jobs_wait() -> None:
    few, many = (costs("queued", count, lambda tx: copies.page(tx, "", 500)[0]) for count in (FEW, 4 * FEW))
    assert few[1] == many[1] == 500
    assert many[0] <= few[0] + 50


def test_the_first_jobs_of_the_queue_cost_the_same_however_many_wait() -> None:
    def first(tx: Tx) -> Any:
        return views.job_views(tx, host_ref("home"), 10.0, 100)

    few, many = (costs("queued", count, first) for count in (FEW, 4 * FEW))
    assert few[1] == many[1] == 100
    assert many[0] <= few[0] + 50


def behind(count: int, **size: int) -> Rig:
    """Return a host whose four cores are leased, with `count` jobs of this size that wait and have no reason yet."""
    rig = new_rig()
    for key in ("a", "b", "c", "d", "e"):
        request = slot_request(**size) if key == "e" else slot_request()
        rig.write(lambda tx, k=key, asked=request: residence.create(tx, job(k, k, request=asked), rig.now()))
    tables = ("residence", "paglets", "paglet_states", "requests", "job_states")
    multiply(rig, tables, count, "agent_id", "e", JOB)
    return rig


def grant_work(count: int, **size: int) -> int:
    """Return the steps of the COMMIT and the tick that follow the end of a job while `count` others wait."""
    rig = behind(count, **size)
    rig.run(30)
    process = rig.process("b")
    rig.report(process)
    counted(rig).begin(rig.clock.monotonic)
    rig.finish(process)
    return sum(counted(rig).work.values())


@pytest.mark.parametrize("size", [{}, {"memory_bytes": 64 << 30}, {"gpus": 1}], ids=["fits", "too large", "GPU taken"])
def test_a_grant_costs_the_same_however_many_jobs_wait(size: dict[str, int]) -> None:
    few, many = grant_work(2 * DEFAULTS_A_PASS, **size), grant_work(6 * DEFAULTS_A_PASS, **size)
    assert many <= few + 50


def test_the_reasons_of_many_new_jobs_are_stored_in_bounded_transactions_until_all_have_one() -> None:
    rig = behind(3 * DEFAULTS_A_PASS + 10)
    rig.write(lambda tx: tx.run("UPDATE requests SET reason = '' WHERE status = 'WAITING_FOR_SLOT'"))
    wake, most = rig.store.on_commit, [0]

    def committed(wakes: tuple[str, ...], touched: tuple[str, ...]) -> None:
        most.append(len(touched))
        wake(wakes, touched)

    rig.store.on_commit = committed
    rig.run(4)
    assert rig.all("SELECT DISTINCT reason FROM requests WHERE status = 'WAITING_FOR_SLOT'") == [("slots_busy",)]
    assert DEFAULTS_A_PASS <= max(most) <= DEFAULTS_A_PASS + 10


def test_each_job_is_read_about_once_to_place_it() -> None:
    keys = [f"k{number:04d}" for number in range(FEW_PLACING)]
    rig = new_rig()
    counted(rig).begin(rig.clock.monotonic)
    rig.write(lambda tx: rig.host.submission.submit(tx, "ab" * 16, group(*keys, collector_host="home")))
    once = new_work(rig, lambda: rig.store.read(lambda tx: queue.unplaced(tx, FEW_PLACING)))
    placing = new_work(rig, lambda: rig.run(5))
    assert not rig.value("SELECT count(*) FROM requests WHERE status = 'PLACING'")
    assert placing < 1.5 * once


def new_work(rig: Rig, act: Any) -> int:
    """Return the steps of reading jobs that have no host, during `act`."""
    counted(rig).work.clear()
    act()
    read = "WHERE status = 'PLACING' AND (queued_at, r.agent_id) > (?, ?)"
    return sum(count for (_, sql), count in counted(rig).work.items() if read in sql)
