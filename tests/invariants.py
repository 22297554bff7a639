"""Invariants of the stores of a mesh: permanent ones (`sanity_check`), and those of a quiet mesh (`unsettled`).

They serve tests of any kind: after real processes have ended, open their databases with `view_of`. The numbers S1 to S5
are those of the invariants in the description of the architecture.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from paglets.api.groups import SubmitGroup
from paglets.codec.envelope import Envelope, WireMessage
from paglets.codec.strict_json import loads
from paglets.core.record import from_json
from paglets.slots.model import Resources
from paglets.store.db import Tx

Hosts = Mapping[str, Tx]
"""The views of the stores by name of the host."""

HANDLED = "handled/"
"""The prefix of the keys under which a simulated counter stores how often it handled each post."""

BUMPED = "bumped"
"""The key under which a simulated counter stores how often a call has changed its state."""


def view_of(path: Path) -> Tx:
    """Return a view of the database of a host that has ended."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    return Tx(connection)


def sanity_check(hosts: Hosts, offered: Mapping[str, Resources] | None = None, gone: Hosts | None = None) -> list[str]:
    """Return a description of every violation, or an empty list. `gone` are hosts that were lost for good."""
    wrong: list[str] = residence_of_all(hosts, gone or {})
    for name, tx in hosts.items():
        found = [*_rows(tx), *_references(tx), *_leases(tx), *_collectors(tx), *_posts(tx)]
        if offered is not None:
            found += _within(tx, offered[name])
        wrong += [f"{name}: {each}" for each in found]
    return wrong


# S1.


def residence_of_all(hosts: Hosts, gone: Hosts) -> list[str]:
    """Check S1 for every paglet that any of `hosts` knows; see `residence_of`."""
    rows = (row for tx in hosts.values() for row in tx.all("SELECT agent_id FROM residence ORDER BY agent_id"))
    return residence_of(hosts, dict.fromkeys(row["agent_id"] for row in rows), gone)


def residence_of(hosts: Hosts, agent_ids: Iterable[str], gone: Hosts) -> list[str]:
    """Check S1 for these paglets. A paglet on a host that is `gone` for good may also be back at its source."""
    return [
        text
        for agent_id in agent_ids
        for text in _judge_residence(agent_id, _rows_of(hosts, agent_id), _rows_of(gone, agent_id))
    ]


def _rows_of(hosts: Hosts, agent_id: str) -> list[tuple[str, int, str]]:
    """Return the host, epoch and status of each row of a paglet."""
    found = [
        (name, tx.one("SELECT epoch, status FROM residence WHERE agent_id = ?", agent_id)) for name, tx in hosts.items()
    ]
    return [(name, row["epoch"], row["status"]) for name, row in found if row is not None]


def leases_of(hosts: Hosts, agent_ids: Iterable[str]) -> list[str]:
    """Check S2 for these jobs: a running job holds a lease, and no other job does."""
    return [
        f"{name}: S2 {agent_id} is {row['status']} {'with' if row['leased'] else 'without'} a lease"
        for agent_id in agent_ids
        for name, tx in hosts.items()
        for row in tx.all(_LEASE_OF, agent_id)
        if (row["status"] == "RUNNING") != bool(row["leased"])
    ]


_LEASE_OF = (
    "SELECT q.status, EXISTS (SELECT 1 FROM leases l WHERE l.agent_id = q.agent_id AND l.attempt = q.attempt) AS leased"
    " FROM requests q WHERE q.agent_id = ?"
)


def _judge_residence(
    agent_id: str, known: list[tuple[str, int, str]], gone: list[tuple[str, int, str]]
) -> Iterator[str]:
    every = [*known, *gone]
    newest = max((epoch for _, epoch, _ in every), default=0)
    here = [(name, epoch) for name, epoch, status in known if status == "here"]
    lost = any(status == "here" for _, _, status in gone)
    if len(here) > 1:
        yield f"S1 {agent_id} is here on more than one host: {every}"
    elif here and here[0][1] < newest:
        yield f"S1 {agent_id} is here under an epoch that is not the newest: {every}"
    elif (
        every
        and not (here or lost)
        and not any(status == "leaving" or (status == "disposed" and epoch == newest) for _, epoch, status in every)
    ):
        yield f"S1 {agent_id} is nowhere: {every}"


# One host.

