"""The outcomes of attempts, and the end of jobs. Each change is one transaction.

The first outcome committed for an attempt stands. A final one puts the report to the collector into
the outbox in the same transaction; the lease ends when the attempt's process tree has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from signal import Signals
from typing import Any

from paglets.codec.envelope import WireMessage
from paglets.codec.strict_json import dumps
from paglets.core.record import from_json, to_json
from paglets.core.refs import ArtifactRef, HostRef, ProxyRef
from paglets.core.text import counted
from paglets.host.records import disk_full_policy
from paglets.host.records.lifecycle import keep_files
from paglets.slots import states
from paglets.slots.amounts import bytes_text
from paglets.store import files, history, jobfiles, paglets, posts, queue, residence
from paglets.store.db import Tx
from paglets.store.queue import JobRow
from paglets.worker.launch import DISK_FULL, ProcessExit
from paglets.worker.protocol import Fault, NewArtifact

LOST = "host_lost"
DISK_LIMIT = "disk_limit"
LAUNCHER_LOST = "launcher_lost"
KILLED_LAUNCHER = "killed_launcher"
MOST_LAUNCHER_DEATHS = 10
"""The number of zygote deaths after which a job fails.

From the second attempt on, the job has a zygote of its own, and is the cause if that one dies. So many deaths of other
zygotes have a cause on the host that more attempts do not remove.
"""

CANCELLED = "cancelled"
BY_HAND = "by hand: "
"""The prefix of a cancellation reason that came from a person. The end of such a copy is reported to its collector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt of a job on a host. `runtime_seconds` is measured with the host's monotonic clock.

    `remark` is extra text for people about its end. `cut_off` is True if its process ended before its final report.
    """

    agent_id: str
    attempt: int
    host: HostRef
    runtime_seconds: float
    remark: str = ""
    cut_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of an attempt. `final` is True if the job reported it as such: no further attempt may follow."""

    success: bool
    final: bool
    result: Any = None
    fault: Fault | None = None
    artifact: NewArtifact | None = None
    stored: tuple[NewArtifact, ...] = ()


def commit(tx: Tx, attempt: Attempt, outcome: Outcome, now: float) -> bool:
    """Store the outcome, and report it if it is final. Return False if the attempt already has one."""
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
    """Return the reference of a new artifact of `owner`, with the owner's last known host."""
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
    """Release the slot of an attempt whose process tree has ended. Return the new status of its job."""
    granted_at = queue.release(tx, attempt.agent_id)
    job = queue.job(tx, attempt.agent_id)
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
        # The process ended before its final report, which might have requested a move with the files: keep them.
        keep_files(tx, job.agent_id, now)
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
    """Report the end of a cancelled copy only if a person cancelled it here: otherwise its collector asked for it."""
    if why.startswith(BY_HAND):
        fault = Fault(cause=CANCELLED, message=why.removeprefix(BY_HAND))
        _report(tx, job, attempt, Outcome(success=False, final=True, fault=fault), how.stderr_tail, now)
    return "cancelled"


def _cause(job: JobRow, how: ProcessExit) -> str:
    """Return the cause of an ended attempt, "" if it has a result."""
    outcome = None if job.outcome is None else from_json(Outcome, job.outcome)
    if outcome is not None and (outcome.success or outcome.fault is not None):
        return "" if outcome.fault is None else outcome.fault.cause
    return CANCELLED if job.unwanted is not None else cause_of(how)


def _lose(tx: Tx, job: JobRow, attempt: Attempt, how: ProcessExit, now: float) -> str:
    """Handle an attempt that was lost through no fault of its job. One that the host could not start does not count."""
    if how.error:
        return "lost"
    if how.launcher_died:
        return _lose_launcher(tx, job, attempt, how, now)
    tx.run("UPDATE requests SET losses = losses + 1 WHERE agent_id = ?", job.agent_id)
    if job.losses + 1 <= job.request.max_losses:
        return "lost"
    fault = Fault(
        cause=LOST, message=f"lost {job.losses + 1} times with its host; max_losses is {job.request.max_losses}"
    )
    _report(tx, job, attempt, Outcome(success=False, final=True, fault=fault), how.stderr_tail, now)
    return "failed"


def _lose_launcher(tx: Tx, job: JobRow, attempt: Attempt, how: ProcessExit, now: float) -> str:
    """Handle the death of a shared zygote. It does not count as a loss, but has its own counter (`count_launcher`)."""
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


def count_launcher(tx: Tx, agent_id: str, how: ProcessExit) -> None:
    """Count consecutive zygote deaths of a paglet. A process that ends by itself resets the counter."""
    if how.launcher_died:
        paglets.set_launcher_deaths(tx, agent_id, paglets.launcher_deaths(tx, agent_id) + 1)
    elif not how.launcher_lost:
        paglets.set_launcher_deaths(tx, agent_id, 0)


