"""`paglets jobs groups`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from paglets.api.groups import GroupLine, Groups
from paglets.api.hosts import MemberView
from paglets.api.kept import FailedHook
from paglets.cli import orphaned_groups
from paglets.cli.collectors import asker, summary_of
from paglets.cli.commands.jobs.hooks import hooks_of_group, with_group_hooks
from paglets.cli.options import LOOK_SECONDS, client_of
from paglets.cli.orphaned_groups import artifact_in
from paglets.cli.output import (
    ago,
    attempt_text,
    print_fields,
    print_json,
    print_paragraph,
    print_table,
    said_if_slow,
    say,
    shortened,
    waiting_for_all,
)
from paglets.cli.views.offline_hosts import away_text, missing_of, shortlist, silence_text
from paglets.cli.views.result_values import result_text
from paglets.cli.views.wait_reasons import why_text
from paglets.client.hosts import views_by_name
from paglets.core.errors import EXIT_DONE, PagletsError, Unknown, Unreachable
from paglets.core.messages import Message
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef
from paglets.core.text import command_name, counted, duration_text, failed_text
from paglets.remote.client import HostClient
from paglets.slots.amounts import bytes_text

MOST_RESULT_CHARACTERS = 60
MOST_LINES = 50
"""Of pending jobs, failures and results in words; `--json` has all that the summary has."""


def groups(options: argparse.Namespace) -> int:
    """All groups that the host knows, or the summary of one."""
    with client_of(options) as client:
        group_id = options.group or options.name
        return _one(client, group_id, options) if group_id else _all(client, options)


def _all(client: HostClient, options: argparse.Namespace) -> int:
    seconds = options.timeout or LOOK_SECONDS
    with said_if_slow(waiting_for_all(seconds)):
        found, errors = client.mesh_groups(seconds)
        views = client.hosts()
    missing = missing_of(views, errors.values())
    if options.json:
        print_json({**to_json(Groups(groups=found)), "silent": missing.lines()})
    else:
        print_groups(found, views, time.time(), [host.store_id for host in errors])
    missing.say()
    return missing.exit_code


def print_groups(
    found: Sequence[GroupLine], views: Sequence[MemberView], now: float, mute: Collection[str] = ()
) -> None:
    """A table; below it, why it has not the newest of some groups. `mute`: stores of online hosts without an answer."""
    headers = ("GROUP", "STATUS", "DONE", "FAILED", "OF", "COLLECTOR", "HOME", "AGE", "COUNTED")
    print_table(headers, [_line(group, now) for group in found])
    old: dict[str, list[GroupLine]] = {}
    for group in found:
        host = group.collector.host
        text = f"collector on {host.name}, which does not answer" if host.store_id in mute else ""
        text = "" if group.here else text or silence_text(host, views)
        if text:
            old.setdefault(text, []).append(group)
    if old:
        print()
    for text, groups_there in old.items():
        names = shortlist([group.group_id for group in groups_there])
        print_paragraph(f"{names}: {text}. {_what_is_shown(groups_there)}{_reports(groups_there)}", "")


def _what_is_shown(found: Sequence[GroupLine]) -> str:
    """What the lines of groups are worth whose collector cannot be asked."""
    text = "Shown is what their homes heard last (COUNTED)"
    return text + ("; ? is what none has heard" if any(group.counted_at is None for group in found) else "")


def _reports(found: Sequence[GroupLine]) -> str:
    """How many finished jobs of these groups other hosts have."""
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


def _one(client: HostClient, group_id: str, options: argparse.Namespace) -> int:
    try:
        return _with_collector(client, group_id, options)
    except (Unreachable, Unknown) as error:
        return _without_collector(client, group_id, error, options)


def _with_collector(client: HostClient, group_id: str, options: argparse.Namespace) -> int:
    if options.json:
        print_json(summary_of(client, group_id))
        return EXIT_DONE
    ask = asker(client, group_id)
    # Failures are counted with the one look, and shown with the next: jobs may end in between.
    cancelled = ask(Message("counts"))["failed"].get("cancelled", 0)
    summary = ask(Message("summary", {"limit": MOST_LINES}))
    hooks = hooks_of_group(client, summary, options.timeout or LOOK_SECONDS)
    _show(summary, cancelled, client.hosts(), hooks)
    return EXIT_DONE


def _without_collector(client: HostClient, group_id: str, error: PagletsError, options: argparse.Namespace) -> int:
    found = orphaned_groups.look(client, group_id, error)
    if found is None:
        raise error
    if options.json:
        print_json(orphaned_groups.as_json(found))
        say(error)
    else:
        orphaned_groups.print_lost(found)
    return error.exit_code


def _show(summary: dict[str, Any], cancelled: int, views: Sequence[MemberView], hooks: Sequence[FailedHook]) -> None:
    now, hosts = time.time(), views_by_name(views)
    completed_at = summary["completed_at"]
    print_fields(
        with_group_hooks(
            {
                "group": summary["group_id"],
                "status": summary["status"],
                "jobs": counts_text(summary, cancelled),
                "collector": summary["collector"]["host_name"],
                "home": summary["home"]["host_name"] + (" (waiting for it)" if summary["waiting_for_home"] else ""),
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
    """A table of the first rows of `count`."""
    if rows:
        print(f"\n{name}:")
        print_table(headers, rows)
    if count > len(rows):
        say(f"{count - len(rows):,} more {name}: --json shows all")


def pending_row(job: dict[str, Any], now: float, hosts: Mapping[str, MemberView]) -> tuple[object, ...]:
    """`hosts` by name: of one that is away that comes first, for the reason is from before."""
    name = job.get("host_name") or ""
    told = why_text(job.get("reason") or "", job.get("reason_text") or "", never=bool(job.get("never")))
    why = away_text(hosts[name]) if name in hosts and not hosts[name].online else told
    return (job["job_key"], job["status"], name, ago(job.get("since"), now), why)


def result_row(job_key: str, record: dict[str, Any]) -> tuple[object, ...]:
    runtime = record.get("runtime_seconds")
    time_text = "" if runtime is None else duration_text(runtime)
    artifact, result = apart(record.get("result"))
    text = "" if artifact is not None and not result else result_text(result)
    return (job_key, record.get("host_name") or "", time_text, artifact.name if artifact else "", shortened(text))


def apart(result: Any) -> tuple[ArtifactRef | None, Any]:
    """Return the artifact of a result, if it has one, and the rest of the result."""
    artifact = artifact_in(result)
    if artifact is None:
        return None, result
    return artifact, {name: value for name, value in result.items() if name != "artifact"}


def result_fields(record: dict[str, Any]) -> dict[str, str]:
    """Return what is printed of the result of one job, and of its artifact."""
    if "result" not in record:
        return {}
    artifact, result = apart(record["result"])
    if artifact is None:
        return {"result": short_json(result)}
    file = f"{artifact.name} ({bytes_text(artifact.size_bytes)})"
    return {"result": short_json(result) if result else "", "artifact": file}


def short_json(result: Any) -> str:
    """On a terminal its beginning, elsewhere all."""
    text = result_text(result)
    cut = len(text) > MOST_RESULT_CHARACTERS and sys.stdout.isatty()
    return f"{text[:MOST_RESULT_CHARACTERS]}..." if cut else text


def counts_text(summary: dict[str, Any], cancelled: int) -> str:
    """Return `3 done, 2 failed (1 cancelled), 1 pending of 6`."""
    told = f"{summary['completed_count']:,} done, {failed_text(summary['failed_count'], cancelled)}"
    return f"{told}, {summary['pending_count']:,} pending of {summary['expected_count']:,}"


def is_cancelled(record: dict[str, Any]) -> bool:
    return bool(record["cause"] == "cancelled")


def message_of(failure: dict[str, Any]) -> str:
    """Its message, without the cause, which stands beside it: `cancelled: by ann` has the cause `cancelled`."""
    message, cause = failure.get("message") or "", failure["cause"]
    return "" if message == cause else message.removeprefix(f"{cause}: ")


def failure_row(job_key: str, failure: dict[str, Any]) -> tuple[object, ...]:
    run = attempt_text(failure.get("generation"), failure.get("attempt"))
    return (job_key, failure["cause"], failure.get("host_name") or "", run, shortened(message_of(failure)))
