"""Insert the first copies of a group's jobs in few statements. Their JSON is made before the transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paglets.codec.strict_json import dumps
from paglets.core.errors import Conflict
from paglets.core.record import to_json
from paglets.core.refs import BlobRef, FileRef, HostRef, ProxyRef
from paglets.store import files
from paglets.store.db import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that has no host yet. `request`, `state` and `description` (see `groups.rows`) are JSON text."""

    agent_id: str
    job_key: str
    request: str
    cpu_cores: int
    state: str
    description: str
    files: tuple[FileRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGroup:
    """The data that all jobs of a group have in common. `generation` is that of the first copies."""

    group_id: str
    class_name: str
    home: HostRef
    collector: ProxyRef
    bundle: BlobRef | None
    generation: int


def add(tx: Tx, jobs: Sequence[NewJob], group: NewGroup, now: float) -> None:
    """Store the jobs on this host with the status PLACING. Raises Conflict if one of the ids exists already.

    This inserts the same rows as a call of `residence.create` for each job.
    """
    _check_unknown(tx, jobs)
    home, collector = dumps(to_json(group.home)), dumps(to_json(group.collector))
    bundle, bundle_bytes = (None, 0) if group.bundle is None else (group.bundle.sha256, group.bundle.size_bytes)
    tx.run_many(
        "INSERT INTO residence (agent_id, epoch, status, settled, since_at) VALUES (?, 1, 'here', 1, ?)",
        ((job.agent_id, now) for job in jobs),
    )
    tx.run_many(
        "INSERT INTO paglets (agent_id, class_name, kind, home, created_at, bundle, bundle_bytes)"
        " VALUES (?, ?, 'job', ?, ?, ?, ?)",
        ((job.agent_id, group.class_name, home, now, bundle, bundle_bytes) for job in jobs),
    )
    tx.run_many("INSERT INTO paglet_states VALUES (?, ?)", ((job.agent_id, job.state) for job in jobs))
    tx.run_many(
        "INSERT INTO requests (agent_id, group_id, job_key, collector, generation, status, request, cpu_cores,"
        " queued_at, here_at, reason_at) VALUES (?, ?, ?, ?, ?, 'PLACING', ?, ?, ?, ?, ?)",
        (
            (
                *(job.agent_id, group.group_id, job.job_key, collector, group.generation),
                *(job.request, job.cpu_cores, now, now, now),
            )
            for job in jobs
        ),
    )
    tx.run_many(
        "INSERT INTO job_states (agent_id, submitted_state) VALUES (?, ?)", ((job.agent_id, job.state) for job in jobs)
    )
    for job in jobs:
        if job.files:
            files.add(tx, job.agent_id, job.files)
    tx.wake("placer", "reconciliation", "mailbox")


def _check_unknown(tx: Tx, jobs: Sequence[NewJob]) -> None:
    known = tx.value(
        "SELECT value FROM json_each(?) JOIN residence ON agent_id = value LIMIT 1",
        dumps([job.agent_id for job in jobs]),
    )
    if known is not None:
        key = next(job.job_key for job in jobs if job.agent_id == known)
        raise Conflict(f"job {key} cannot have the id {known}: another paglet has it")
