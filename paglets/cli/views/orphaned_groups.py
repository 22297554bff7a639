"""The output of `jobs groups` for a group whose collector is unreachable."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from paglets.api.groups import GroupLine, ReportCounts, WaitingReports
from paglets.cli.output import (
    ago,
    print_fields,
    print_table,
    say,
)
from paglets.cli.views.offline_hosts import warn_of_missing_hosts
from paglets.client.orphaned_groups import OrphanedGroup
from paglets.core.errors import PagletsError, Unreachable
from paglets.core.record import to_json
from paglets.core.text import counted
from paglets.slots.amounts import bytes_text

MOST_LINES = 50
"""The maximum number of rows in the table of finished jobs. `--json` prints all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreportedJob:
    """A finished job whose report waits on a host. The result is omitted, because a group may have 100,000 results."""

    job_key: str
    kind: str
    host_name: str
    generation: int
    attempt: int
    cause: str
    files: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanedGroupReport:
    """A group without a reachable collector.

    `line`: the last counts that the group's home received, or None if the home is offline. `error`: the error of the
    request to the collector.
    """

    group_id: str
    error: PagletsError
    line: GroupLine | None
    left: OrphanedGroup
    finished: tuple[UnreportedJob, ...]

    @property
    def expected_count(self) -> int | None:
        return None if self.line is None else self.line.expected_count

    @property
    def elsewhere_count(self) -> int | None:
        """The number of jobs that only the collector's host knows: reported to it, or on it; None if unknown."""
        if self.expected_count is None:
            return None
        return max(0, self.expected_count - len(self.finished) - self.left.unfinished)


def orphaned_group_json(found: OrphanedGroupReport) -> dict[str, Any]:
    line = found.line
    unreachable = [f"{name}: {why}" for name, why in found.left.unreachable.items()]
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
        "unreachable": unreachable,
    }


def print_orphaned_group(found: OrphanedGroupReport) -> None:
    """Print the counts and finished jobs, and on stderr the error and next steps."""
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
        print("\nfinished (reports wait for the collector):")
        print_table(("JOB", "RESULT", "HOST", "FILES"), [_row(each) for each in found.finished[:MOST_LINES]])
    if len(found.finished) > MOST_LINES:
        say(f"{len(found.finished) - MOST_LINES:,} more finished jobs: --json shows all")
    warn_of_missing_hosts(found.group_id, found.left.unreachable)
    # Omit the next step that repeats this command.
    here = f"`paglets jobs groups {found.group_id}`"
    steps = [step for step in found.error.next_steps if not step.startswith(here)]
    say(Unreachable(found.error.message, next=steps))
    if counts.files:
        get = f"`paglets artifacts get --group {found.group_id} DIR`"
        say(f"fetch {counted(counts.files, 'file')}: {get}")
    if counts.results:
        say(f"read a result: `paglets jobs show --json {found.group_id}/JOBKEY`")


def _jobs_text(found: OrphanedGroupReport) -> str:
    if found.expected_count is None or found.elsewhere_count is None:
        return "unknown: the home of the group is offline"
    there = f"{len(found.finished):,} finished and {found.left.unfinished:,} unfinished on online hosts"
    text = f"{found.expected_count:,}: {there}"
    if not found.elsewhere_count:
        return text
    return f"{text}; {counted(found.elsewhere_count, 'job')} known only to the collector"


def _counted_text(line: GroupLine | None, now: float) -> str:
    if line is None or line.counted_at is None:
        return "never: no online host has counts of the group"
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
    """Return a text such as `9 results with 9 files (1.2 MiB), 1 failure`."""
    files = f" with {counted(counts.files, 'file')} ({bytes_text(counts.file_bytes)})" if counts.files else ""
    parts = [f"{counted(counts.results, 'result')}{files}"] if counts.results else []
    parts += [counted(counts.failures, "failure")] if counts.failures else []
    return ", ".join(parts)


def _unfinished_text(hosts: Iterable[WaitingReports]) -> str:
    found = [f"{each.running:,} running, {each.queued:,} queued on {each.host.name}" for each in hosts if _busy(each)]
    return f"{'; '.join(found)}: they continue, and their reports wait" if found else ""


def _busy(each: WaitingReports) -> bool:
    return bool(each.running or each.queued)


def _row(each: UnreportedJob) -> tuple[object, ...]:
    return (
        each.job_key,
        "done" if each.kind == "result" else f"failed: {each.cause}",
        each.host_name,
        ", ".join(file["name"] for file in each.files),
    )
