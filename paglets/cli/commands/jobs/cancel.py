"""The handler of `paglets jobs cancel`."""

from __future__ import annotations

import argparse
import getpass
import socket
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from paglets.api.groups import ReportCounts
from paglets.api.hosts import MeshHostView
from paglets.api.undelivered import FailedHook
from paglets.cli.collectors import collector_of, unknown_job
from paglets.cli.job_copies import kept_of
from paglets.cli.options import client_of
from paglets.cli.output import notice_if_slow, print_json, say
from paglets.cli.views.hooks import day
from paglets.cli.views.offline_hosts import first_few, is_long_offline, warn_of_missing_hosts
from paglets.cli.views.orphaned_groups import counts_text
from paglets.cli.views.wait_reasons import job_name
from paglets.client.cancellation import CancelOutcome, EndOutcome
from paglets.client.collectors import FORGOTTEN
from paglets.client.fan_out import ask_all, returning_errors
from paglets.client.host_client import HostClient
from paglets.client.undelivered import MeshUndelivered
from paglets.core.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_TIMED_OUT,
    EXIT_UNREACHABLE,
    Conflict,
    PagletsError,
    Unknown,
    Unreachable,
)
from paglets.core.record import to_json
from paglets.core.refs import AGENT_ID, ProxyRef
from paglets.core.terminal import put_line
from paglets.core.text import counted, printable

WORDS = {
    "already_completed": "already had a result",
    "already_failed": "had already failed",
    "already_cancelled": "had already been cancelled",
}
MOST_NAMED = 5

Answer: TypeAlias = CancelOutcome | EndOutcome | PagletsError


def cancel(options: argparse.Namespace) -> int:
    """Cancel the groups and jobs in `options.jobs`, and return the highest of their exit codes."""
    reason = f"by {_user_and_machine()}" + (f": {options.reason}" if options.reason else "")
    with client_of(options) as client:
        groups = by_group([job_named(client, selector) for selector in options.jobs])
        answers = cancel_each(client, groups, reason=reason, timeout=options.timeout, force=options.force)
        answers, hooks = end_hooks(client, groups, answers)
        outcomes = [answer for answer in answers if not isinstance(answer, PagletsError)]
        if options.json:
            print_json({"groups": [_as_json(outcome) for outcome in outcomes]})
        for line in (line for ended in hooks for line in ended.lines):
            say(line)
        for answer in answers:
            if isinstance(answer, PagletsError):
                say(answer)
            elif options.json:
                continue
            elif isinstance(answer, CancelOutcome):
                _print(answer, client)
            else:
                _print_end_outcome(answer)
        views = client.hosts() if any(outcome.unreachable for outcome in outcomes) else ()
    codes = [answer.exit_code if isinstance(answer, PagletsError) else exit_code(answer, views) for answer in answers]
    return max(codes + [ended.code for ended in hooks])


def end_hooks(
    client: HostClient, groups: Mapping[str, list[str] | None], answers: Sequence[Answer]
) -> tuple[list[Answer], list[HooksEnded]]:
    """End the finished jobs whose hooks failed, and return the remaining answers and the ended jobs of each group.

    Skip groups whose answer is an error other than Unknown. If a group has such jobs, drop its Unknown error.
    """
    rest: list[Answer] = []
    found: list[HooksEnded] = []
    for (group_id, keys), answer in zip(groups.items(), answers, strict=True):
        is_unknown = isinstance(answer, Unknown)
        is_refused = isinstance(answer, PagletsError) and not is_unknown
        ended = HooksEnded() if is_refused else end_failed(client, group_id, keys)
        found.append(ended)
        if not (is_unknown and ended.lines):
            rest.append(answer)
    return rest, found


def cancel_each(
    client: HostClient,
    groups: Mapping[str, list[str] | None],
    *,
    reason: str,
    timeout: float | None,
    force: bool = False,
) -> list[Answer]:
    """Cancel all groups in parallel, and return the outcome or error of each.

    If the collector's host was removed, each host ends its jobs of the group and deletes their reports. Without
    `force`, nothing is done if results would be deleted. With `force`, each host also ends its jobs if the collector is
    unreachable.
    """

    def one(group_id: str) -> CancelOutcome | EndOutcome:
        keys = groups[group_id]
        try:
            collector_of(client, group_id)
            with notice_if_slow(f"waiting for the processes of {group_id} to end"):
                return client.cancel(group_id, keys, reason=reason, timeout=timeout)
        except (Unreachable, Unknown) as error:
            return _without_collector(client, group_id, keys, error, reason=reason, timeout=timeout, force=force)

    return ask_all(returning_errors(one), list(groups))


