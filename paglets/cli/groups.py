"""`paglets jobs groups`."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from paglets.api.groups import GroupLine, Groups
from paglets.api.hosts import MemberView
from paglets.cli.away import away_text, by_name, lost_text, silence_text, view_of
from paglets.cli.options import client_of
from paglets.cli.output import duration_text, print_fields, print_json, print_table, say
from paglets.core.errors import EXIT_DONE, Invalid, TimedOut, Unknown, Unreachable
from paglets.core.messages import Message
from paglets.core.refs import ArtifactRef, ProxyRef
from paglets.remote.client import HostClient

FIRST_SECONDS = 5.0
SILENT_SECONDS = 3.0
"""A collector that does not answer for so long, on a host not heard of for so long, is not waited for."""

MOST_RESULT_CHARACTERS = 60
MOST_LINES = 50
"""Of pending jobs, failures and results in words; `--json` has all that the summary has."""


def groups(options: argparse.Namespace) -> int:
    """All groups that the host knows, or the summary of one."""
    with client_of(options) as client:
        group_id = options.group or options.name
        return _one(client, group_id, options) if group_id else _all(client, options)


def _all(client: HostClient, options: argparse.Namespace) -> int:
    found, views = client.groups(), client.hosts()
    away = [view.member.name for view in views if not view.online]
    if options.json:
        print_json(Groups(groups=found))
        return EXIT_DONE
    print_groups(found, views, time.time())
    if away:
        say(f"not asked, as they are offline: {', '.join(away)}")
    return EXIT_DONE


def print_groups(found: Sequence[GroupLine], views: Sequence[MemberView], now: float) -> None:
    """A table; below a group whose collector's host is away, that it is."""
    headers = ("GROUP", "STATUS", "DONE", "FAILED", "OF", "COLLECTOR", "HOME", "AGE", "COUNTED")
    silence = ["" if group.here else silence_text(group.collector.host, views) for group in found]
    print_table(headers, [_line(group, now) for group in found], below=silence)


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


def ago(then: float | None, now: float) -> str:
    return "never" if then is None else f"{duration_text(now - then)} ago"


def _one(client: HostClient, group_id: str, options: argparse.Namespace) -> int:
    summary = summary_of(client, group_id)
    if options.json:
        print_json(summary)
        return EXIT_DONE
    _show(summary, client.hosts())
    return EXIT_DONE


def summary_of(client: HostClient, group_id: str) -> dict[str, Any]:
    """The summary as tagged JSON. Raises Unreachable with the last known counts where its host is away."""
    collector = collector_of(client, group_id)
    try:
        return _summary(client, collector, FIRST_SECONDS)
    except (Unreachable, TimedOut):
        # A host that has just died is not worth the whole wait.
        _must_be_heard(client, collector, group_id, SILENT_SECONDS)
    try:
        return _summary(client, collector, None)
    except Unreachable as error:
        raise Unreachable(f"{error.message}; {_last_known(client, group_id, collector.host.name)}") from error


def _summary(client: HostClient, collector: ProxyRef, timeout_seconds: float | None) -> dict[str, Any]:
    found: dict[str, Any] = client.call_tree(collector, Message("summary"), timeout_seconds=timeout_seconds)
    return found


def collector_of(client: HostClient, group_id: str) -> ProxyRef:
    """The collector of a group. Raises Unreachable where its host is known to be away, or gone."""
    collector = client.group(group_id).collector
    _must_be_heard(client, collector, group_id)
    return collector


def _must_be_heard(client: HostClient, collector: ProxyRef, group_id: str, most_seconds: float = math.inf) -> None:
    """Say at once that the collector's host is away or silent, instead of waiting for it. Raises Unreachable."""
    host, views = collector.host, client.hosts()
    view = view_of(host, views)
    if view is not None and view.online and view.silent_seconds <= most_seconds:
        return
    if view is None and _is_elsewhere(client, collector):
        return
    lost = lost_text(host, views)
    if view is None or lost:
        raise Unreachable(f"the collector of {group_id} was on {lost}")
    raise Unreachable(
        f"the collector of {group_id} is on {host.name}, which was last heard of "
        f"{duration_text(view.silent_seconds)} ago: nothing is lost; start that host again to see the group"
    )


def _is_elsewhere(client: HostClient, collector: ProxyRef) -> bool:
    """Whether another host has it: what home knows may be older than its last move."""
    try:
        client.paglet(collector)
    except (Unreachable, Unknown):
        return False
    return True


def _last_known(client: HostClient, group_id: str, host_name: str) -> str:
    for line in client.groups():
        if line.group_id == group_id and line.counted_at is not None:
            return (
                f"the collector on {host_name} was last heard {ago(line.counted_at, time.time())}: "
                f"{line.completed_count} done, {line.failed_count} failed of {line.expected_count}"
            )
    return f"the collector is on {host_name}, which was not heard of here"