_NONE: tuple[tuple[str, str], ...] = (
    (
        "a paglet has rows and is not here",
        "SELECT agent_id FROM paglets p WHERE NOT EXISTS"
        " (SELECT 1 FROM residence r WHERE r.agent_id = p.agent_id AND r.status = 'here')",
    ),
    (
        "a paglet is here without rows",
        "SELECT agent_id FROM residence r WHERE status = 'here' AND NOT EXISTS"
        " (SELECT 1 FROM paglets p WHERE p.agent_id = r.agent_id)",
    ),
    (
        "an envelope is under way of a paglet that is not leaving",
        "SELECT agent_id FROM handoffs h WHERE NOT EXISTS (SELECT 1 FROM residence r"
        " WHERE r.agent_id = h.agent_id AND r.status = 'leaving' AND r.epoch = h.epoch)",
    ),
    (
        "a paglet is leaving without an envelope",
        "SELECT agent_id FROM residence r WHERE status = 'leaving' AND NOT EXISTS"
        " (SELECT 1 FROM handoffs h WHERE h.agent_id = r.agent_id)",
    ),
    (
        "a process belongs to a paglet that is not here",
        "SELECT agent_id FROM runs WHERE NOT EXISTS (SELECT 1 FROM residence r"
        " WHERE r.agent_id = runs.agent_id AND r.status = 'here' AND r.epoch = runs.epoch)",
    ),
    (
        "a job has no row of its own, or another paglet has one",
        "SELECT agent_id FROM paglets p WHERE (p.kind = 'job') !="
        " EXISTS (SELECT 1 FROM requests q WHERE q.agent_id = p.agent_id)",
    ),
    (
        "S2 a job is RUNNING without a lease for that attempt",
        "SELECT agent_id FROM requests q WHERE status = 'RUNNING' AND NOT EXISTS (SELECT 1 FROM leases l"
        " WHERE l.agent_id = q.agent_id AND l.attempt = q.attempt AND l.generation = q.generation)",
    ),
    (
        "S2 a lease is held by a job that is not RUNNING",
        "SELECT agent_id FROM leases l WHERE NOT EXISTS (SELECT 1 FROM requests q"
        " WHERE q.agent_id = l.agent_id AND q.status = 'RUNNING')",
    ),
    (
        "S2 a lease has no process",
        "SELECT agent_id FROM leases l WHERE NOT EXISTS (SELECT 1 FROM runs"
        " WHERE runs.agent_id = l.agent_id AND runs.attempt = l.attempt AND runs.entry = 'attempt')",
    ),
    (
        "S2 a lease has other cores than the job asked for",
        "SELECT agent_id FROM leases l JOIN requests q USING (agent_id) WHERE q.cpu_cores !="
        " (SELECT count(*) FROM lease_units u WHERE u.agent_id = l.agent_id AND u.kind = 'core')",
    ),
    (
        "S5 a post waits that is not noted as taken",
        "SELECT agent_id || ' ' || sender_store || ' ' || n FROM inbox i WHERE NOT EXISTS"
        " (SELECT 1 FROM taken t WHERE t.agent_id = i.agent_id AND t.sender_store = i.sender_store AND t.n = i.n)"
        " AND NOT EXISTS (SELECT 1 FROM taken_marks m WHERE m.agent_id = i.agent_id"
        "  AND m.sender_store = i.sender_store AND m.settled_below > i.n)",
    ),
    (
        "bytes are referred to that are not here",
        "SELECT sha256 FROM blob_refs r WHERE NOT EXISTS (SELECT 1 FROM blobs b WHERE b.sha256 = r.sha256)",
    ),
    (
        "a file or an artifact belongs to a paglet that is neither here nor leaving",
        "SELECT o.agent_id FROM (SELECT agent_id FROM files UNION SELECT owner FROM artifacts WHERE owner != '') o"
        " WHERE NOT EXISTS (SELECT 1 FROM residence r WHERE r.agent_id = o.agent_id"
        "  AND r.status IN ('here', 'leaving'))",
    ),
    (
        "bytes are kept for a group that is over",
        "SELECT group_id FROM group_blobs WHERE group_id NOT IN (SELECT group_id FROM group_specs)",
    ),
    (
        "an attempt is at work and its job is neither RUNNING nor ASSIGNED",
        "SELECT agent_id FROM runs JOIN requests q USING (agent_id) WHERE runs.entry = 'attempt'"
        " AND q.status NOT IN ('RUNNING', 'ASSIGNED')",
    ),
    (
        "a job is ASSIGNED that has no run in a line",
        "SELECT agent_id FROM requests q WHERE status = 'ASSIGNED' AND NOT EXISTS (SELECT 1 FROM runs"
        " WHERE runs.agent_id = q.agent_id AND runs.attempt = q.attempt + 1 AND line != '')",
    ),
)
"""Queries that must find nothing, and the meaning of a hit."""


