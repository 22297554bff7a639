"""Reports of finished jobs that wait in the outbox, and group ids cleared after the loss of their collector."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from paglets.api.groups import ReportCounts, WaitingReport
from paglets.codec.envelope import WireMessage
from paglets.codec.strict_json import dumps, loads
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef
from paglets.groups.keys import collector_id, submission_of
from paglets.groups.records import failure_report, kind_of, record_of, result_report
from paglets.store.db import Tx
from paglets.store.pages import Budget, page_of

KEPT_CLEARED = 10_000
"""The maximum number of cleared group ids. The oldest are deleted. A row takes about 200 bytes."""

_OF_GROUP = "o.group_id = ? AND o.report_of IS NOT NULL"

_KEY = (
    "coalesce((SELECT job_key FROM requests r WHERE r.agent_id = o.report_of),"
    " json_extract(m.message, '$.args.job_key'))"
)
"""The SQL for the job key of a report. The key is read from the message only if the row of the job copy is deleted."""


def counts(tx: Tx, group_id: str) -> ReportCounts:
    """Count the reports of a group that wait in the outbox, and their files."""
    row = tx.one(
        "SELECT count(*) AS reports, coalesce(sum(json_extract(m.message, '$.kind') = 'job_result'), 0) AS results"
        f" FROM outbox o JOIN outbox_messages m USING (n) WHERE {_OF_GROUP}",
        group_id,
    )
    files = tx.one(
        "SELECT count(*) AS files, coalesce(sum(b.size_bytes), 0) AS bytes FROM outbox o JOIN outbox_blobs x USING (n)"
        f" JOIN blobs b USING (sha256) WHERE {_OF_GROUP}",
        group_id,
    )
    assert row is not None
    assert files is not None
    return ReportCounts(
        results=row["results"],
        failures=row["reports"] - row["results"],
        files=files["files"],
        file_bytes=files["bytes"],
    )


def counts_by_group(tx: Tx) -> dict[str, int]:
    """Return the number of waiting reports for each group that has any. The query reads only an index."""
    rows = tx.all(
        "SELECT group_id, count(*) AS reports FROM outbox WHERE group_id IS NOT NULL"
        " GROUP BY group_id ORDER BY group_id"
    )
    return {row["group_id"]: row["reports"] for row in rows}


def page(
    tx: Tx, group_id: str, own: HostRef, *, after: int, most: int, most_bytes: int, job_key: str | None = None
) -> tuple[tuple[WaitingReport, ...], int | None]:
    """Return the oldest reports of a group, or of its job `job_key`, with numbers above `after`.

    Also return the `after` of the next page, or None after the last page. A page has at most `most` reports with at
    most `most_bytes` in total, but at least one report.
    """
    rows = tx.each(
        "SELECT o.n, m.message, o.report_of, o.created_at FROM outbox o"
        f" JOIN outbox_messages m USING (n) WHERE {_OF_GROUP} AND o.n > ?"
        f" AND (? IS NULL OR {_KEY} = ?) ORDER BY o.n LIMIT ?",
        group_id,
        after,
        job_key,
        job_key,
        most + 1,
    )
    budget = Budget(items=most, size_bytes=most_bytes)
    page = page_of(rows, budget, lambda row: len(row["message"].encode()), lambda row: (row["n"], ""))
    return tuple(_report(row, own) for row in page.items), None if page.after is None else int(page.after[0])


def _report(row: sqlite3.Row, own: HostRef) -> WaitingReport:
    message = from_json(WireMessage, loads(row["message"]))
    report = result_report(message.args) if message.kind == "job_result" else failure_report(message.args)
    return WaitingReport(
        n=row["n"],
        job_key=report.job_key,
        agent_id=row["report_of"],
        kind=kind_of(report),
        record=record_of(report, report.generation, row["created_at"]),
        artifacts=tuple(replace(artifact, host_name=own.name) for artifact in message.artifacts),
    )


# The types and functions below serve the removal of reports.


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """A report in the outbox: its number, the id of its job copy, its target host, and its message."""

    n: int
    agent_id: str
    host: HostRef
    message: WireMessage


def posts_of(tx: Tx, group_id: str, after: int, most: int) -> list[StoredReport]:
    """Return the oldest reports of a group with numbers above `after`."""
    rows = tx.all(
        "SELECT o.n, o.report_of, o.host, m.message FROM outbox o JOIN outbox_messages m USING (n)"
        f" WHERE {_OF_GROUP} AND o.n > ? ORDER BY o.n LIMIT ?",
        group_id,
        after,
        most,
    )
    return [
        StoredReport(
            n=row["n"],
            agent_id=row["report_of"],
            host=from_json(HostRef, loads(row["host"])),
            message=from_json(WireMessage, loads(row["message"])),
        )
        for row in rows
    ]


def collector_hosts(tx: Tx, group_id: str) -> tuple[HostRef, ...]:
    """Return the last known hosts of a group's collector, according to the reports and jobs on this host."""
    rows = tx.all(
        "SELECT DISTINCT host FROM outbox WHERE group_id = ? AND report_of IS NOT NULL UNION"
        " SELECT DISTINCT json_extract(collector, '$.host') FROM requests WHERE group_id = ? AND collector IS NOT NULL",
        group_id,
        group_id,
    )
    hosts = (from_json(HostRef, loads(row["host"])) for row in rows)
    return tuple({host.store_id: host for host in hosts}.values())