def _show(summary: dict[str, Any], views: Sequence[MemberView]) -> None:
    now, hosts = time.time(), by_name(views)
    completed_at = summary["completed_at"]
    print_fields(
        {
            "group": summary["group_id"],
            "status": summary["status"],
            "jobs": counts_text(summary),
            "collector": summary["collector"]["host_name"],
            "home": summary["home"]["host_name"] + (" (waiting for it)" if summary["waiting_for_home"] else ""),
            "created": ago(summary["created_at"], now),
            "last report": ago(summary["last_report_at"], now),
            "completed": "" if completed_at is None else ago(completed_at, now),
        }
    )
    _part(
        "pending",
        ("JOB", "STATUS", "HOST", "SINCE", "WHY"),
        [pending_row(job, now, hosts) for job in summary["pending_jobs"]],
    )
    _part(
        "failed",
        ("JOB", "CAUSE", "HOST", "RUN", "MESSAGE"),
        [failure_row(*item) for item in summary["failures"].items()],
    )
    _part("done", ("JOB", "HOST", "TIME", "FILE", "RESULT"), [result_row(*item) for item in summary["results"].items()])
    if summary.get("truncated"):
        say("the group is too large for one summary: its lists are cut, its counts are right")


def _part(name: str, headers: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    if rows:
        print(f"\n{name}:")
        print_table(headers, rows[:MOST_LINES])
    if len(rows) > MOST_LINES:
        say(f"{len(rows) - MOST_LINES:,} more {name}: --json shows all")


def pending_row(job: dict[str, Any], now: float, hosts: Mapping[str, MemberView]) -> tuple[object, ...]:
    """`hosts` by name: of one that is away that comes first, for the reason is from before."""
    never = "never: " if job.get("never") else ""
    reason = job.get("reason_text") or job.get("reason") or ""
    name = job.get("host_name") or ""
    why = away_text(hosts[name]) if name in hosts and not hosts[name].online else never + reason
    return (job["job_key"], job["status"], name, ago(job.get("since"), now), why)


def result_row(job_key: str, record: dict[str, Any]) -> tuple[object, ...]:
    runtime = record.get("runtime_seconds")
    time_text = "" if runtime is None else duration_text(runtime)
    result: Any = record.get("result")
    artifact = artifact_in(result)
    if artifact is not None:  # its name says enough here
        result = {name: value for name, value in result.items() if name != "artifact"}
    text = "" if artifact is not None and not result else json.dumps(result, ensure_ascii=False)
    return (job_key, record.get("host_name") or "", time_text, artifact.name if artifact else "", text)


def artifact_in(result: Any) -> ArtifactRef | None:
    """The artifact that `report_compute_artifact` put into a result, which is tagged JSON; None where none is."""
    tree = result.get("artifact") if isinstance(result, dict) else None
    if not isinstance(tree, dict):
        return None
    try:
        return ArtifactRef.from_wire(tree)
    except Invalid:  # something else of that name, of the job's own
        return None


def short_json(result: Any) -> str:
    """On a terminal its beginning, elsewhere all."""
    text = json.dumps(result, ensure_ascii=False)
    cut = len(text) > MOST_RESULT_CHARACTERS and sys.stdout.isatty()
    return f"{text[:MOST_RESULT_CHARACTERS]}..." if cut else text


def counts_text(summary: dict[str, Any]) -> str:
    """`3 done, 1 failed, 2 pending of 6`, and of a group with cancelled jobs how many. The summary counts these with
    the failed ones."""
    cancelled = sum(is_cancelled(record) for record in summary["failures"].values())
    told = [f"{summary['completed_count']} done", f"{summary['failed_count'] - cancelled} failed"]
    told += [f"{cancelled} cancelled"] if cancelled else []
    return f"{', '.join(told)}, {summary['pending_count']} pending of {summary['expected_count']}"


def is_cancelled(record: dict[str, Any]) -> bool:
    return bool(record["cause"] == "cancelled")


def message_of(failure: dict[str, Any]) -> str:
    """Its message, without the cause, which stands beside it: `cancelled: by ann` has the cause `cancelled`."""
    message, cause = failure.get("message") or "", failure["cause"]
    return "" if message == cause else message.removeprefix(f"{cause}: ")


def failure_row(job_key: str, failure: dict[str, Any]) -> tuple[object, ...]:
    run = f"{failure.get('generation')}.{failure.get('attempt')}"
    return (job_key, failure["cause"], failure.get("host_name") or "", run, message_of(failure))