def _rows(tx: Tx) -> list[str]:
    return [f"{meaning}: {row[0]}" for meaning, sql in _NONE for row in tx.all(sql)]


def _leases(tx: Tx) -> list[str]:
    wrong = tx.all("SELECT count(*) AS n, kind, unit FROM lease_units GROUP BY kind, unit HAVING n > 1")
    return [f"S2 {row['kind']} {row['unit']} is leased {row['n']} times" for row in wrong]


def _within(tx: Tx, offered: Resources) -> list[str]:
    """Check S2: leases do not exceed the resources."""
    row = tx.one("SELECT total(memory_bytes) AS memory, total(temp_storage_bytes) AS disk FROM leases")
    assert row is not None
    units = {kind: tx.all("SELECT unit FROM lease_units WHERE kind = ?", kind) for kind in ("core", "gpu")}
    wrong = []
    for kind, most in (("core", offered.cpu_cores), ("gpu", offered.gpus)):
        wrong += [f"S2 {kind} {row['unit']} of {most} is leased" for row in units[kind] if row["unit"] >= most]
    if row["memory"] > offered.memory_bytes or row["disk"] > offered.temp_storage_bytes:
        wrong.append(f"S2 leased are {row['memory']} bytes of memory and {row['disk']} of disk, offered is {offered}")
    return wrong


# Bytes.

Reference = tuple[str, set[str], set[str]]
"""A description of each kind of reference to bytes, with queries for the named and the kept hashes."""


def _references(tx: Tx) -> list[str]:
    """Check that a row keeps everything that envelopes, posts and groups name, and nothing else."""
    return [
        f"bytes that {what} names are {sorted(named)}, kept for it are {sorted(kept)}"
        for what, named, kept in (*_of_envelopes(tx), *_of_posts(tx), *_of_groups(tx))
        if named != kept
    ]


def _of_envelopes(tx: Tx) -> Iterator[Reference]:
    for row in tx.all(
        "SELECT agent_id, envelope, bundle FROM handoffs JOIN handoff_envelopes USING (agent_id) ORDER BY agent_id"
    ):
        envelope = from_json(Envelope, loads(row["envelope"]))
        kept = _hashes(tx, "SELECT sha256 FROM files WHERE agent_id = ?", row["agent_id"])
        kept |= _hashes(tx, "SELECT sha256 FROM artifacts WHERE owner = ?", row["agent_id"])
        kept |= {row["bundle"]} - {None}
        yield f"the envelope of {row['agent_id']}", {blob.sha256 for blob in envelope.blobs()}, kept


def _of_posts(tx: Tx) -> Iterator[Reference]:
    for row in tx.all("SELECT n, message FROM outbox_messages ORDER BY n"):
        message = from_json(WireMessage, loads(row["message"]))
        kept = _hashes(tx, "SELECT sha256 FROM outbox_blobs WHERE n = ?", row["n"])
        yield f"the post {row['n']}", {artifact.sha256 for artifact in message.artifacts}, kept


def _of_groups(tx: Tx) -> Iterator[Reference]:
    for row in tx.all("SELECT group_id, spec FROM group_specs ORDER BY group_id"):
        group = from_json(SubmitGroup, loads(row["spec"]))
        named = {file.sha256 for file in (*group.inputs, *(file for job in group.jobs for file in job.inputs))}
        named |= set() if group.bundle is None else {group.bundle.sha256}
        kept = _hashes(tx, "SELECT sha256 FROM group_blobs WHERE group_id = ?", row["group_id"])
        yield f"the group {row['group_id']}", named, kept


def _hashes(tx: Tx, sql: str, key: object) -> set[str]:
    return {row["sha256"] for row in tx.all(sql, key)}


def bytes_of(tx: Tx, whole: Mapping[str, bytes]) -> list[str]:
    """Check that every blob with a row in `blobs` is `whole` on the disk."""
    return [
        f"the blob {row['sha256']} of {row['size_bytes']} bytes is {_how(whole.get(row['sha256']))} on the disk"
        for row in tx.all("SELECT sha256, size_bytes FROM blobs")
        if not _is_right(row["sha256"], row["size_bytes"], whole.get(row["sha256"]))
    ]


def _is_right(sha256: str, size_bytes: int, data: bytes | None) -> bool:
    return data is not None and len(data) == size_bytes and hashlib.sha256(data).hexdigest() == sha256


