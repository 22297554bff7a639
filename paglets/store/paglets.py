"""The rows of the paglets on this host: their conversion from and to envelopes, and the storage of each paglet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from paglets.codec.envelope import Envelope, InboxPost, JobPart, Post, TakenPosts, WireMessage
from paglets.codec.strict_json import dumps, loads
from paglets.core.errors import Unknown
from paglets.core.record import from_json, to_json
from paglets.core.refs import BlobRef, HostRef, ProxyRef
from paglets.store import artifacts, files
from paglets.store.db import Tx


def _optional(value: Any) -> str | None:
    return None if value is None else dumps(to_json(value))


def insert(tx: Tx, envelope: Envelope, now: float) -> None:
    """Insert the rows of a paglet, except its files and artifacts. Its residence must have the status `here`."""
    tx.run(
        "INSERT INTO paglets (agent_id, class_name, kind, name, home, hook, created_at, bundle, bundle_bytes,"
        " service, inactive, wakes_at, launcher_deaths) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        envelope.agent_id,
        envelope.class_name,
        envelope.kind,
        envelope.name,
        dumps(to_json(envelope.home)),
        envelope.hook,
        envelope.created_at,
        None if envelope.bundle is None else envelope.bundle.sha256,
        0 if envelope.bundle is None else envelope.bundle.size_bytes,
        envelope.service,
        int(envelope.inactive),
        None if envelope.wakes_in_seconds is None else now + envelope.wakes_in_seconds,
        envelope.launcher_deaths,
    )
    tx.run("INSERT INTO paglet_states VALUES (?, ?)", envelope.agent_id, dumps(envelope.state))
    storage_add(tx, envelope.agent_id, envelope.storage.items())
    tx.run_many(
        "INSERT INTO inbox (agent_id, sender_store, n, message, status, tries, error, priority)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (_inbox_row(envelope.agent_id, lying) for lying in envelope.inbox),
    )
    for taken in envelope.taken:
        tx.run("INSERT INTO taken_marks VALUES (?, ?, ?)", envelope.agent_id, taken.sender_store, taken.settled_below)
        tx.run_many(
            "INSERT INTO taken VALUES (?, ?, ?)", ((envelope.agent_id, taken.sender_store, n) for n in taken.ids)
        )
    if envelope.job is not None:
        _insert_job(tx, envelope.agent_id, envelope.job, now)
    tx.wake("mailbox", *(("lost_jobs",) if envelope.kind == "collector" else ()))
    tx.touch(envelope.agent_id)


def insert_bytes(tx: Tx, envelope: Envelope, now: float) -> None:
    """Insert the files and artifacts of a paglet, whose blobs must be on this host.

    A rollback of a hand-off does not call this, because the rows of files and artifacts still exist.
    """
    files.add(tx, envelope.agent_id, envelope.files)
    for artifact in envelope.artifacts:
        artifacts.add(tx, envelope.agent_id, artifact, now)


def remove_bytes(tx: Tx, agent_id: str) -> None:
    files.remove(tx, agent_id)
    artifacts.remove(tx, agent_id)


def class_of(tx: Tx, agent_id: str) -> str:
    """Return the class name of a paglet, which must be on this host."""
    return str(tx.value("SELECT class_name FROM paglets WHERE agent_id = ?", agent_id))


def bundle_of(tx: Tx, agent_id: str) -> BlobRef | None:
    """Return the bundle of a paglet on this host, or None if it has no bundle."""
    row = tx.one("SELECT bundle, bundle_bytes FROM paglets WHERE agent_id = ?", agent_id)
    if row is None or row["bundle"] is None:
        return None
    return BlobRef(sha256=row["bundle"], size_bytes=row["bundle_bytes"])


def state(tx: Tx, agent_id: str) -> Any:
    """Return the state of a paglet as tagged JSON, or None if the paglet is not on this host."""
    text = tx.value("SELECT state FROM paglet_states WHERE agent_id = ?", agent_id)
    return None if text is None else loads(text)


def set_state(tx: Tx, agent_id: str, text: str) -> None:
    """Store the state of a paglet on this host, given as the text of its tagged JSON."""
    tx.run("UPDATE paglet_states SET state = ? WHERE agent_id = ?", text, agent_id)
    tx.run("UPDATE paglets SET version = version + 1 WHERE agent_id = ?", agent_id)


def blobs_of(tx: Tx, agent_id: str, bundle: str | None) -> tuple[BlobRef, ...]:
    """Return the blobs, each once, that a target must have before this paglet can arrive there.

    The paglet must be on this host or leaving it.
    """
    rows = tx.all(
        "SELECT sha256, size_bytes FROM blobs WHERE sha256 = ? UNION"
        " SELECT sha256, size_bytes FROM files WHERE agent_id = ? UNION"
        " SELECT sha256, size_bytes FROM artifacts WHERE owner = ? ORDER BY 1",
        bundle,
        agent_id,
        agent_id,
    )
    return tuple(BlobRef(sha256=row["sha256"], size_bytes=row["size_bytes"]) for row in rows)


def blobs_here(tx: Tx, agent_id: str) -> tuple[BlobRef, ...]:
    """Return the blobs that `blobs_of` returns, for a paglet on this host."""
    return blobs_of(tx, agent_id, tx.value("SELECT bundle FROM paglets WHERE agent_id = ?", agent_id))


def has_work(tx: Tx, agent_id: str, wall: float) -> bool:
    """Return True if a paglet has a hook, a pending action or a waiting post, or its wake-up time has passed."""
    sql = (
        "SELECT 1 FROM paglets p WHERE agent_id = ? AND (hook IS NOT NULL OR intent IS NOT NULL OR wakes_at <= ?"
        " OR EXISTS (SELECT 1 FROM inbox i WHERE i.agent_id = p.agent_id AND i.status = 'waiting'))"
    )
    return tx.value(sql, agent_id, wall) is not None


def launcher_deaths(tx: Tx, agent_id: str) -> int:
    """Return how many times in a row a zygote died while code of this paglet ran."""
    return int(tx.value("SELECT launcher_deaths FROM paglets WHERE agent_id = ?", agent_id) or 0)


def set_launcher_deaths(tx: Tx, agent_id: str, count: int) -> None:
    tx.run("UPDATE paglets SET launcher_deaths = ? WHERE agent_id = ? AND launcher_deaths != ?", count, agent_id, count)


def set_problem(tx: Tx, agent_id: str, problem: str) -> None:
    """Store the reason why a requested move does not start, or "" if there is none."""
    tx.run("UPDATE paglets SET problem = ? WHERE agent_id = ? AND problem != ?", problem[:500], agent_id, problem[:500])


def _insert_job(tx: Tx, agent_id: str, job: JobPart, now: float) -> None:
    tx.run(
        "INSERT INTO requests (agent_id, group_id, job_key, collector, generation, attempt, status, request,"
        " cpu_cores, failed_attempts, losses, queued_at, here_at, stolen, reason_at, disk_fulls)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        agent_id,
        job.group_id,
        job.job_key,
        _optional(job.collector),
        job.generation,
        job.attempt,
        job.status,
        dumps(job.request),
        int(job.request["resources"]["cpu_cores"]),
        job.failed_attempts,
        job.losses,
        now - job.waited_seconds,
        now,
        int(job.stolen),
        now,
        job.disk_fulls,
    )
    tx.run(
        "INSERT INTO job_states (agent_id, outcome, checkpoint, submitted_state) VALUES (?, ?, ?, ?)",
        agent_id,
        None if job.outcome is None else dumps(job.outcome),
        None if job.checkpoint is None else dumps(job.checkpoint),
        dumps(job.submitted_state),
    )
    tx.wake("placer" if job.status == "PLACING" else "scheduler", "reconciliation")


def remove(tx: Tx, agent_id: str) -> None:
    """Delete all rows of a paglet except its residence, files, artifacts and the posts that it has sent."""
    tx.run("DELETE FROM taken WHERE agent_id = ?", agent_id)
    tx.run("DELETE FROM taken_marks WHERE agent_id = ?", agent_id)
    tx.run("DELETE FROM paglets WHERE agent_id = ?", agent_id)
    tx.touch(agent_id)


def freeze(tx: Tx, agent_id: str, epoch: int, now: float) -> Envelope:
    """Return all data of a paglet as an envelope with the given epoch."""
    rows = tx.all("SELECT key, value FROM storage WHERE agent_id = ?", agent_id)
    return replace(outline(tx, agent_id, epoch, now), storage={row["key"]: loads(row["value"]) for row in rows})


def outline(tx: Tx, agent_id: str, epoch: int, now: float) -> Envelope:
    """Return the envelope of a paglet with an empty storage. `storage_text` returns the storage."""
    row = tx.one("SELECT * FROM paglets WHERE agent_id = ?", agent_id)
    if row is None:
        raise Unknown(f"paglet {agent_id} is not on this host")
    return Envelope(
        agent_id=agent_id,
        epoch=epoch,
        class_name=row["class_name"],
        kind=row["kind"],
        state=state(tx, agent_id),
        home=from_json(HostRef, loads(row["home"])),
        created_at=row["created_at"],
        name=row["name"],
        hook=row["hook"],
        storage={},
        inbox=_inbox(tx, agent_id),
        taken=_taken(tx, agent_id),
        job=_job_part(tx, agent_id, now),
        bundle=bundle_of(tx, agent_id),
        files=files.of(tx, agent_id),
        artifacts=artifacts.carried(tx, agent_id, now),
        service=row["service"],
        inactive=bool(row["inactive"]),
        wakes_in_seconds=None if row["wakes_at"] is None else max(0.0, row["wakes_at"] - now),
        launcher_deaths=row["launcher_deaths"],
    )


def _inbox_row(agent_id: str, lying: InboxPost) -> tuple[Any, ...]:
    post, status = lying.post, "dead" if lying.dead else "waiting"
    text, priority = dumps(to_json(post.message)), post.message.priority
    return agent_id, post.sender_store, post.n, text, status, lying.tries, lying.error, priority


def _inbox(tx: Tx, agent_id: str) -> tuple[InboxPost, ...]:
    rows = tx.all("SELECT * FROM inbox WHERE agent_id = ? ORDER BY seq", agent_id)
    return tuple(
        InboxPost(
            post=Post(
                sender_store=row["sender_store"],
                n=row["n"],
                agent_id=agent_id,
                message=from_json(WireMessage, loads(row["message"])),
            ),
            dead=row["status"] == "dead",
            tries=row["tries"],
            error=row["error"],
        )
        for row in rows
    )


def _taken(tx: Tx, agent_id: str) -> tuple[TakenPosts, ...]:
    ids: dict[str, list[int]] = {}
    for row in tx.all("SELECT sender_store, n FROM taken WHERE agent_id = ? ORDER BY sender_store, n", agent_id):
        ids.setdefault(row["sender_store"], []).append(row["n"])
    marks = tx.all("SELECT * FROM taken_marks WHERE agent_id = ? ORDER BY sender_store", agent_id)
    return tuple(
        TakenPosts(
            sender_store=row["sender_store"],
            settled_below=row["settled_below"],
            ids=tuple(ids.get(row["sender_store"], ())),
        )
        for row in marks
    )


def _job_part(tx: Tx, agent_id: str, now: float) -> JobPart | None:
    row = tx.one("SELECT * FROM requests JOIN job_states USING (agent_id) WHERE agent_id = ?", agent_id)
    if row is None:
        return None
    return JobPart(
        group_id=row["group_id"],
        job_key=row["job_key"],
        collector=None if row["collector"] is None else from_json(ProxyRef, loads(row["collector"])),
        generation=row["generation"],
        attempt=row["attempt"],
        status=row["status"],
        request=loads(row["request"]),
        submitted_state=loads(row["submitted_state"]),
        checkpoint=None if row["checkpoint"] is None else loads(row["checkpoint"]),
        failed_attempts=row["failed_attempts"],
        losses=row["losses"],
        disk_fulls=row["disk_fulls"],
        waited_seconds=max(0.0, now - row["queued_at"]),
        stolen=bool(row["stolen"]),
        outcome=None if row["outcome"] is None else loads(row["outcome"]),
    )


# The functions `storage_*` read and change the storage of one paglet.


def storage_get(tx: Tx, agent_id: str, key: str) -> tuple[bool, Any]:
    """Return (True, tagged value), or (False, None) if the key does not exist."""
    text = tx.value("SELECT value FROM storage WHERE agent_id = ? AND key = ?", agent_id, key)
    return (False, None) if text is None else (True, loads(text))


def storage_set(tx: Tx, agent_id: str, key: str, value: Any) -> None:
    tx.run("INSERT OR REPLACE INTO storage VALUES (?, ?, ?)", agent_id, key, dumps(value))


def storage_delete(tx: Tx, agent_id: str, key: str) -> bool:
    return tx.run("DELETE FROM storage WHERE agent_id = ? AND key = ?", agent_id, key) == 1


def storage_texts(tx: Tx, agent_id: str, keys: Iterable[str]) -> dict[str, str | None]:
    """Return the JSON text of each of these entries, or None if there is no entry with a key."""
    asked = dict.fromkeys(keys)
    rows = tx.all(
        "SELECT key, value FROM storage WHERE agent_id = ? AND key IN (SELECT value FROM json_each(?))",
        agent_id,
        dumps(list(asked)),
    )
    return asked | {row["key"]: row["value"] for row in rows}


def storage_change(tx: Tx, agent_id: str, changes: Mapping[str, str | None]) -> None:
    """Store entries, given as JSON text. None deletes an entry, if there is one."""
    kept = [(agent_id, key, text) for key, text in changes.items() if text is not None]
    deleted = [(agent_id, key) for key, text in changes.items() if text is None]
    tx.run_many("INSERT OR REPLACE INTO storage VALUES (?, ?, ?)", kept)
    tx.run_many("DELETE FROM storage WHERE agent_id = ? AND key = ?", deleted)


def storage_scan(tx: Tx, agent_id: str, prefix: str, after: str, limit: int) -> list[tuple[str, Any]]:
    """Return entries whose key starts with `prefix` and is greater than `after`, sorted by key."""
    rows = tx.all(
        "SELECT key, value FROM storage WHERE agent_id = ? AND key > ? AND key >= ? AND key < ? ORDER BY key LIMIT ?",
        agent_id,
        after,
        prefix,
        prefix + "\U0010ffff",
        limit,
    )
    return [(row["key"], loads(row["value"])) for row in rows]


def storage_keys(tx: Tx, agent_id: str, prefix: str, after: str, limit: int) -> list[str]:
    """Return the keys of the entries that `storage_scan` returns, without reading the values."""
    rows = tx.all(
        "SELECT key FROM storage WHERE agent_id = ? AND key > ? AND key >= ? AND key < ? ORDER BY key LIMIT ?",
        agent_id,
        after,
        prefix,
        prefix + "\U0010ffff",
        limit,
    )
    return [row["key"] for row in rows]


def storage_add(tx: Tx, agent_id: str, entries: Iterable[tuple[str, Any]]) -> None:
    """Insert entries into a paglet's storage. None of the keys may exist."""
    tx.run_many("INSERT INTO storage VALUES (?, ?, ?)", ((agent_id, key, dumps(value)) for key, value in entries))