def replace_message(tx: Tx, n: int, message: WireMessage) -> None:
    """Replace the message of a report, and detach the report from its files, its job copy and its group."""
    tx.run("DELETE FROM outbox_blobs WHERE n = ?", n)
    tx.run("DELETE FROM outbox_artifacts WHERE n = ?", n)
    tx.run("UPDATE outbox_messages SET message = ? WHERE n = ?", dumps(to_json(message)), n)
    tx.run("UPDATE outbox SET report_of = NULL, group_id = NULL WHERE n = ?", n)


# The types and functions below handle cleared group ids.


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """A row of the table `cleared_groups`, for a group id that was cleared after the loss of its collector."""

    submissions: int
    epoch: int
    host: HostRef


def cleared(tx: Tx, group_id: str) -> Cleared | None:
    """Return the row of a cleared group id, or None."""
    row = tx.one("SELECT * FROM cleared_groups WHERE group_id = ?", group_id)
    if row is None:
        return None
    host = from_json(HostRef, loads(row["host"]))
    return Cleared(submissions=row["submissions"], epoch=row["epoch"], host=host)


def remember_cleared(tx: Tx, group_id: str, now_cleared: Cleared, now: float) -> None:
    """Store that a group id was cleared. If it was cleared before, keep the higher `submissions` and `epoch`."""
    tx.run(
        "INSERT INTO cleared_groups (group_id, submissions, epoch, host, cleared_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET submissions = max(submissions, excluded.submissions),"
        " epoch = max(epoch, excluded.epoch), host = excluded.host, cleared_at = excluded.cleared_at",
        group_id,
        now_cleared.submissions,
        now_cleared.epoch,
        dumps(to_json(now_cleared.host)),
        now,
    )
    tx.run(
        "DELETE FROM cleared_groups WHERE group_id IN"
        " (SELECT group_id FROM cleared_groups ORDER BY cleared_at DESC LIMIT -1 OFFSET ?)",
        KEPT_CLEARED,
    )


def submissions(tx: Tx, group_id: str) -> int:
    """Return how many groups have had this id, as far as this host knows from its groups, jobs and cleared ids."""
    known = cleared(tx, group_id)
    count = known.submissions if known else 0
    here = tx.value("SELECT 1 FROM groups WHERE group_id = ?", group_id) is not None
    newest = tx.value("SELECT max(generation) FROM requests WHERE group_id = ?", group_id)
    return max(count + here, 0 if newest is None else submission_of(newest) + 1)


def forget_late_reports(tx: Tx, before: float) -> None:
    """Delete reports changed by `replace_message`, if they and the clearing of their group are from before `before`."""
    rows = tx.all("SELECT group_id FROM cleared_groups WHERE cleared_at < ? ORDER BY group_id", before)
    tx.run_many(
        "DELETE FROM outbox WHERE agent_id = ? AND report_of IS NULL AND group_id IS NULL AND created_at < ?",
        ((collector_id(row["group_id"]), before) for row in rows),
    )
