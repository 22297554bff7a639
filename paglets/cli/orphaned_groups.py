"""What is known of a group whose collector cannot be asked: the last counts, and what other hosts have of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from paglets.api.groups import GroupLine, ReportCounts, WaitingReport, WaitingReports
from paglets.cli.options import LOOK_SECONDS
from paglets.cli.output import (
    ago,
    print_fields,
    print_table,
    said_if_slow,
    say,
    waiting_for_all,
)
from paglets.cli.views.offline_hosts import say_may_have_more
from paglets.client.orphaned_groups import OrphanedGroup, newest_reports
from paglets.core.errors import Invalid, PagletsError, Unreachable
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef, HostRef
from paglets.core.text import counted
from paglets.remote.client import HostClient
from paglets.slots.amounts import bytes_text

MOST_LINES = 50
"""Of finished jobs in words; `--json` has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A job whose report waits on `host`. Its result is left out: a group may have 100,000."""

    job_key: str
    kind: str
    host_name: str
    generation: int
    attempt: int
    cause: str
    files: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LostGroup:
    """`line`: what its home heard last, where that is online. `error`: why the collector cannot be asked."""

    group_id: str
    error: PagletsError
    line: GroupLine | None
    left: OrphanedGroup
    finished: tuple[Finished, ...]

    @property
    def expected_count(self) -> int | None:
        return None if self.line is None else self.line.expected_count

    @property
    def elsewhere_count(self) -> int | None:
        """Jobs of which no other host has anything: they ended at the collector, or only its host has them."""
        if self.expected_count is None:
            return None
        return max(0, self.expected_count - len(self.finished) - self.left.unfinished)


def look(client: HostClient, group_id: str, error: PagletsError) -> LostGroup | None:
    """Ask all hosts that are online; None where no host knows anything of the group."""
    with said_if_slow(waiting_for_all(LOOK_SECONDS)):
        lines, _ = client.mesh_groups(LOOK_SECONDS)
        left = client.orphaned_group(group_id, timeout=LOOK_SECONDS)
        reports = newest_reports((host, _slim(report)) for host, report in client.waiting_reports(left))
    line = next((each for each in lines if each.group_id == group_id), None)
    if line is None and not left.hosts:
        return None
    finished = tuple(_finished(host, report) for host, report in reports.values())
    return LostGroup(group_id=group_id, error=error, line=line, left=left, finished=finished)


def _slim(report: WaitingReport) -> WaitingReport:
    """Return the report without its result. The file that the job reported comes first; large values of the result,
    which are artifacts too, follow: no collector answers that could read them."""
    named = artifact_in(report.record.get("result"))
    files = tuple(sorted(report.artifacts, key=lambda each: named is None or each.artifact_id != named.artifact_id))
    kept = ("generation", "attempt", "cause")
    record = {name: report.record[name] for name in kept if name in report.record}
    return WaitingReport(
        n=report.n,
        job_key=report.job_key,
        agent_id=report.agent_id,
        kind=report.kind,
        record=record,
        artifacts=files,
    )


def artifact_in(result: Any) -> ArtifactRef | None:
    """The artifact that `report_compute_artifact` put into a result, which is tagged JSON; None where none is."""
    tree = result.get("artifact") if isinstance(result, dict) else None
    if not isinstance(tree, dict):
        return None
    try:
        return ArtifactRef.from_wire(tree)
    except Invalid:  # something else of that name, of the job's own
        return None


def _finished(host: HostRef, report: WaitingReport) -> Finished:
    return Finished(
        job_key=report.job_key,
        kind=report.kind,
        host_name=host.name,
        generation=report.record["generation"],
        attempt=report.record["attempt"],
        cause=report.record.get("cause", ""),
        files=tuple(
            {"artifact_id": each.artifact_id, "name": each.name, "size_bytes": each.size_bytes}
            for each in report.artifacts
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFiles:
    """`files`: each with its job key. `without_file`, `failed`: how many reports wait that have none. `silent`: hosts
    that may have more."""

    files: tuple[tuple[str, ArtifactRef], ...]
    without_file: int
    failed: int
    silent: tuple[PagletsError, ...]


def files_of(client: HostClient, group_id: str) -> WaitingFiles:
    """Return the files of finished jobs whose reports wait on a host, large values of their results among them."""
    left = client.orphaned_group(group_id)
    reports = newest_reports((host, _slim(report)) for host, report in client.waiting_reports(left))
    files = tuple((key, file) for key, (_, report) in reports.items() for file in report.artifacts)
    kinds = Counter(report.kind for _, report in reports.values() if not report.artifacts)
    silent = tuple(Unreachable(f"{name}: {why}") for name, why in left.silent.items())
    return WaitingFiles(files=files, without_file=kinds["result"], failed=kinds["failure"], silent=silent)


def file_of(client: HostClient, group_id: str, job_key: str, error: PagletsError) -> ArtifactRef:
    """Return the file of one finished job whose report waits. Raises `error` where no host has one."""
    found = newest_reports(client.waiting_reports(client.orphaned_group(group_id), job_key)).get(job_key)
    files = () if found is None else _slim(found[1]).artifacts
    if not files:
        raise error
    return files[0]


def as_json(found: LostGroup) -> dict[str, Any]:
    line = found.line
    silent = [f"{name}: {why}" for name, why in found.left.silent.items()]
    return {
        "group_id": found.group_id,
        "status": "" if line is None else line.status,
        "problem": found.error.message,
        "expected_count": found.expected_count,
        "completed_count": None if line is None else line.completed_count,
        "failed_count": None if line is None else line.failed_count,
        "counted_at": None if line is None else line.counted_at,
        "elsewhere_count": found.elsewhere_count,
        "finished": to_json(found.finished),
        "hosts": [
            {"host": each.host.name, **to_json(each.counts), "running": each.running, "queued": each.queued}
            for each in found.left.hosts
        ],
        "next": found.error.next_steps,
        "silent": silent,
    }


def print_lost(found: LostGroup) -> None:
    """Print what is known; the reason and the next steps go to stderr."""
    counts, now = found.left.counts, time.time()
    print_fields(
        {
            "group": found.group_id,
            "jobs": _jobs_text(found),
            "counted": _counted_text(found.line, now),
            "finished": _finished_text(found.left.hosts, counts),
            "unfinished": _unfinished_text(found.left.hosts),
        }
    )
    if found.finished:
        print("\nfinished, reports wait for the collector:")
        print_table(("JOB", "RESULT", "HOST", "FILES"), [_row(each) for each in found.finished[:MOST_LINES]])
    if len(found.finished) > MOST_LINES:
        say(f"{len(found.finished) - MOST_LINES:,} more finished: --json shows all")
    say_may_have_more(found.group_id, found.left.silent)
    # The step that names this very command is of no use here.
    here = f"`paglets jobs groups {found.group_id}`"
    steps = [step for step in found.error.next_steps if not step.startswith(here)]
    say(Unreachable(found.error.message, next=steps))
    if counts.files:
        get = f"`paglets artifacts get --group {found.group_id} DIR`"
        say(f"{counted(counts.files, 'file')} can be fetched: {get}")
    if counts.results:
        say(f"a result can be read: `paglets jobs show --json {found.group_id}/JOBKEY`")


def _jobs_text(found: LostGroup) -> str:
    if found.expected_count is None or found.elsewhere_count is None:
        return "not known: the host where the group was submitted is not online"
    text = f"{len(found.finished):,} finished, {found.left.unfinished:,} unfinished here of {found.expected_count:,}"
    if not found.elsewhere_count:
        return text
    return f"{text}; {counted(found.elsewhere_count, 'job')} only at the collector, lost with it if it never returns"


def _counted_text(line: GroupLine | None, now: float) -> str:
    if line is None or line.counted_at is None:
        return "never: the collector was not heard of by the host where the group was submitted"
    return f"{ago(line.counted_at, now)}: {line.completed_count:,} done, {line.failed_count:,} failed"


def _finished_text(hosts: Iterable[WaitingReports], counts: ReportCounts) -> str:
    if not counts.results and not counts.failures:
        return ""
    there = ", ".join(
        f"{each.host.name} ({each.counts.results + each.counts.failures:,})"
        for each in hosts
        if each.counts.results or each.counts.failures
    )
    return f"{counts_text(counts)} on {there}; they wait for the collector"


def counts_text(counts: ReportCounts) -> str:
    """Say `9 results with 9 files (1.2 MiB), 1 failure`."""
    files = f" with {counted(counts.files, 'file')} ({bytes_text(counts.file_bytes)})" if counts.files else ""
    parts = [f"{counted(counts.results, 'result')}{files}"] if counts.results else []
    parts += [counted(counts.failures, "failure")] if counts.failures else []
    return ", ".join(parts)


def _unfinished_text(hosts: Iterable[WaitingReports]) -> str:
    found = [f"{each.running:,} running, {each.queued:,} queued on {each.host.name}" for each in hosts if _busy(each)]
    return f"{'; '.join(found)}: they go on, and their reports wait" if found else ""


def _busy(each: WaitingReports) -> bool:
    return bool(each.running or each.queued)


def _row(each: Finished) -> tuple[object, ...]:
    return (
        each.job_key,
        "done" if each.kind == "result" else f"failed: {each.cause}",
        each.host_name,
        ", ".join(file["name"] for file in each.files),
    )
