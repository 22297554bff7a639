"""The outcomes of attempts, and the end of jobs. Each change is one transaction.

Only the first outcome committed for an attempt counts. If it is a success or is final, the same transaction puts a
report to the collector into the outbox. The lease stays until the run of the attempt has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from paglets.codec.envelope import WireMessage
from paglets.codec.strict_json import dumps
from paglets.core.record import from_json, to_json
from paglets.core.refs import ArtifactRef, HostRef, ProxyRef
from paglets.core.text import counted
from paglets.host.records import disk_full_policy
from paglets.host.records.exits import LAUNCHER_LOST, LOST, cause_of, describe
from paglets.host.records.lifecycle import keep_files
from paglets.slots import states
from paglets.slots.amounts import bytes_text
from paglets.store import files, history, jobfiles, paglets, posts, queue, residence
from paglets.store.db import Tx
from paglets.store.queue import JobRow
from paglets.worker.launch import DISK_FULL, ProcessExit
from paglets.worker.protocol import Fault, NewArtifact

DISK_LIMIT = "disk_limit"
MOST_LAUNCHER_DEATHS = 10
"""The number of zygote deaths in a row that a job may survive. One more fails it.

After the first death, the job gets a zygote of its own. If that zygote dies while the job runs, the job is the cause,
and its attempt fails. Many other deaths mean that the host has a problem that further attempts do not solve.
"""

CANCELLED = "cancelled"
BY_HAND = "by hand: "
"""The prefix of the reason of a cancellation if a person cancelled the job copy on this host.

The end of such a copy is reported to its collector.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt of a job on a host. `runtime_seconds` is monotonic, except after a restart of the host.

    `remark` is a text for the user about how the attempt ended. `cut_off` is True if the attempt ended before its
    process sent `done`.
    """

    agent_id: str
    attempt: int
    host: HostRef
    runtime_seconds: float
    remark: str = ""
    cut_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of an attempt. `final` is True if no further attempt may follow."""

    success: bool
    final: bool
    result: Any = None
    fault: Fault | None = None
    artifact: NewArtifact | None = None
    stored: tuple[NewArtifact, ...] = ()


def commit(tx: Tx, attempt: Attempt, outcome: Outcome, now: float) -> bool:
    """Store the outcome of an attempt. Report it to the collector if it is a success or final.

    Return False if the attempt already has an outcome or is not the current one.
    """
    job = queue.job(tx, attempt.agent_id)
    if job is None or not queue.set_outcome(tx, attempt.agent_id, attempt.attempt, to_json(outcome)):
        return False
    if outcome.success or outcome.final:
        _report(tx, job, attempt, outcome, "", now)
    return True


def _report(tx: Tx, job: JobRow, attempt: Attempt, outcome: Outcome, stderr_tail: str, now: float) -> None:
    if job.collector is None:
        return
    args: dict[str, Any] = {
        "job_key": job.job_key,
        "generation": job.generation,
        "attempt": attempt.attempt,
        "host_name": attempt.host.name,
        "runtime_seconds": round(attempt.runtime_seconds, 6),
    }
    if outcome.success:
        new = outcome.stored if outcome.artifact is None else (outcome.artifact, *outcome.stored)
        carried = tuple(artifact_ref(each, job.collector) for each in new)
        message = WireMessage(kind="job_result", args={**args, "result": outcome.result}, artifacts=carried)
    else:
        fault = outcome.fault or Fault(cause="no_result", message="the job ended without a report")
        message = WireMessage(kind="job_failure", args={**args, **_failure(fault, stderr_tail)})
    posts.send(tx, job.collector, message, now, group_id=job.group_id, report_of=job.agent_id)


def artifact_ref(new: NewArtifact, owner: ProxyRef) -> ArtifactRef:
    """Return a reference to a new artifact of `owner`. Its host is the last known host of the owner."""
    left = new.expires_in_seconds
    return ArtifactRef(
        artifact_id=new.artifact_id,
        name=new.name,
        size_bytes=new.blob.size_bytes,
        sha256=new.blob.sha256,
        host_name=owner.host.name,
        owner=owner.agent_id,
        created_at=new.created_at,
        expires_at=None if left is None else new.created_at + left,
    )


