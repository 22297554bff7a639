"""Copies, failed hooks and files of jobs, as all reachable hosts report them. The group's collector is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from paglets.api.slots import JobView
from paglets.api.undelivered import FailedHook
from paglets.cli.options import LOOK_SECONDS
from paglets.cli.output import notice_if_slow, say, waiting_for_all
from paglets.client.cancellation import AWAY
from paglets.client.collectors import FORGOTTEN
from paglets.client.host_client import HostClient
from paglets.client.job_logs import JobAttempts
from paglets.client.undelivered import MeshUndelivered
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, PagletsError
from paglets.core.text import command_name
from paglets.slots.states import FINAL

MOST_JOBS = 1_000
"""The maximum number of jobs in a host's answer."""

REPORT_WAITS = "it has ended, and its report waits for the collector"

Entry = dict[str, Any]
"""A copy of a job, as a dict with the same keys as an entry of `pending_jobs` in a summary."""


def copies_of_group(client: HostClient, group_id: str) -> tuple[list[Entry], int]:
    """Return the newest copy of each job on any host, sorted by key, and an exit code.

    If a host has MOST_JOBS jobs or more, jobs may be missing: print a message on stderr, and return EXIT_FAILED.
    """
    with notice_if_slow(waiting_for_all(LOOK_SECONDS)):
        answers, _ = client.mesh_slots(limit=MOST_JOBS, timeout=LOOK_SECONDS)
    full = [slots.host.name for slots in answers if len(slots.jobs) >= MOST_JOBS]
    for name in full:
        say(f"{name} has {MOST_JOBS:,} jobs or more: some jobs of {group_id} may be missing")
    found = [_entry(job, slots.host.name) for slots in answers for job in slots.jobs if job.group_id == group_id]
    newest: dict[str, Entry] = {}
    for entry in sorted(found, key=lambda each: (each["generation"], each["attempt"])):
        newest[entry["job_key"]] = entry
    return [newest[key] for key in sorted(newest)], EXIT_FAILED if full else EXIT_DONE


def attempts_of(client: HostClient, job: str, seconds: float) -> JobAttempts:
    """Return the attempts of a job that are known to the hosts that answer within `seconds`."""
    with notice_if_slow(waiting_for_all(seconds)):
        return client.job_attempts(job, timeout=seconds)


def copy_of_job(client: HostClient, group_id: str, job_key: str) -> Entry | None:
    """Return the newest copy of a job, or None if no reachable host has one."""
    known = attempts_of(client, f"{group_id}/{job_key}", LOOK_SECONDS)
    copies = [(each.generation, each.agent_id) for each in known.attempts]
    copies += [(each.generation, each.agent_id) for each in known.unfinished]
    for _, agent_id in sorted(set(copies), reverse=True):
        with suppress(PagletsError):
            view = client.paglet(agent_id, timeout=LOOK_SECONDS)
            if view.job is not None:
                return _entry(view.job, view.host.name)
    return None


def _entry(job: JobView, host_name: str) -> Entry:
    return {
        "job_key": job.job_key,
        "generation": job.generation,
        "attempt": job.attempt,
        "status": job.status,
        "host_name": host_name,
        "reason": job.reason,
        "reason_text": job.reason_text or (REPORT_WAITS if job.status in FINAL else ""),
        "never": job.never,
    }


def next_steps_text(group_id: str, entries: Sequence[Entry], error: PagletsError) -> str:
    """Return the next steps for a group whose collector is unreachable. `entries`: copies of its jobs."""
    state = error.details.get("collector", "")
    start = "restart that host" if state == AWAY else ""
    command = f"{command_name()} jobs cancel {'' if state == FORGOTTEN else '--force '}{group_id}"
    if all(entry["status"] in FINAL for entry in entries):
        files = f"fetch the files: {command_name()} artifacts get --group {group_id} DIR; clear the group: {command}"
        return f"{start}, which then accepts the report; or {files}" if start else files
    end = f"cancel its jobs and submit again: {command}"
    return f"{start}; or {end}" if start else f"its jobs continue, and their reports wait; {end}"


def kept_of(client: HostClient, group_id: str, job_key: str = "", seconds: float = LOOK_SECONDS) -> MeshUndelivered:
    """Return failed hooks, files and pending moves of finished jobs, from the hosts that answer within `seconds`.

    A PagletsError is not raised but returned in `unreachable`, because callers can show the rest of their answer.
    """
    try:
        with notice_if_slow(waiting_for_all(seconds)):
            return client.undelivered(group_id, job_key, timeout=seconds)
    except PagletsError as error:
        return MeshUndelivered(unreachable=(error,))


def hooks_of_group(
    client: HostClient, summary: dict[str, Any], seconds: float = LOOK_SECONDS
) -> tuple[FailedHook, ...]:
    """Return the failed hooks of a group's finished jobs, or () if its summary shows that no job has ended."""
    if summary["pending_count"] == summary["expected_count"]:
        return ()
    return kept_of(client, summary["group_id"], seconds=seconds).hooks
