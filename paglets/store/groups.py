"""The groups submitted to this host: their rows, and the reasons why a group still needs this host."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from paglets.codec.strict_json import dumps
from paglets.core.record import to_json
from paglets.core.refs import ProxyRef
from paglets.core.text import counted
from paglets.store.db import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGroup:
    """The data of a new group. `code` and `inputs` are hashes of its code and of its input files.

    `creation_errors` and `obstacles` are JSON values, and `spec` is JSON text.
    """

    group_id: str
    digest: str
    class_name: str
    collector: ProxyRef
    return_home: bool
    code: str
    inputs: str
    job_keys: tuple[str, ...]
    creation_errors: Any
    obstacles: Any
    spec: str


def insert(tx: Tx, group: StoredGroup, now: float) -> None:
    """Insert a new group: its row, the row with its job keys, and the row with its submission.

    Job copies, the collector and references to blobs are inserted separately.
    """
    tx.run(
        "INSERT INTO groups (group_id, digest, class_name, collector_id, collector, return_home, detached_reason,"
        " created_at, code, inputs, job_count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        group.group_id,
        group.digest,
        group.class_name,
        group.collector.agent_id,
        dumps(to_json(group.collector)),
        int(group.return_home),
        "the group was stored a moment ago",
        now,
        group.code,
        group.inputs,
        len(group.job_keys),
    )
    tx.run(
        "INSERT INTO group_jobs (group_id, job_keys, creation_errors, obstacles) VALUES (?, ?, ?, ?)",
        group.group_id,
        dumps(list(group.job_keys)),
        dumps(group.creation_errors),
        dumps(group.obstacles),
    )
    tx.run("INSERT INTO group_specs VALUES (?, ?)", group.group_id, group.spec)


def find(tx: Tx, group_id: str) -> sqlite3.Row | None:
    """Return the row of a group, which does not contain its jobs, or None."""
    return tx.one("SELECT * FROM groups WHERE group_id = ?", group_id)


def delete(tx: Tx, group_id: str) -> None:
    """Delete the row of a group. The database also deletes the rows that refer to it."""
    tx.run("DELETE FROM groups WHERE group_id = ?", group_id)


def not_detached(tx: Tx) -> list[sqlite3.Row]:
    """Return, for each group that still needs this host, its id, the id of its collector, and the reason."""
    return tx.all("SELECT group_id, collector_id, detached_reason FROM groups WHERE detached = 0 ORDER BY group_id")


def is_detached(tx: Tx, group_id: str) -> bool:
    """Return True if the group no longer needs this host."""
    return bool(tx.value("SELECT detached FROM groups WHERE group_id = ?", group_id))


def set_detached_reason(tx: Tx, group_id: str, reason: str) -> None:
    """Store the reason why the group still needs this host. "" marks the group as detached, which is final."""
    tx.run(
        "UPDATE groups SET detached = ?, detached_reason = ? WHERE group_id = ? AND detached = 0",
        int(not reason),
        reason,
        group_id,
    )


def set_last_counts(tx: Tx, group_id: str, seen: Any) -> None:
    """Store, as JSON, the last job counts that the collector's host has sent."""
    tx.run("UPDATE groups SET seen = ? WHERE group_id = ?", dumps(seen), group_id)


def has_specs(tx: Tx) -> bool:
    """Return True if the submission of any group is stored. It is kept for a resubmission."""
    return tx.value("SELECT 1 FROM group_specs LIMIT 1") is not None


def with_specs(tx: Tx, after: str, most: int) -> list[sqlite3.Row]:
    """Return up to `most` groups whose submission is still stored, with ids above `after`, sorted by id."""
    return tx.all(
        "SELECT group_id, collector_id, collector FROM group_specs JOIN groups USING (group_id) WHERE group_id > ?"
        " ORDER BY group_id LIMIT ?",
        after,
        most,
    )


def complete_here(tx: Tx) -> list[str]:
    """Return the ids of groups whose submission is still stored although their collector on this host is complete."""
    rows = tx.all(
        "SELECT group_id FROM group_specs JOIN groups g USING (group_id) JOIN paglet_states p"
        " ON p.agent_id = g.collector_id WHERE json_extract(p.state, '$.status') = 'COMPLETE' ORDER BY group_id"
    )
    return [row["group_id"] for row in rows]


def delete_specs(tx: Tx, group_id: str) -> None:
    """Delete the stored submission of a group and its references to blobs."""
    tx.run("DELETE FROM group_specs WHERE group_id = ?", group_id)
    tx.run("DELETE FROM group_blobs WHERE group_id = ?", group_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dependency:
    """A reason why a group still needs this host: a query that counts the cases, and texts for one case and many."""

    sql: str
    one: str
    many: str


_DEPENDENCIES = (
    _Dependency(
        sql="SELECT count(*) FROM handoffs WHERE kind = 'job' AND group_id = ?",
        one="job is on its way to another host",
        many="jobs are on their way to other hosts",
    ),
    _Dependency(
        sql="SELECT count(*) FROM requests WHERE status = 'PLACING' AND group_id = ?",
        one="job has no host yet",
        many="jobs have no host yet",
    ),
    _Dependency(
        sql="SELECT count(*) FROM requests"
        " WHERE status IN ('WAITING_FOR_SLOT', 'ASSIGNED', 'RUNNING') AND group_id = ?",
        one="job waits or runs on this host",
        many="jobs wait or run on this host",
    ),
    _Dependency(
        sql="SELECT count(*) FROM outbox WHERE group_id = ?",
        one="report has not reached the collector",
        many="reports have not reached the collector",
    ),
)


def dependency(tx: Tx, group_id: str) -> str:
    """Return the first reason why the group still needs this host, or "" if there is none."""
    for each in _DEPENDENCIES:
        count = tx.value(each.sql, group_id)
        if count:
            return counted(count, each.one, each.many)
    return ""