def _failure(fault: Fault, stderr_tail: str) -> dict[str, Any]:
    return {
        "cause": fault.cause,
        "message": fault.message,
        "traceback": fault.traceback,
        "stderr_tail": stderr_tail,
    }


def ended(tx: Tx, attempt: Attempt, how: ProcessExit, now: float) -> str | None:
    """Release the slot of an attempt whose run has ended, and change the status of its job.

    Return the new status. Return None if the job neither runs this attempt nor waits to begin it in a warm worker.
    """
    granted_at = queue.release(tx, attempt.agent_id)
    job = queue.job(tx, attempt.agent_id)
    if job is not None and job.status == "ASSIGNED" and job.attempt + 1 == attempt.attempt:
        return _not_begun(tx, job, attempt, how, now)
    if job is None or job.status != "RUNNING" or job.attempt != attempt.attempt:
        return None
    event = _event(tx, job, attempt, how, now)
    new = states.move(job.status, event)
    queue.move(tx, job.agent_id, job.status, new, attempt.attempt)
    cause = _cause(queue.job(tx, job.agent_id) or job if event == "failed" else job, how)
    if event == "displaced":
        _set_displaced_reason(tx, job, attempt, now)
    history.record(tx, job, _record(job, attempt, how, new, granted_at, cause), now)
    if new == "COMPLETED" and attempt.cut_off and not _has_plans(tx, job.agent_id):
        # The process ended before it sent `done`, which might have requested to move the files. So keep the files.
        keep_files(tx, job.agent_id, now)
    retire(tx, job.agent_id, now)
    return new


def _not_begun(tx: Tx, job: JobRow, attempt: Attempt, how: ProcessExit, now: float) -> str:
    """Handle the end of a run that did not begin in its warm worker. Return the new status of the job."""
    event = "lost" if job.unwanted is None else _end_cancelled(tx, job, job.unwanted, attempt, how, now)
    new = states.move(job.status, event)
    queue.move(tx, job.agent_id, job.status, new, job.attempt)
    retire(tx, job.agent_id, now)
    return new


def _has_plans(tx: Tx, agent_id: str) -> bool:
    sql = "SELECT 1 FROM paglets WHERE agent_id = ? AND (intent IS NOT NULL OR hook IS NOT NULL)"
    return tx.value(sql, agent_id) is not None


def _event(tx: Tx, job: JobRow, attempt: Attempt, how: ProcessExit, now: float) -> str:
    outcome = None if job.outcome is None else from_json(Outcome, job.outcome)
    if outcome is not None and (outcome.success or outcome.final):
        return "completed" if outcome.success else "failed"
    if job.unwanted is not None:
        return _end_cancelled(tx, job, job.unwanted, attempt, how, now)
    if outcome is None and how.launcher_lost and not how.is_culprit:
        return _lose(tx, job, attempt, how, now)
    if outcome is not None and outcome.fault is not None and outcome.fault.cause == DISK_FULL:
        return _handle_full_disk(tx, job, attempt, outcome.fault, how, now)
    return _fail_attempt(tx, job, attempt, outcome or _from_exit(how), how, now)


def _end_cancelled(tx: Tx, job: JobRow, why: str, attempt: Attempt, how: ProcessExit, now: float) -> str:
    """Return the event for the end of a cancelled copy. Report the end if a person cancelled the copy on this host.

    Otherwise the collector itself requested the cancellation, so it needs no report.
    """
    if why.startswith(BY_HAND):
        fault = Fault(cause=CANCELLED, message=why.removeprefix(BY_HAND))
        _report(tx, job, attempt, Outcome(success=False, final=True, fault=fault), how.stderr_tail, now)
    return "cancelled"


def _cause(job: JobRow, how: ProcessExit) -> str:
    """Return the cause of the failure of an ended attempt, or "" if it has succeeded."""
    outcome = None if job.outcome is None else from_json(Outcome, job.outcome)
    if outcome is not None and (outcome.success or outcome.fault is not None):
        return "" if outcome.fault is None else outcome.fault.cause
    return CANCELLED if job.unwanted is not None else cause_of(how)