def _handle_full_disk(tx: Tx, job: JobRow, attempt: Attempt, fault: Fault, how: ProcessExit, now: float) -> str:
    """Handle a full disk of this host, which counts neither as a failed attempt nor as a loss."""
    used, asked = max(how.usage.scratch_bytes, fault.scratch_bytes), job.request.resources.temp_storage_bytes
    decided = disk_full_policy.verdict(job.disk_fulls, used, asked)
    tx.run("UPDATE requests SET disk_fulls = disk_fulls + 1 WHERE agent_id = ?", job.agent_id)
    if decided == "again":
        tx.run("UPDATE job_states SET outcome = NULL WHERE agent_id = ?", job.agent_id)
        # Delete the files of this attempt now: the next attempt starts without them, and the disk needs the space.
        files.begin_attempt(tx, job.agent_id)
        return "displaced"
    if decided == "limit":
        limit = f"{bytes_text(disk_full_policy.allowed(asked))} {'requested' if asked else 'allowed without a request'}"
        more = f"its scratch directory had {bytes_text(used)}, and the limit is {limit}"
        fault = replace(fault, cause=DISK_LIMIT, message=f"{fault.message}; {more}")
    else:
        times = counted(job.disk_fulls + 1, "time")
        fault = replace(
            fault, message=f"{fault.message}; it met a full disk {times}, most recently on {attempt.host.name}"
        )
    outcome = Outcome(success=False, final=True, fault=fault)
    tx.run("UPDATE job_states SET outcome = ? WHERE agent_id = ?", dumps(to_json(outcome)), job.agent_id)
    _report(tx, job, attempt, outcome, how.stderr_tail, now)
    return "failed"


def _set_displaced_reason(tx: Tx, job: JobRow, attempt: Attempt, now: float) -> None:
    times = job.disk_fulls + 1
    text = (
        f"the disk of {attempt.host.name} was full while it ran ({times} of {disk_full_policy.MOST_TIMES}); "
        f"it is placed again in {disk_full_policy.pause_seconds(times):g} s, on another host if possible"
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


def cause_of(how: ProcessExit) -> str:
    """Return the cause, from the closed list, of a process that ended without an outcome."""
    if how.is_culprit:
        return KILLED_LAUNCHER
    if how.launcher_lost:
        return LAUNCHER_LOST if how.launcher_died else LOST
    if how.error:
        return "spawn_failed"
    if how.oom:
        return "oom"
    if how.signal is not None:
        return f"signal:{signal_name(how.signal)}"
    if how.exit_code:
        return f"exit:{how.exit_code}"
    return "no_result"


def signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return str(number)


def describe(how: ProcessExit, expected: str = "") -> str:
    """Describe the end of a process. `expected` names the event that should have come first, by default a report."""
    if how.error:
        return f"the process could not be started: {how.error}"
    if how.is_culprit:
        return "its process killed or stopped the process that starts jobs, which had no other job"
    if how.launcher_lost:
        what = "the process that starts jobs" if how.launcher_died else "its host"
        return f"the process was lost with {what}"
    if how.signal is not None:
        return f"the process was ended by {signal_name(how.signal)}"
    if how.exit_code:
        return f"the process ended with exit code {how.exit_code} before {expected or 'it reported a result'}"
    return f"the process ended before {expected}" if expected else "the process ended without a report"


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
        "usage": to_json(how.usage),
    }


def fail_waiting(
    tx: Tx, agent_id: str, cause: str, message: str, host: HostRef, now: float, *, reported: bool = False
) -> bool:
    """Fail a job that is not running for good (placement_timeout, cancelled). Return False if it runs or has ended.

    If `reported`, the collector has recorded the failure already, and gets no report.
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
    """Dispose of a paglet at a person's request. First report a waiting job of a group to its collector."""
    tx.wake("cleanup")
    job = queue.job(tx, agent_id)
    if job is not None and job.collector is not None and job.status in ("PLACING", "WAITING_FOR_SLOT"):
        tx.run("UPDATE paglets SET intent = NULL WHERE agent_id = ?", agent_id)
        fail_waiting(tx, agent_id, "cancelled", f"ended by hand on {host.name}", host, now)
    else:
        jobfiles.give_to_host(tx, agent_id)
        residence.dispose(tx, agent_id, now)


def retire(tx: Tx, agent_id: str, now: float) -> None:
    """Dispose of a finished copy of a group job whose report is acknowledged, if nothing of it is pending.

    It stays while it has a process, a hook, a pending action or a failed hook, or is inactive. A job without a group
    stays until it is disposed of, because only its row holds its state.
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
