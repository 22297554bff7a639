"""The handlers of `paglets jobs list` and `paglets jobs ps`: a line for each job of the mesh or of one group."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paglets.api.hosts import MeshHostView
from paglets.api.slots import JobView, Slots
from paglets.cli.collectors import collector_caller, summary_of
from paglets.cli.commands.jobs.parser import STATUSES
from paglets.cli.options import LOOK_SECONDS, client_of, mesh_client_of
from paglets.cli.output import (
    attempt_text,
    notice_if_slow,
    print_json,
    print_table,
    say,
    shortened,
    waiting_for_all,
)
from paglets.cli.views.job_records import pending_row, split_artifact, why_ended
from paglets.cli.views.job_rows import JOB_HEADERS, job_row
from paglets.cli.views.offline_hosts import MissingHosts, missing_hosts
from paglets.cli.views.result_values import result_text
from paglets.cli.views.wait_reasons import holders_text, job_name, wait_reason_text
from paglets.client.hosts import views_by_name
from paglets.client.slots import mesh_slots
from paglets.core.errors import EXIT_DONE, Invalid
from paglets.core.messages import Message
from paglets.core.record import to_json
from paglets.core.text import counted, duration_text
from paglets.system.progress import how_ended

HEADERS = ("JOB", "STATUS", "HOST", "ATTEMPT", "TIME", "RESULT OR REASON")

ENDED_WORDS = {"COMPLETED": "done", "FAILED_FINAL": "failed", "CANCELLED": "cancelled"}
"""The word for each final status. A host lists an ended job until its report is accepted and its hooks have run."""

NOT_ENDED = ("running", "waiting")

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshJobs:
    """The jobs of all hosts, the number of omitted jobs, and the hosts that did not answer."""

    jobs: Sequence[tuple[Slots, JobView]]
    left_out: int
    missing: MissingHosts


def ps(options: argparse.Namespace) -> int:
    """List the running jobs on the hosts of the mesh, with their usage. With --all, list the waiting jobs, too."""
    asked = _ask(options, None if options.all else "running")
    nothing = "no job runs or waits" if options.all else "no job runs"
    row = lambda slots, job: (slots.host.name, *job_row(job, slots))  # noqa: E731
    return _show(asked, ("HOST", *JOB_HEADERS), row, nothing, as_json=options.json)


def list_jobs(options: argparse.Namespace) -> int:
    """List the waiting and running jobs of the mesh, or all jobs of a group."""
    status, limit = options.status, options.limit
    if options.group:
        return _list_group(options)
    if status not in (None, *NOT_ENDED):
        hint = [f"paglets jobs list GROUP --status {status}", "paglets jobs groups lists the groups"]
        raise Invalid(f"name a group to list its {status} jobs", hint=hint)
    asked = _ask(options, status)
    asked = replace(asked, jobs=asked.jobs[:limit], left_out=asked.left_out + max(0, len(asked.jobs) - limit))
    nothing = f"no job is {status}" if status else "no job runs or waits"
    return _show(asked, HEADERS, _row_of_view, nothing, as_json=options.json)


# The functions below list the jobs of the mesh.


def _ask(options: argparse.Namespace, status: str | None) -> MeshJobs:
    """Ask each host for at most `--limit` jobs, and return those with this status (None: all)."""
    seconds, limit = options.timeout or LOOK_SECONDS, options.limit
    with mesh_client_of(options) as link, notice_if_slow(waiting_for_all(seconds)):
        answers, errors = mesh_slots(link, limit, seconds)
        missing = missing_hosts(link.hosts(), errors)
    found = [(slots, job) for slots in answers for job in slots.jobs if status in (None, _word(job))]
    return MeshJobs(jobs=found, left_out=sum(count_omitted(slots, status) for slots in answers), missing=missing)


def count_omitted(slots: Slots, status: str | None) -> int:
    """Return the number of jobs with this status (None: any) that a host has beyond the limit.

    It is the difference between the counts of the host and the jobs that it has listed.
    """
    unseen = max(0, slots.all_jobs - len(slots.jobs))
    running = slots.running_jobs - sum(job.status == "RUNNING" for job in slots.jobs)
    running = min(unseen, max(0, running))
    return {"running": running, "waiting": unseen - running}.get(status or "", unseen)


def _show(
    asked: MeshJobs,
    headers: Sequence[str],
    row: Callable[[Slots, JobView], tuple[object, ...]],
    nothing: str,
    *,
    as_json: bool,
) -> int:
    if as_json:
        entries = [{"host": slots.host.name, **to_json(job)} for slots, job in asked.jobs]
        print_json({"jobs": entries, "left_out": asked.left_out, "unreachable": asked.missing.lines()})
    elif asked.jobs:
        print_table(headers, [row(slots, job) for slots, job in asked.jobs])
    else:
        say(nothing)
    _say_more(asked.left_out)
    asked.missing.say()
    return asked.missing.exit_code


def _word(job: JobView) -> str:
    return "running" if job.status == "RUNNING" else ENDED_WORDS.get(job.status, "waiting")


def _row_of_view(slots: Slots, job: JobView) -> tuple[object, ...]:
    seconds = job.running_seconds if job.status == "RUNNING" else job.waited_seconds
    return (
        job_name(job),
        _word(job) if job.residence == "here" else f"{_word(job)} ({job.residence})",
        slots.host.name,
        attempt_text(job.generation, job.attempt),
        duration_text(seconds),
        wait_reason_text(job.reason, job.reason_text, never=job.never, held=holders_text(slots, job.reason)),
    )


def _say_more(count: int) -> None:
    if count > 0:
        say(f"omitted {counted(count, 'job')}: --limit N shows more")


# The functions below list the jobs of a group.


def _list_group(options: argparse.Namespace) -> int:
    with client_of(options) as client:
        if options.status:
            summary = summary_of(client, options.group, [STATUSES[options.status]])
        else:
            summary = collector_caller(client, options.group)(Message("summary", {"limit": options.limit}))
        hosts = views_by_name(client.hosts())
    found = [entry for entry in entries(summary) if options.status in (None, entry["status"])]
    shown = found[: options.limit]
    more = (len(found) if options.status else summary["expected_count"]) - len(shown)
    if options.json:
        print_json({"group_id": options.group, "jobs": shown, "left_out": max(0, more)})
        return EXIT_DONE
    if shown:
        print_table(HEADERS, [row_of(entry, time.time(), hosts) for entry in shown])
    else:
        say(f"group {options.group} has no {options.status or ''} jobs".replace("  ", " "))
    _say_more(more)
    return EXIT_DONE


def entries(summary: Entry) -> list[Entry]:
    """Return the jobs of a summary, sorted by status. An entry has `job_key`, `status` and the fields of its record."""
    found = [
        {**job, "status": "running" if job["status"] == "RUNNING" else "waiting"} for job in summary["pending_jobs"]
    ]
    for name in ("failures", "results"):
        found += [{"job_key": key, "status": how_ended(record), **record} for key, record in summary[name].items()]
    order = list(STATUSES)
    return sorted(found, key=lambda entry: order.index(entry["status"]))


def row_of(entry: Entry, now: float, hosts: Mapping[str, MeshHostView]) -> tuple[object, ...]:
    """Return the table row of a job in a group. `hosts`: the hosts of the mesh by name."""
    has_ended = entry["status"] not in NOT_ENDED
    seconds = entry.get("runtime_seconds") if has_ended else now - entry["since"]
    return (
        entry["job_key"],
        entry["status"],
        entry.get("host_name") or "",
        attempt_text(entry.get("generation"), entry.get("attempt")),
        "" if seconds is None else duration_text(seconds),
        _outcome(entry) if has_ended else pending_row(entry, now, hosts)[-1],
    )


def _outcome(entry: Entry) -> str:
    if "cause" in entry:
        return why_ended(entry)
    artifact, result = split_artifact(entry.get("result"))
    parts = [artifact.name] if artifact else []
    parts += [shortened(result_text(result))] if result or artifact is None else []
    return "  ".join(parts)
