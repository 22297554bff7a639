"""`paglets jobs cancel`: end queued and running jobs of a group with all their processes."""

from __future__ import annotations

import argparse
import getpass
import socket
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from paglets.api.groups import ReportCounts
from paglets.api.hosts import MeshHostView
from paglets.api.kept import FailedHook
from paglets.cli.collectors import collector_of, no_such_job
from paglets.cli.job_copies import kept_of
from paglets.cli.options import client_of
from paglets.cli.output import notice_if_slow, print_json, say
from paglets.cli.views.hooks import day
from paglets.cli.views.offline_hosts import is_long_offline, say_may_have_more, shortlist
from paglets.cli.views.orphaned_groups import counts_text
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
from paglets.core.refs import ProxyRef
from paglets.core.terminal import put_line
from paglets.core.text import counted, printable

WORDS = {
    "already_completed": "had a result already",
    "already_failed": "had failed already",
    "already_cancelled": "had been cancelled already",
}
MOST_NAMED = 5

Answer: TypeAlias = CancelOutcome | EndOutcome | PagletsError


def cancel(options: argparse.Namespace) -> int:
    """Cancel what `options.jobs` names; the worst exit code of its groups."""
    reason = f"by {_who()}" + (f": {options.reason}" if options.reason else "")
    with client_of(options) as client:
        groups = by_group(options.jobs)
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
                _print_ended(answer)
        views = client.hosts() if any(outcome.unreachable for outcome in outcomes) else ()
    codes = [answer.exit_code if isinstance(answer, PagletsError) else exit_code(answer, views) for answer in answers]
    return max(codes + [ended.code for ended in hooks])


