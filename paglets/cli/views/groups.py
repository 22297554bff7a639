"""The table of groups, and the summary of one group."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from paglets.api.groups import GroupLine
from paglets.api.hosts import MeshHostView
from paglets.api.undelivered import FailedHook
from paglets.cli.output import (
    ago,
    print_fields,
    print_paragraph,
    print_table,
    say,
)
from paglets.cli.views.hooks import with_group_hooks
from paglets.cli.views.job_records import failure_row, pending_row, result_row
from paglets.cli.views.offline_hosts import collector_problem, first_few
from paglets.client.hosts import views_by_name
from paglets.core.text import command_name, counted, duration_text, failed_text


def print_groups(
    found: Sequence[GroupLine], views: Sequence[MeshHostView], now: float, unreachable: Collection[str] = ()
) -> None:
    """Print the table of groups and, below it, the collectors that could not be asked.

    `unreachable`: the store ids of online hosts that did not answer.
    """
    headers = ("GROUP", "STATUS", "DONE", "FAILED", "OF", "COLLECTOR", "HOME", "AGE", "COUNTED")
    print_table(headers, [_line(group, now) for group in found])
    old: dict[str, list[GroupLine]] = {}
    for group in found:
        host = group.collector.host
        text = f"collector on {host.name}, which does not answer" if host.store_id in unreachable else ""
        text = "" if group.here else text or collector_problem(host, views)
        if text:
            old.setdefault(text, []).append(group)
    if old:
        print()
    for text, groups_there in old.items():
        names = first_few([group.group_id for group in groups_there])
        print_paragraph(f"{names}: {text}. {_source_of_counts(groups_there)}{_reports(groups_there)}", "")


def _source_of_counts(found: Sequence[GroupLine]) -> str:
    """Return a text about the source of the counts of groups whose collector is unreachable."""
    text = "Counts are the last ones that the home hosts received (column COUNTED)"
    return text + ("; ? means none" if any(group.counted_at is None for group in found) else "")


def _reports(found: Sequence[GroupLine]) -> str:
    """Return a text with the number of reports of these groups on other hosts, and the command that shows them."""
    count = sum(group.waiting_reports for group in found)
    if not count:
        return ""
    such = found[0] if len(found) == 1 else next(group for group in found if group.waiting_reports)
    wait = counted(count, "finished report waits", "finished reports wait")
    return f". {wait} on other hosts: {command_name()} jobs groups {such.group_id}"


def _line(group: GroupLine, now: float) -> tuple[object, ...]:
    return (
        group.group_id,
        group.status,
        _count(group.completed_count),
        _count(group.failed_count),
        _count(group.expected_count),
        group.collector.host.name,
        group.home.name,
        duration_text(now - group.created_at),
        "now" if group.here else ago(group.counted_at, now),
    )


def _count(count: int | None) -> object:
    return "?" if count is None else count


def print_summary(
    summary: dict[str, Any], cancelled: int, views: Sequence[MeshHostView], hooks: Sequence[FailedHook]
) -> None:
    now, hosts = time.time(), views_by_name(views)
    completed_at = summary["completed_at"]
    print_fields(
        with_group_hooks(
            {
                "group": summary["group_id"],
                "status": summary["status"],
                "jobs": counts_text(summary, cancelled),
                "collector": summary["collector"]["host_name"],
                "home": summary["home"]["host_name"]
                + (" (the collector waits for it)" if summary["waiting_for_home"] else ""),
                "created": ago(summary["created_at"], now),
                "last report": ago(summary["last_report_at"], now),
                "completed": "" if completed_at is None else ago(completed_at, now),
            },
            hooks,
        )
    )
    _part(
        "pending",
        ("JOB", "STATUS", "HOST", "SINCE", "WHY"),
        [pending_row(job, now, hosts) for job in summary["pending_jobs"]],
        summary["pending_count"],
    )
    _part(
        "failed",
        ("JOB", "CAUSE", "HOST", "ATTEMPT", "MESSAGE"),
        [failure_row(*item) for item in summary["failures"].items()],
        summary["failed_count"],
    )
    _part(
        "done",
        ("JOB", "HOST", "TIME", "FILE", "RESULT"),
        [result_row(*item) for item in summary["results"].items()],
        summary["completed_count"],
    )


def _part(name: str, headers: tuple[str, ...], rows: list[tuple[object, ...]], count: int) -> None:
    """Print a table of `rows`. If `count`, the number of all jobs, is larger, print the number of omitted jobs."""
    if rows:
        print(f"\n{name}:")
        print_table(headers, rows)
    if count > len(rows):
        say(f"{count - len(rows):,} more {name}: --json shows all")


def counts_text(summary: dict[str, Any], cancelled: int) -> str:
    """Return a text such as `3 done, 2 failed (1 cancelled), 1 pending of 6`."""
    told = f"{summary['completed_count']:,} done, {failed_text(summary['failed_count'], cancelled)}"
    return f"{told}, {summary['pending_count']:,} pending of {summary['expected_count']:,}"
