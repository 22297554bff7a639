"""The reason why a job has no log, if no online host knows an attempt of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paglets.cli.collectors import ask_for_job, summary_of_job, unknown_job
from paglets.cli.views.offline_hosts import missing_hosts
from paglets.client.host_client import HostClient
from paglets.client.hosts import last_contact_text, views_by_name
from paglets.core.errors import PagletsError, Unknown, Unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingLog:
    """The reason why a job has no log, as text. `waits`: the job may still start."""

    text: str
    waits: bool = False


def explain_missing_log(client: HostClient, job: str, unreachable: Sequence[PagletsError]) -> MissingLog:
    """Return the reason why a job has no log. `unreachable`: the errors of the hosts that did not answer.

    Raises Unknown for an unknown job, Invalid for a group, Unreachable if a host that may have the log is offline.
    """
    group_id, slash, job_key = job.partition("/")
    if slash:
        return _from_record(client, group_id, job_key, unreachable)
    if unreachable:
        raise Unreachable(f"no reachable host knows a job {job!r}; {unreachable[0].message}")
    asked = missing_hosts(client.hosts()).note()
    hint = ["name a job as GROUP/JOBKEY", "paglets jobs list GROUP lists the jobs of a group"]
    nothing = Unknown(f"no host of the mesh knows a job or a log {job!r}{asked}", hint=hint)
    raise ask_for_job(client, job, nothing)


def _from_record(client: HostClient, group_id: str, job_key: str, unreachable: Sequence[PagletsError]) -> MissingLog:
    """Ask the group's collector for the job's record, and return the reason why the job has no log."""
    job = f"{group_id}/{job_key}"
    summary = summary_of_job(client, group_id, job_key)
    pending = next((each for each in summary["pending_jobs"] if each["job_key"] == job_key), None)
    record = summary["results"].get(job_key) or summary["failures"].get(job_key) or pending
    if record is None:
        raise unknown_job(client, group_id, job_key)
    host_name = record.get("host_name") or ""
    host = views_by_name(client.hosts()).get(host_name)
    if host is not None and not host.online:
        hint = ["restart that host to read the log"]
        raise Unreachable(f"the log of {job} is on {host_name}, {last_contact_text(host)}", hint=hint)
    if pending is not None:
        reason = pending.get("reason_text") or pending.get("reason") or pending["status"]
        return MissingLog(text=f"{job} has not started: {reason}", waits=True)
    if "cause" in record and not record.get("attempt"):
        return MissingLog(text=f"{job} never started: {record['cause']}: {record.get('message') or ''}")
    if host_name and host is None:
        return MissingLog(text=f"the log of {job} was on {host_name}, which is no longer a host of this mesh")
    if unreachable:
        raise Unreachable(f"the log of {job} from {host_name} was not found; {unreachable[0].message}")
    return MissingLog(text=f"{job} has ended, and its log was removed")