def _how(data: bytes | None) -> str:
    return "not" if data is None else f"another one of {len(data)} bytes"


# S4, S5.


def _collectors(tx: Tx) -> list[str]:
    return [
        f"{row['agent_id']}: {text}"
        for row in tx.all(
            "SELECT agent_id, state FROM paglets JOIN paglet_states USING (agent_id)"
            " WHERE kind = 'collector' ORDER BY agent_id"
        )
        for text in collector_faults(tx, row["agent_id"], loads(row["state"]))
    ]


def collector_faults(tx: Tx, agent_id: str, state: dict[str, Any]) -> list[str]:
    """Check the permanent part of S4: records and counts agree, and no record exists twice."""
    entries = _entries(tx, agent_id)
    results, failures = keys_under(entries, "result/"), keys_under(entries, "failure/")
    jobs = keys_under(entries, "job/")
    ended = {key for key in jobs if entries[f"job/{key}"]["ended"]}
    wrong = [f"S4 {key} has a result and a failure" for key in sorted(results & failures)]
    wrong += [f"S4 {key} has a record and is not expected" for key in sorted((results | failures) - jobs)]
    if ended != results | failures:
        wrong.append(f"S4 ended are {sorted(ended)}, recorded are {sorted(results | failures)}")
    counts = (state.get("expected_count", 0), state.get("completed_count", 0), state.get("failed_count", 0))
    if counts != (len(jobs), len(results), len(failures)):
        wrong.append(f"S4 counts are {counts}, rows are {(len(jobs), len(results), len(failures))}")
    return wrong


def _entries(tx: Tx, agent_id: str) -> dict[str, Any]:
    rows = tx.all("SELECT key, value FROM storage WHERE agent_id = ? ORDER BY key", agent_id)
    return {row["key"]: loads(row["value"]) for row in rows}


def keys_under(entries: Mapping[str, Any], prefix: str) -> set[str]:
    """Return the rest of each key that starts with `prefix`."""
    return {key[len(prefix) :] for key in entries if key.startswith(prefix)}


def _posts(tx: Tx) -> list[str]:
    rows = tx.all("SELECT agent_id, key, value FROM storage WHERE key > ? AND key < ?", HANDLED, HANDLED + "\U0010ffff")
    return [
        f"S5 {row['agent_id']} handled post {row['key'][len(HANDLED) :]} {row['value']} times"
        for row in rows
        if row["value"] != "1"
    ]


# Quiescence.

_BUSY: tuple[tuple[str, str], ...] = (
    ("is leaving", "SELECT agent_id || ': ' || problem FROM handoffs"),
    ("has a process", "SELECT agent_id || ' ' || entry FROM runs"),
    ("holds a lease", "SELECT agent_id FROM leases"),
    ("has a post in the outbox", "SELECT agent_id || ' of ' || host || ': ' || problem FROM outbox"),
    ("has a post in the inbox", "SELECT agent_id || ' ' || error FROM inbox WHERE status = 'waiting'"),
    ("has something to do", "SELECT agent_id FROM paglets WHERE hook IS NOT NULL OR intent IS NOT NULL"),
    (
        "is an unfinished job",
        "SELECT agent_id || ' ' || status || ' ' || reason_text FROM requests"
        " WHERE status IN ('PLACING', 'WAITING_FOR_SLOT', 'ASSIGNED', 'RUNNING')",
    ),
    (
        "is a finished job of a group whose row is still there",
        "SELECT agent_id || ' ' || status FROM requests WHERE collector IS NOT NULL"
        " AND status NOT IN ('PLACING', 'WAITING_FOR_SLOT', 'ASSIGNED', 'RUNNING')"
        " AND agent_id NOT IN (SELECT agent_id FROM failed_hooks)",
    ),
    (
        "is a collector with pending keys, or not where it is to stay",
        "SELECT agent_id || ' ' || state FROM paglets JOIN paglet_states USING (agent_id) WHERE kind = 'collector'"
        " AND json_extract(state, '$.status') != 'COMPLETE'",
    ),
)


def unsettled(hosts: Hosts) -> list[str]:
    """Return everything that is under way. It must become empty once every host is up and reachable."""
    return [f"{name}: {row[0]} {what}" for name, tx in hosts.items() for what, sql in _BUSY for row in tx.all(sql)]


def is_settled(hosts: Hosts) -> bool:
    """Return True if `unsettled` is empty. Stop at the first entry."""
    return not any(tx.one(sql) for tx in hosts.values() for _, sql in _BUSY)