def _lose(tx: Tx, job: JobRow, attempt: Attempt, how: ProcessExit, now: float) -> str:
    """Handle an attempt that ended with its host or zygote, not because of the job. Return the event.

    An attempt that the host could not start does not count as a loss.
    """
    if how.error:
        return "lost"
    if how.launcher_died:
        return _lose_launcher(tx, job, attempt, how, now)
    tx.run("UPDATE requests SET losses = losses + 1 WHERE agent_id = ?", job.agent_id)
    if job.losses + 1 <= job.request.max_losses:
        return "lost"
    times = counted(job.losses + 1, "time")
    text = f"the job was lost {times} with its host; max_losses is {job.request.max_losses}"
    fault = Fault(cause=LOST, message=text)
    _report(tx, job, attempt, Outcome(success=False, final=True, fault=fault), how.stderr_tail, now)
    return "failed"


def _lose_launcher(tx: Tx, job: JobRow, attempt: Attempt, how: ProcessExit, now: float) -> str:
    """Handle the end of an attempt whose zygote died, without the job as the cause. Return the event.

    Zygote deaths do not count as losses, because `count_launcher` counts them separately.
    """
    deaths = paglets.launcher_deaths(tx, job.agent_id)
    if deaths <= MOST_LAUNCHER_DEATHS:
        return "lost"
    text = (
        f"the process that starts jobs ended {deaths} times in a row while the job ran, "
        f"most recently on {attempt.host.name}"
    )
    fault = Fault(cause=LAUNCHER_LOST, message=text)
    _report(tx, job, attempt, Outcome(success=False, final=True, fault=fault), how.stderr_tail, now)
    return "failed"


def count_launcher(tx: Tx, agent_id: str, entry: str, how: ProcessExit) -> None:
    """Count the zygote deaths in a row that hit a paglet. A process that ends by itself resets the count to 0.

    For a job, only the process of an attempt resets it, because hooks of the job do not run the suspected code.
    """
    if how.launcher_died:
        paglets.set_launcher_deaths(tx, agent_id, paglets.launcher_deaths(tx, agent_id) + 1)
    elif not how.launcher_lost and (entry == "attempt" or queue.job(tx, agent_id) is None):
        paglets.set_launcher_deaths(tx, agent_id, 0)


def _handle_full_disk(tx: Tx, job: JobRow, attempt: Attempt, fault: Fault, how: ProcessExit, now: float) -> str:
    """Handle an attempt that found the disk full, which is neither a failed attempt nor a loss. Return the event."""
    used, asked = max(how.usage.scratch_bytes, fault.scratch_bytes), job.request.resources.temp_storage_bytes
    decided, allowed = disk_full_policy.verdict(job.disk_fulls, used, asked), disk_full_policy.allowed(asked)
    tx.run("UPDATE requests SET disk_fulls = disk_fulls + 1 WHERE agent_id = ?", job.agent_id)
    if decided == "again":
        tx.run("UPDATE job_states SET outcome = NULL WHERE agent_id = ?", job.agent_id)
        # Delete the files of this attempt now: the next attempt does not use them, and the disk needs the space.
        files.begin_attempt(tx, job.agent_id)
        return "displaced"
    if decided == "limit":
        limit = f"{'its disk request' if asked else 'the limit without a disk request'} is {bytes_text(allowed)}"
        more = f"the job's scratch directory had {bytes_text(used)}, and {limit}"
        fault = replace(fault, cause=DISK_LIMIT, message=f"{fault.message}; {more}")
    else:
        times = counted(job.disk_fulls + 1, "time")
        fault = replace(
            fault, message=f"{fault.message}; the job met a full disk {times}, most recently on {attempt.host.name}"
        )
    outcome = Outcome(success=False, final=True, fault=fault)
    tx.run("UPDATE job_states SET outcome = ? WHERE agent_id = ?", dumps(to_json(outcome)), job.agent_id)
    _report(tx, job, attempt, outcome, how.stderr_tail, now)
    return "failed"


def _set_displaced_reason(tx: Tx, job: JobRow, attempt: Attempt, now: float) -> None:
    times = job.disk_fulls + 1
    text = (
        f"the disk of {attempt.host.name} was full while the job ran (time {times} of {disk_full_policy.MOST_TIMES}); "
        f"the job is placed again after {disk_full_policy.pause_seconds(times):g} s, on another host if possible"
    )
    queue.set_reason(tx, job.agent_id, DISK_FULL, text, False, now)