def storage_add_text(tx: Tx, agent_id: str, entries: Iterable[tuple[str, str]]) -> None:
    """Insert entries like `storage_add`. The values are given as JSON text."""
    tx.run_many("INSERT INTO storage VALUES (?, ?, ?)", ((agent_id, key, text) for key, text in entries))


def storage_text(tx: Tx, agent_id: str) -> str:
    """Return the storage of a paglet as the text of a JSON object, without parsing the values."""
    rows = tx.each("SELECT key, value FROM storage WHERE agent_id = ? ORDER BY key", agent_id)
    return "{" + ",".join(f"{dumps(key)}:{value}" for key, value in rows) + "}"


def storage_count(tx: Tx, agent_id: str) -> int:
    return int(tx.value("SELECT count(*) FROM storage WHERE agent_id = ?", agent_id))


def class_name(tx: Tx, agent_id: str) -> str | None:
    """Return the class name of a paglet, or None if it is not on this host."""
    name: str | None = tx.value("SELECT class_name FROM paglets WHERE agent_id = ?", agent_id)
    return name


def state_version(tx: Tx, agent_id: str) -> int | None:
    """Return the version of the state, which each change increases, or None if the paglet is not on this host."""
    version: int | None = tx.value("SELECT version FROM paglets WHERE agent_id = ?", agent_id)
    return version


