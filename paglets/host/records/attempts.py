"""The attempts of a job that this host knows from its queue, its running processes, its history and its logs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from paglets.api.groups import JobCopy
from paglets.api.logs import Attempts, AttemptView, UnfinishedJob
from paglets.codec.strict_json import loads
from paglets.core.refs import HostRef, check_agent_id, check_group_id, check_job_key
from paglets.host.datadir.logs import Key
from paglets.host.runtime.services import Disk
from paglets.slots.states import FINAL
from paglets.store import handoffs, kept_scratch, views
from paglets.store.db import Store, Tx
from paglets.store.kept_scratch import KeptScratch

MOST_ATTEMPTS = 1_000


@dataclass(kw_only=True)
class _Known:
    """The attempts found so far. `jobs` maps the id of each copy of the job to its group id and job key."""

    jobs: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    attempts: dict[Key, AttemptView] = field(default_factory=dict)
    unfinished: list[UnfinishedJob] = field(default_factory=list)


def attempts(store: Store, disk: Disk, job: str, own: HostRef) -> Attempts:
    """Return the newest attempts, oldest first, and the unfinished copies of a job that this host knows.

    `job` is `GROUP/KEY` or the id of a paglet. Raises Invalid.
    """
    condition, values = _condition(job)
    known = store.read(lambda tx: _of_rows(tx, condition, values, own))
    agents = list(known.jobs) or ([] if "/" in job else [job])
    for agent_id in agents:
        _add_logs(known, agent_id, disk.logs(agent_id), own)
    newest = sorted(known.attempts.values(), key=lambda view: (view.generation, view.attempt, view.agent_id))
    return Attempts(attempts=tuple(newest[-MOST_ATTEMPTS:]), unfinished=tuple(known.unfinished))


def is_at_work(tx: Tx, key: Key) -> bool:
    """Return True if the attempt has a process or is about to start one."""
    return tx.value("SELECT 1 FROM runs WHERE agent_id = ? AND generation = ? AND attempt = ?", *key) is not None


def all_at_work(tx: Tx) -> frozenset[Key]:
    rows = tx.all("SELECT agent_id, generation, attempt FROM runs ORDER BY agent_id")
    return frozenset((row["agent_id"], row["generation"], row["attempt"]) for row in rows)


def _condition(job: str) -> tuple[str, tuple[str, ...]]:
    group_id, slash, job_key = job.partition("/")
    if slash:
        return "group_id = ? AND job_key = ?", (check_group_id(group_id), check_job_key(job_key))
    return "agent_id = ?", (check_agent_id(job),)


def _of_rows(tx: Tx, condition: str, values: tuple[str, ...], own: HostRef) -> _Known:
    known = _Known()
    rows = tx.all(f"SELECT * FROM history WHERE {condition} ORDER BY id DESC LIMIT {MOST_ATTEMPTS}", *values)
    for row in rows:
        _add_ended(known, row, kept_scratch.find(tx, row["agent_id"]), own)
    here = "SELECT r.*, s.epoch FROM requests r JOIN residence s USING (agent_id)"
    for row in tx.all(f"{here} WHERE {condition} ORDER BY generation", *values):
        _add_copy(known, views.copy_here(row), own)
    for job in handoffs.jobs(tx, condition, *values):
        _add_copy(known, job.copy, own)
    for agent_id in list(known.jobs) or (values if len(values) == 1 else ()):
        for row in tx.all(_BEGUN, agent_id):
            _add_running(known, row, own)
    return known


_BEGUN = (
    "SELECT * FROM runs WHERE agent_id = ? AND NOT EXISTS"
    " (SELECT 1 FROM requests q WHERE q.agent_id = runs.agent_id AND status = 'ASSIGNED')"
)
"""The query for the run of a paglet. It skips a job that waits in a warm worker, because its attempt has not begun."""


def _add_ended(known: _Known, row: Any, scratch: KeptScratch | None, own: HostRef) -> None:
    record = loads(row["record"])
    if scratch is not None and (scratch.generation, scratch.attempt) != (record["generation"], record["attempt"]):
        scratch = None
    known.jobs[row["agent_id"]] = (row["group_id"], row["job_key"])
    known.attempts[row["agent_id"], record["generation"], record["attempt"]] = AttemptView(
        agent_id=row["agent_id"],
        group_id=row["group_id"],
        job_key=row["job_key"],
        generation=record["generation"],
        attempt=record["attempt"],
        status=record["status"],
        ended=True,
        kept=bool(record.get("silent")),
        host=own,
        runtime_seconds=record["runtime_seconds"],
        cause=record["cause"],
        remark=record.get("remark", ""),
        no_template=record.get("no_template", ""),
        isolation="process" if record.get("worker_ended") is None else "worker",
        worker_ended=record.get("worker_ended") or "",
        scratch="" if scratch is None else scratch.path,
        scratch_removed_at=None if scratch is None else scratch.removed_at,
    )


def _add_copy(known: _Known, copy: JobCopy, own: HostRef) -> None:
    known.jobs[copy.agent_id] = (copy.group_id or None, copy.job_key)
    if copy.status not in FINAL:
        known.unfinished.append(
            UnfinishedJob(
                agent_id=copy.agent_id,
                generation=copy.generation,
                attempt=copy.attempt,
                status=copy.status,
                residence=copy.residence,
                reason=copy.reason,
                reason_text=copy.reason_text,
                never=copy.never,
                host=copy.target or own,
            )
        )


def _add_running(known: _Known, row: Any, own: HostRef) -> None:
    """Add a running attempt. Ignore the other runs of a job, such as a message handler."""
    agent_id, generation, attempt = row["agent_id"], row["generation"], row["attempt"]
    if agent_id not in known.jobs or row["entry"] == "attempt":
        group_id, job_key = known.jobs.get(agent_id, (None, ""))
        known.attempts[agent_id, generation, attempt] = AttemptView(
            agent_id=agent_id,
            group_id=group_id,
            job_key=job_key,
            generation=generation,
            attempt=attempt,
            status="RUNNING",
            ended=False,
            kept=False,
            host=own,
        )


def _add_logs(known: _Known, agent_id: str, there: tuple[tuple[int, int], ...], own: HostRef) -> None:
    """Mark the attempts that have logs, and add unknown ones.

    Ignore the logs of attempt 0 of a job. They hold the output of hooks that ran before the first attempt.
    """
    for generation, attempt in there:
        key = (agent_id, generation, attempt)
        if attempt == 0 and agent_id in known.jobs:
            continue
        group_id, job_key = known.jobs.get(agent_id, (None, ""))
        view = known.attempts.get(key) or AttemptView(
            agent_id=agent_id,
            group_id=group_id,
            job_key=job_key,
            generation=generation,
            attempt=attempt,
            status="",
            ended=True,
            kept=True,
            host=own,
        )
        known.attempts[key] = replace(view, kept=True)