def _without_collector(
    client: HostClient,
    group_id: str,
    keys: list[str] | None,
    error: PagletsError,
    *,
    reason: str,
    timeout: float | None,
    force: bool,
) -> EndOutcome:
    """Make each host end its jobs of a group, and clear the group if its collector is lost.

    Raises `error` if no host has jobs of the group, or if the collector is not lost and `force` is False. Raises
    Conflict if finished results would be deleted and `force` is False.
    """
    state = error.details.get("collector", "")
    if not force and state != FORGOTTEN:
        raise (_nothing_cancelled(error, group_id) if state else error) from None
    is_lost = state == FORGOTTEN or (isinstance(error, Unknown) and _collector_left_mesh(client, group_id))
    if is_lost and not force:
        _refuse_to_drop(client, group_id, keys)
    if isinstance(error, Unreachable):
        say(f"{error.message}; each reachable host ends its jobs of {group_id}")
    with notice_if_slow(f"waiting for each host to end its jobs of {group_id}"):
        try:
            if is_lost:
                return client.clear_group(group_id, keys, reason=reason, timeout=timeout, drop_results=force)
            outcome = client.end_copies(group_id, keys, reason=reason, timeout=timeout)
        except Unknown:
            raise error from None
    if isinstance(error, Unknown) and not (outcome.ended or outcome.running):
        raise error from None
    return outcome


def _collector_left_mesh(client: HostClient, group_id: str) -> bool:
    """Return True if none of the last known hosts of the group's collector is still in the mesh."""
    members = {view.host.store_id for view in client.hosts()}
    return not any(host.store_id in members for host in client.orphaned_group(group_id).collectors)


def _refuse_to_drop(client: HostClient, group_id: str, keys: list[str] | None) -> None:
    """Raise Conflict if finished results would be deleted. There is no other copy of them."""
    left = client.orphaned_group(group_id)
    counts = left.counts
    if keys is not None:
        found = [report for key in keys for _, report in client.waiting_reports(left, key) if report.kind == "result"]
        files = [file for report in found for file in report.artifacts]
        counts = ReportCounts(results=len(found), files=len(files), file_bytes=sum(file.size_bytes for file in files))
    if counts.results:
        named = " ".join(f"{group_id}/{key}" for key in keys) if keys else group_id
        read = f"`paglets jobs show --json {group_id}/JOBKEY` prints the result of a job"
        fetch = f"fetch the files first: `paglets artifacts get --group {group_id} DIR`; " if counts.files else ""
        raise Conflict(
            f"nothing was cancelled: {counts_text(replace(counts, failures=0))} of {group_id} would be dropped",
            next=[fetch + read, f"`paglets jobs cancel --force {named}` drops them"],
        )


def _nothing_cancelled(error: PagletsError, group_id: str) -> Unreachable:
    return Unreachable(
        f"nothing was cancelled: {error.message}",
        next=[
            "run the same command when that host is back",
            f"`paglets jobs cancel --force {group_id}` ends the jobs on all reachable hosts now",
        ],
    )


def job_named(client: HostClient, selector: str) -> str:
    """Return the GROUP/JOBKEY of a job that was named by its id. Return any other selector unchanged."""
    if AGENT_ID.fullmatch(selector):
        try:
            client.group(selector)
        except Unknown:
            with suppress(PagletsError):
                job = client.paglet(selector).job
                return selector if job is None else job_name(job)
        except PagletsError:
            return selector  # The cancellation reports this error.
    return selector


def by_group(selectors: list[str]) -> dict[str, list[str] | None]:
    """Return the job keys of each group, given selectors such as GROUP or GROUP/JOBKEY. None stands for all jobs."""
    groups: dict[str, list[str] | None] = {}
    for selector in selectors:
        group_id, slash, job_key = selector.partition("/")
        keys = groups.setdefault(group_id, [])
        if not slash:
            groups[group_id] = None
        elif keys is not None:
            keys.append(job_key)
    return groups


def _user_and_machine() -> str:
    try:
        user = getpass.getuser()
    # The user may have no name, for example in a container without an entry in /etc/passwd.
    except (OSError, KeyError, ImportError):
        user = "somebody"
    return f"{user} on {socket.gethostname()}"


def _as_json(outcome: CancelOutcome | EndOutcome) -> dict[str, Any]:
    if isinstance(outcome, CancelOutcome):
        return {
            **to_json(outcome),
            "unreachable": [_unreachable_text(name) for name in outcome.unreachable],
            "ended": {},
            "cleared": {},
            "freed": False,
        }
    keys = {key: "ended" for keys in outcome.ended.values() for key in keys}
    unreachable = [f"{name}: {why}" for name, why in outcome.unreachable.items()]
    return {**to_json(outcome), "keys": keys, "unreachable": unreachable}


def _unreachable_text(host_name: str) -> str:
    return f"{host_name} is unreachable; its jobs end when it is back"