def set_arrival(tx: Tx, agent_id: str) -> None:
    """Set the next hook to `arrival` and delete the pending action, before the paglet leaves."""
    tx.run("UPDATE paglets SET hook = 'arrival', intent = NULL WHERE agent_id = ?", agent_id)


def drop_intent(tx: Tx, agent_id: str) -> None:
    """Delete the pending action of a paglet, such as a requested move."""
    tx.run("UPDATE paglets SET intent = NULL WHERE agent_id = ?", agent_id)


def state_value(tx: Tx, agent_id: str, name: str) -> Any:
    """Return one top-level value of the state of a paglet on this host, or None if there is none."""
    return tx.value(f"SELECT json_extract(state, '$.{name}') FROM paglet_states WHERE agent_id = ?", agent_id)


def unfinished_collectors(tx: Tx) -> list[str]:
    """Return the collectors on this host that have unfinished jobs: those with job descriptions in their storage."""
    rows = tx.all(
        "SELECT agent_id FROM paglets WHERE kind = 'collector' AND EXISTS (SELECT 1 FROM storage s"
        " WHERE s.agent_id = paglets.agent_id AND s.key > 'template/' AND s.key < 'template0') ORDER BY agent_id"
    )
    return [row["agent_id"] for row in rows]


def all_storage_keys(tx: Tx, agent_id: str) -> list[str]:
    """Return all keys of a paglet's storage, sorted."""
    return [row["key"] for row in tx.all("SELECT key FROM storage WHERE agent_id = ? ORDER BY key", agent_id)]