def end_hooks(
    client: HostClient, groups: Mapping[str, list[str] | None], answers: Sequence[Answer]
) -> tuple[list[Answer], list[HooksEnded]]:
    """End the finished jobs of these groups whose hook failed, unless the cancel of the group was refused.

    Of a group that nobody knows any more such jobs may be all that is left: then there is no answer about it.
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
    """What became of each group, or the error; all are cancelled at once, none waits for the end of another.

    Where the collector's host was forgotten, each host ends and clears what it has; finished results are dropped only
    with `force`. With `force` each host ends what it has also where the collector cannot be asked.
    """

    def one(group_id: str) -> CancelOutcome | EndOutcome:
        keys = groups[group_id]
        try:
            collector_of(client, group_id)
            with notice_if_slow(f"waiting until the processes of {group_id} have ended"):
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
    """Have each host end what it has. Where the collector is lost, clear the group too. Raises `error`, Conflict."""
    state = error.details.get("collector", "")
    if not force and state != FORGOTTEN:
        raise (_nothing_cancelled(error, group_id) if state else error) from None
    is_lost = state == FORGOTTEN or (isinstance(error, Unknown) and _has_no_member(client, group_id))
    if is_lost and not force:
        _refuse_to_drop(client, group_id, keys)
    if isinstance(error, Unreachable):
        say(f"{error.message}. Each host ends what it has of {group_id}")
    with notice_if_slow(f"waiting until each host has ended what it has of {group_id}"):
        try:
            if is_lost:
                return client.clear_group(group_id, keys, reason=reason, timeout=timeout, drop_results=force)
            outcome = client.end_copies(group_id, keys, reason=reason, timeout=timeout)
        except Unknown:
            raise error from None
    if isinstance(error, Unknown) and not (outcome.ended or outcome.running):
        raise error from None
    return outcome


def _has_no_member(client: HostClient, group_id: str) -> bool:
    """Whether the collector of a group that no host knows was on none of the hosts that the mesh lists."""
    members = {view.host.store_id for view in client.hosts()}
    return not any(host.store_id in members for host in client.orphaned_group(group_id).collectors)


def _refuse_to_drop(client: HostClient, group_id: str, keys: list[str] | None) -> None:
    """Raise Conflict where finished results would be dropped: nothing else has them."""
    left = client.orphaned_group(group_id)
    counts = left.counts
    if keys is not None:
        found = [report for key in keys for _, report in client.waiting_reports(left, key) if report.kind == "result"]
        files = [file for report in found for file in report.artifacts]
        counts = ReportCounts(results=len(found), files=len(files), file_bytes=sum(file.size_bytes for file in files))
    if counts.results:
        named = " ".join(f"{group_id}/{key}" for key in keys) if keys else group_id
        read = f"`paglets jobs show --json {group_id}/JOBKEY` has the result of a job"
        fetch = f"fetch the files first: `paglets artifacts get --group {group_id} DIR`; " if counts.files else ""
        raise Conflict(
            f"nothing was cancelled: {counts_text(replace(counts, failures=0))} of {group_id} would be dropped",
            next=[fetch + read, f"`paglets jobs cancel --force {named}` drops them"],
        )


def _nothing_cancelled(error: PagletsError, group_id: str) -> Unreachable:
    return Unreachable(
        f"nothing was cancelled: {error.message}",
        next=[
            "when it is back, the same command cancels",
            f"`paglets jobs cancel --force {group_id}` ends now what waits or runs on the hosts that answer",
        ],
    )


def by_group(selectors: list[str]) -> dict[str, list[str] | None]:
    """The keys of each group; None: all of it."""
    groups: dict[str, list[str] | None] = {}
    for selector in selectors:
        group_id, slash, job_key = selector.partition("/")
        keys = groups.setdefault(group_id, [])
        if not slash:
            groups[group_id] = None
        elif keys is not None:
            keys.append(job_key)
    return groups


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user in this container, say
        user = "somebody"
    return f"{user} on {socket.gethostname()}"


def _as_json(outcome: CancelOutcome | EndOutcome) -> dict[str, Any]:
    if isinstance(outcome, CancelOutcome):
        return {
            **to_json(outcome),
            "unreachable": [_silent_line(name) for name in outcome.unreachable],
            "ended": {},
            "cleared": {},
            "freed": False,
        }
    keys = {key: "ended" for keys in outcome.ended.values() for key in keys}
    unreachable = [f"{name}: {why}" for name, why in outcome.unreachable.items()]
    return {**to_json(outcome), "keys": keys, "unreachable": unreachable}


def _silent_line(host_name: str) -> str:
    return f"{host_name} not reachable; what runs there ends when it is back"


def _print_ended(outcome: EndOutcome) -> None:
    """Host by host."""
    for name, keys in outcome.ended.items():
        print(f"{outcome.group_id}: ended {counted(len(keys), 'job')} on {name}: {printable(shortlist(keys))}")
    for name, counts in outcome.cleared.items():
        print(f"{outcome.group_id}: cleared {counts_text(counts)} on {name}")
    if outcome.freed:
        say(f"{outcome.group_id} is cleared: it can be submitted again under the same group_id")
    elif outcome.kept:
        kept = counted(outcome.kept, "finished result")
        say(f"{kept} of {outcome.group_id} stay: with --force the same command drops them")
    elif outcome.ended:
        say(f"if its collector comes back, it is told that these jobs of {outcome.group_id} were cancelled")
    if not outcome.ended and not outcome.cleared and not outcome.freed:
        what = "nothing was ended" if outcome.unreachable else "nothing of that waits or runs on a host that answers"
        print(f"{outcome.group_id}: {what}")
    for name, count in outcome.running.items():
        say(f"cancelling: {count} on {name} have not ended yet; the same command waits on")
    say_may_have_more(outcome.group_id, outcome.unreachable)


def _print(outcome: CancelOutcome, client: HostClient) -> None:
    counts = Counter(outcome.keys.values())
    if not counts["unknown"] or len(counts) > 1:
        print(f"{outcome.group_id}: cancelled {counted(counts['cancelled'], 'job')}")
    for what, words in WORDS.items():
        if counts[what]:
            put_line(f"{outcome.group_id}: {counts[what]:,} {words}")
    unknown = [key for key, what in outcome.keys.items() if what == "unknown"]
    for key in unknown[:MOST_NAMED]:
        say(no_such_job(client, outcome.group_id, key))
    if len(unknown) > MOST_NAMED:
        say(f"nor {len(unknown) - MOST_NAMED:,} more of these")
    for name in outcome.unreachable:
        say(f"cancelling: {_silent_line(name)}")
    for name, count in outcome.running.items():
        say(f"cancelling: {count} on {name} have not ended yet; the same command waits on")


def exit_code(outcome: CancelOutcome | EndOutcome, views: Iterable[MeshHostView] = ()) -> int:
    """Return the exit code of one group. The collector knows which hosts have jobs; without it any of them may, but one
    of `views` that is long away is not waited for."""
    if isinstance(outcome, CancelOutcome) and "unknown" in outcome.keys.values():
        return EXIT_FAILED
    gone = {view.host.name for view in views if is_long_offline(view)} if isinstance(outcome, EndOutcome) else set()
    if set(outcome.unreachable) - gone:
        return EXIT_UNREACHABLE
    return EXIT_TIMED_OUT if outcome.running else EXIT_DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksEnded:
    """A line for each job whose hook had failed; `code`: EXIT_FAILED if one could not be ended."""

    lines: tuple[str, ...] = ()
    code: int = EXIT_DONE


def end_failed(client: HostClient, group_id: str, job_keys: Iterable[str] | None) -> HooksEnded:
    """End the jobs of these keys (None: all) whose hook failed, and say what became of their files."""
    lines: dict[tuple[str, str], str] = {}
    code = EXIT_DONE
    for job_key in [""] if job_keys is None else dict.fromkeys(job_keys):
        # A host tells of a bounded number at once, of all jobs or of one.
        while new := _not_in(lines, kept_of(client, group_id, job_key)):
            for hook, files in new:
                line = _ended_text(hook, files)
                try:
                    client.dispose(ProxyRef(agent_id=hook.agent_id, host=hook.host))
                except PagletsError as error:
                    code = EXIT_FAILED
                    line = f"{group_id}/{hook.job_key}, whose {hook.hook} failed, was not ended: {error.message}"
                lines[hook.host.store_id, hook.agent_id] = line
    return HooksEnded(lines=tuple(lines.values()), code=code)


def _not_in(known: Container[tuple[str, str]], found: MeshUndelivered) -> list[tuple[FailedHook, int]]:
    """Return the hooks that are not known yet, each with the number of its files."""
    counts = Counter(file.owner for file in found.files)
    return [(hook, counts[hook.agent_id]) for hook in found.hooks if (hook.host.store_id, hook.agent_id) not in known]


def _ended_text(hook: FailedHook, file_count: int) -> str:
    text = f"ended {hook.group_id}/{hook.job_key}, whose {hook.hook} failed on {hook.host.name}"
    if not file_count:
        return text
    files = f"its {counted(file_count, 'file')} can be fetched until {day(hook.kept_until)}"
    return f"{text}; {files}: `paglets artifacts get --group {hook.group_id} DIR`"