def _print_end_outcome(outcome: EndOutcome) -> None:
    """Print the outcome of a cancellation without the collector: the ended jobs and deleted reports of each host."""
    for name, keys in outcome.ended.items():
        print(f"{outcome.group_id}: ended {counted(len(keys), 'job')} on {name}: {printable(first_few(keys))}")
    for name, counts in outcome.cleared.items():
        print(f"{outcome.group_id}: cleared {counts_text(counts)} on {name}")
    if outcome.freed:
        say(f"{outcome.group_id} is cleared: it can be submitted again under the same group_id")
    elif outcome.kept:
        kept = counted(outcome.kept, "finished result")
        say(f"kept {kept} of {outcome.group_id}: the same command with --force drops them")
    elif outcome.ended:
        say(f"if the collector of {outcome.group_id} comes back, it records these jobs as cancelled")
    if not outcome.ended and not outcome.cleared and not outcome.freed:
        what = "nothing was ended" if outcome.unreachable else "no reachable host has waiting or running jobs of it"
        print(f"{outcome.group_id}: {what}")
    _say_still_running(outcome)
    warn_of_missing_hosts(outcome.group_id, outcome.unreachable)


def _say_still_running(outcome: CancelOutcome | EndOutcome) -> None:
    for name, count in outcome.running.items():
        say(f"{counted(count, 'job')} still running on {name}; run the same command to keep waiting")


def _print(outcome: CancelOutcome, client: HostClient) -> None:
    counts = Counter(outcome.keys.values())
    if not counts["unknown"] or len(counts) > 1:
        print(f"{outcome.group_id}: cancelled {counted(counts['cancelled'], 'job')}")
    for what, words in WORDS.items():
        if counts[what]:
            put_line(f"{outcome.group_id}: {counts[what]:,} {words}")
    unknown = [key for key, what in outcome.keys.items() if what == "unknown"]
    for key in unknown[:MOST_NAMED]:
        say(unknown_job(client, outcome.group_id, key))
    if len(unknown) > MOST_NAMED:
        say(f"group {outcome.group_id}: {len(unknown) - MOST_NAMED:,} more of the given job keys are unknown")
    for name in outcome.unreachable:
        say(_unreachable_text(name))
    _say_still_running(outcome)


def exit_code(outcome: CancelOutcome | EndOutcome, views: Iterable[MeshHostView] = ()) -> int:
    """Return the exit code of one group.

    It is EXIT_FAILED for an unknown job key, EXIT_UNREACHABLE if a host that may have jobs of the group did not answer,
    and EXIT_TIMED_OUT if jobs still run. After a cancellation without the collector, any unreachable host may, except
    those that `views` shows as offline for long.
    """
    if isinstance(outcome, CancelOutcome) and "unknown" in outcome.keys.values():
        return EXIT_FAILED
    gone = {view.host.name for view in views if is_long_offline(view)} if isinstance(outcome, EndOutcome) else set()
    if set(outcome.unreachable) - gone:
        return EXIT_UNREACHABLE
    return EXIT_TIMED_OUT if outcome.running else EXIT_DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksEnded:
    """The outcome of ending jobs whose hook failed: a line for each job, and the exit code.

    `code` is EXIT_FAILED if a job could not be ended.
    """

    lines: tuple[str, ...] = ()
    code: int = EXIT_DONE


def end_failed(client: HostClient, group_id: str, job_keys: Iterable[str] | None) -> HooksEnded:
    """End those jobs of a group that have a failed hook. `job_keys`: end only these; None: end all.

    The line for each job says how many files the job left, and how to fetch them.
    """
    lines: dict[tuple[str, str], str] = {}
    code = EXIT_DONE
    for job_key in [""] if job_keys is None else dict.fromkeys(job_keys):
        # A host reports only a limited number of hooks at once, so ask until no new hook is reported.
        while new := _new_hooks(lines, kept_of(client, group_id, job_key)):
            for hook, files in new:
                line = _end_text(hook, files)
                try:
                    client.dispose(ProxyRef(agent_id=hook.agent_id, host=hook.host))
                except PagletsError as error:
                    code = EXIT_FAILED
                    line = f"{group_id}/{hook.job_key}, whose {hook.hook} failed, was not ended: {error.message}"
                lines[hook.host.store_id, hook.agent_id] = line
    return HooksEnded(lines=tuple(lines.values()), code=code)


def _new_hooks(known: Container[tuple[str, str]], found: MeshUndelivered) -> list[tuple[FailedHook, int]]:
    """Return the failed hooks that are not in `known`, each with the number of files that its job left."""
    counts = Counter(file.owner for file in found.files)
    return [(hook, counts[hook.agent_id]) for hook in found.hooks if (hook.host.store_id, hook.agent_id) not in known]


def _end_text(hook: FailedHook, file_count: int) -> str:
    text = f"ended {hook.group_id}/{hook.job_key}, whose {hook.hook} failed on {hook.host.name}"
    if not file_count:
        return text
    files = f"its {counted(file_count, 'file')} can be fetched until {day(hook.kept_until)}"
    return f"{text}; {files}: `paglets artifacts get --group {hook.group_id} DIR`"