def _fail_attempt(tx: Tx, job: JobRow, attempt: Attempt, outcome: Outcome, how: ProcessExit, now: float) -> str:
    tx.run("UPDATE requests SET failed_attempts = failed_attempts + 1 WHERE agent_id = ?", job.agent_id)
    tx.run("UPDATE job_states SET outcome = NULL WHERE agent_id = ?", job.agent_id)
    if job.failed_attempts + 1 < job.request.max_attempts:
        return "retried"
    tx.run("UPDATE job_states SET outcome = ? WHERE agent_id = ?", dumps(to_json(outcome)), job.agent_id)
    _report(tx, job, attempt, outcome, how.stderr_tail, now)
    return "failed"


def _from_exit(how: ProcessExit) -> Outcome:
    return Outcome(success=False, final=False, fault=Fault(cause=cause_of(how), message=describe(how)))


def _record(
    job: JobRow, attempt: Attempt, how: ProcessExit, status: str, granted_at: float | None, cause: str
) -> dict[str, Any]:
    return {
        "status": status,
        "cause": cause,
        "remark": attempt.remark,
        "generation": job.generation,
        "attempt": attempt.attempt,
        "granted_at": granted_at,
        "runtime_seconds": attempt.runtime_seconds,
        "exit_code": how.exit_code,
        "signal": how.signal,
        "silent": how.silent,
        "no_template": how.no_template,
        "worker_ended": how.worker_ended if how.in_worker else None,
        "usage": to_json(how.usage),
    }


def fail_waiting(
    tx: Tx, agent_id: str, cause: str, message: str, host: HostRef, now: float, *, reported: bool = False
) -> bool:
    """End a waiting job without further attempts. `cause` is "placement_timeout" or "cancelled".

    If `reported` is True, send no report, because the collector has already recorded the failure. Return False if the
    job is ASSIGNED, runs or has ended.
    """
    job = queue.job(tx, agent_id)
    if job is None or job.status not in ("PLACING", "WAITING_FOR_SLOT"):
        return False
    event = "cancelled" if cause == "cancelled" else "failed"
    queue.move(tx, agent_id, job.status, states.move(job.status, event))
    attempt = Attempt(agent_id=agent_id, attempt=job.attempt, host=host, runtime_seconds=0.0)
    outcome = Outcome(success=False, final=True, fault=Fault(cause=cause, message=message))
    if not reported:
        _report(tx, job, attempt, outcome, "", now)
    retire(tx, agent_id, now)
    return True


def end_by_hand(tx: Tx, agent_id: str, host: HostRef, now: float) -> None:
    """Dispose of a paglet because a person requested it.

    A waiting job of a group is cancelled instead. It is disposed of once its collector has acknowledged the report.
    """
    tx.wake("cleanup")
    job = queue.job(tx, agent_id)
    if job is not None and job.collector is not None and job.status in ("PLACING", "WAITING_FOR_SLOT"):
        tx.run("UPDATE paglets SET intent = NULL WHERE agent_id = ?", agent_id)
        fail_waiting(tx, agent_id, "cancelled", f"ended by hand on {host.name}", host, now)
    else:
        jobfiles.give_to_host(tx, agent_id)
        residence.dispose(tx, agent_id, now)


def retire(tx: Tx, agent_id: str, now: float) -> None:
    """Dispose of a finished copy of a job if its collector has acknowledged the report and nothing is pending.

    The copy stays while it has a process, a hook, a pending action or a failed hook, or is inactive. A job without a
    collector stays until it is disposed of explicitly, because only its row holds its state.
    """
    row = tx.one(
        "SELECT 1 FROM requests r JOIN paglets p USING (agent_id) WHERE r.agent_id = ? AND r.collector IS NOT NULL"
        " AND r.status IN ('COMPLETED', 'FAILED_FINAL', 'CANCELLED') AND p.intent IS NULL AND p.hook IS NULL"
        " AND p.inactive = 0"
        " AND NOT EXISTS (SELECT 1 FROM outbox WHERE report_of = r.agent_id)"
        " AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.agent_id = r.agent_id)"
        " AND NOT EXISTS (SELECT 1 FROM failed_hooks f WHERE f.agent_id = r.agent_id)",
        agent_id,
    )
    if row is not None:
        residence.dispose(tx, agent_id, now)
        tx.wake("cleanup")
