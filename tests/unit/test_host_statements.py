"""Statements of SQL cost much of the CPU time of a short job, so their number for each job has a limit."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Any

from host_rig import Rig, group

from paglets.groups.keys import collector_id
from paglets.slots.model import PlacementRules, Resources, SlotRequest
from paglets.worker.protocol import EntryDone, Report
from tests.fakes.store import memory_database

JOBS = 40
AWAY = SlotRequest(resources=Resources(cpu_cores=1), rules=PlacementRules(allow_home=False))
MOST_AT_HOME = 61
MOST_AT_THE_JOB = 116
"""The limits of the statements for each job. Lower them when a change saves statements."""


class CountingConnection(sqlite3.Connection):
    """A connection that counts the statements that a host executes, by their text. `executemany` counts once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.counts: Counter[str] = Counter()

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.counts[sql] += 1
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        self.counts[sql] += 1
        return super().executemany(sql, parameters)


def counting_database() -> CountingConnection:
    database = memory_database(CountingConnection)
    assert isinstance(database, CountingConnection)
    return database


def run_all(home: Rig, away: Rig) -> None:
    """Run each job to its end. All slots of the host of the jobs start and end their jobs together."""
    done = 0
    while done < JOBS:
        home.run(1.0)
        running = [process for process in away.launcher.processes if not process.ended]
        assert running, f"only {done} of {JOBS} jobs have run"
        for process in running:
            process.begin()
        away.run()
        for process in running:
            process.ask("report", Report(success=True, result=1))
            process.ask("done", EntryDone())
        away.run()
        for process in running:
            process.exit()
        away.run()
        done += len(running)
    home.run(5.0)


def per_job(database: CountingConnection) -> float:
    return database.counts.total() / JOBS


def most_frequent(database: CountingConnection) -> str:
    """Return the most frequent statements with their number for each job, one a line."""
    return "\n".join(f"{count / JOBS:6.2f} {sql[:100]}" for sql, count in database.counts.most_common(30))


def test_a_trivial_job_costs_few_statements() -> None:
    at_home, at_the_job = counting_database(), counting_database()
    home = Rig(database=at_home)
    away = Rig(database=at_the_job, name="away", beside=home)
    home.run(5.0)
    at_home.counts.clear()
    at_the_job.counts.clear()
    jobs = group(*(f"k{n:02d}" for n in range(JOBS)), request=AWAY, collector_host="home")
    home.write(lambda tx: home.host.submission.submit(tx, "ab" * 16, jobs))
    home.run()
    run_all(home, away)
    counts = home.call(collector_id("g1"), "counts")
    home.run()
    assert counts.record.value["completed_count"] == JOBS
    assert per_job(at_home) <= MOST_AT_HOME, most_frequent(at_home)
    assert per_job(at_the_job) <= MOST_AT_THE_JOB, most_frequent(at_the_job)
