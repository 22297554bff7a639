"""The messages on stderr about a submission and about waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from paglets.api.groups import CreationError, GroupView, Obstacle
from paglets.client.collectors import FORGOTTEN, LOST, CollectorFinder, moved_group, next_steps
from paglets.client.hosts import view_of
from paglets.core.clock import QUIET_SECONDS, call_if_slow
from paglets.core.errors import GroupLost, PagletsError
from paglets.core.record import to_json
from paglets.core.terminal import put_line
from paglets.core.text import as_advice, command_name, counted, duration_text
from paglets.slots.eligibility import remedy

MOST_REASONS = 3
"""The maximum number of different errors, and of different obstacles, that one submission prints."""

STATUS_SECONDS = 5.0
"""The time-out of a request for a group's status, in seconds. It is short, because no submission needs the status."""


@runtime_checkable
class GroupReader(CollectorFinder, Protocol):
    """The methods of a HostClient, with which a script submits, that find a collector and read the state of a group.

    A paglet has no such methods. It submits its group again, which changes nothing and returns the state.
    """

    def group(self, group_id: str) -> GroupView: ...


def say(*lines: str) -> None:
    for line in lines:
        put_line(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A message about a group, with an optional hint. `next_command`: a command to suggest, without `paglets`."""

    text: str
    hint: str = ""
    next_command: str = ""


def remarks_on(view: GroupView, now: float, *, from_script: bool, trouble: Remark | None = None) -> tuple[Remark, ...]:
    """Return remarks on a submission. `now` is in seconds since the epoch.

    `trouble` says why the counts of the group are unknown. A restarted paglet submits its group again, as it should, so
    it gets no remark that the group existed before.
    """
    found: list[Remark] = []
    if view.was_there and from_script:
        found.append(_known_group(view, now))
        found += [trouble] if trouble else []
    if view.differs:
        what, them = " and ".join(view.differs), "it" if view.differs == ("code",) else "them"
        found.append(
            Remark(
                text=f"{what} changed since the submission; the group keeps the old version",
                hint=f"submit under another group_id to run {them}",
            )
        )
    if not view.job_keys:
        found.append(Remark(text="the group has no jobs: there is nothing to run"))
    return tuple(found)


def _known_group(view: GroupView, now: float) -> Remark:
    """Return a remark on the state of a group that existed before."""
    group, expected = view.group_id, view.expected_count
    if expected is None or view.completed_count is None or view.failed_count is None:
        text = f"submitted {duration_text(now - view.created_at)} ago; nothing was submitted again"
        return Remark(text=text, next_command=f"jobs status {group}")
    done, failed = view.completed_count, view.failed_count
    pending = expected - done - failed
    if pending:
        told = f"{done:,} done, {failed:,} failed, {pending:,} pending of {expected:,}"
        text = f"submitted {duration_text(now - view.created_at)} ago, {told}; nothing was submitted again"
        return Remark(text=text, next_command=f"jobs watch {group}")
    if failed:
        before = f"{done:,} of {expected:,} were done before, {failed:,} failed before; failed jobs are not run again"
        hint = "submit the failed jobs under another group_id to run them again"
        return Remark(text=before, hint=hint, next_command=f"jobs why {group}")
    text = f"{done:,} of {expected:,} were done before; nothing to run"
    return Remark(text=text, next_command=f"jobs groups {group}")


def report_if_slow(group_id: str, text: str) -> AbstractContextManager[None]:
    """Return a context that prints `text`, the reason for a wait, if its body takes long."""
    return call_if_slow(say, f"{group_id or 'paglets'}: {text}", QUIET_SECONDS)


def report_slow_storing(submitter: object, group_id: str | None) -> AbstractContextManager[None]:
    """Return a context that prints a message if its body, which stores a group for a script, takes long."""
    if not isinstance(submitter, GroupReader):
        return nullcontext()
    return report_if_slow(group_id or "", "waiting for the host that stores the group")


@dataclass(slots=True, kw_only=True)
class Interruption:
    """The progress of a submission. `sent` is True once the host may have stored the group."""

    sent: bool = False


@contextmanager
def report_interruption(submitter: object, group_id: str | None) -> Iterator[Interruption]:
    """Print whether the group may have been stored, if Ctrl-C interrupts a submission by a script."""
    reached = Interruption()
    try:
        yield reached
    except KeyboardInterrupt:
        if isinstance(submitter, GroupReader):
            say(*_interrupted_submission(group_id, reached.sent))
        raise


def _interrupted_submission(group_id: str | None, sent: bool) -> list[str]:
    who = group_id or "paglets"
    if not sent:
        return [f"{who}: interrupted; nothing was submitted"]
    told = f"{who}: interrupted while the host stored the group, which may be submitted"
    if group_id:
        return [told, "hint: submit again under the same group_id; no job runs twice"]
    return [told, f"next: {command_name()} jobs groups"]


def without_collector(view: GroupView, reader: GroupReader, error: PagletsError) -> tuple[GroupView, Remark | None]:
    """Return the view of a group whose collector did not answer a request, which failed with `error`.

    If another host has the collector now, the view has that host, and the status and counts from there. Otherwise, also
    return a remark that says why the status is unknown. Raises GroupLost if the collector's host was removed or has
    another store now.
    """
    try:
        found = moved_group(reader, view.collector, view.group_id)
    except PagletsError as why:
        if why.details.get("collector") in LOST:
            raise group_lost(view.group_id, why.message, why.next_steps) from None
        return _not_known(view, Remark(text=why.message, hint=next(iter(why.next_steps), "")))
    if found is not None:
        return counted_view(replace(view, collector=found.collector), to_json(found)), None
    return _not_known(view, _unknown(view, error))


def counted_view(view: GroupView, told: Mapping[str, Any]) -> GroupView:
    """Return the view with the status and counts in `told`."""
    return replace(
        view,
        status=str(told.get("status", "")),
        expected_count=told.get("expected_count"),
        completed_count=told.get("completed_count"),
        failed_count=told.get("failed_count"),
    )


def _not_known(view: GroupView, why: Remark) -> tuple[GroupView, Remark]:
    """Return `view` with `detached` set to False for the reason `why`. Also return `why`.

    A group that was detached earlier needs this change, because its collector is unreachable now.
    """
    return replace(view, detached=False, detached_reason=why.text), why


def group_lost(group_id: str, why: str, steps: Sequence[str] = ()) -> GroupLost:
    """Return the error for a lost group, with the next steps."""
    return GroupLost(
        f"group {group_id} exists already, and nothing was submitted: {why}",
        next=list(steps) or next_steps(group_id, FORGOTTEN, ""),
    )


def detached_if_seen(reader: GroupReader, refresh: Callable[[], GroupView]) -> GroupView:
    """Return the view that `refresh` returns, with `detached` set to False if the collector's host is offline.

    Used for a group that existed before the submission and whose collector could not be asked.
    """
    view = refresh()
    host = view.collector.host
    if not view.detached or host.store_id == view.home.store_id:
        return view
    member = view_of(host, reader.hosts())
    if member is not None and member.online:
        return view
    why = "which was forgotten" if member is None else f"not seen for {member.seconds_since_seen:.0f} s"
    return replace(view, detached=False, detached_reason=f"its collector is on {host.name}, {why}")


def _unknown(view: GroupView, error: PagletsError) -> Remark:
    """Return a remark on a collector that did not report the state of its group, although its host is online."""
    host = view.collector.host
    if not error.no_reply:
        return Remark(text=f"its collector, on {host.name}, did not report its state: {error.message}")
    text = f"its collector, last known on {host.name}, is unreachable: {error.message}"
    return Remark(text=text, next_command=f"jobs status {view.group_id}")


def submission_lines(view: GroupView, remarks: Iterable[Remark], *, from_script: bool) -> list[str]:
    """Return the lines to print at a submission: messages about the group, at most one hint, at most one command."""
    group, remarks = view.group_id, tuple(remarks)
    errors, obstacles = ((), ()) if view.was_there else (view.creation_errors, view.obstacles)
    told = [_submitted(view)] if from_script and not view.was_there and view.job_keys else []
    told += _error_texts(errors)
    told += _bounded([obstacle_text(each) for each in obstacles], "submission.warnings")
    told += [remark.text for remark in remarks]
    hints = [remedy(each.code) for each in obstacles] + [remark.hint for remark in remarks]
    commands = [f"jobs why {group}"] if obstacles or errors else [remark.next_command for remark in remarks]
    if from_script and not view.was_there and view.job_keys:
        commands.append(f"jobs watch {group}")
    lines = [f"{group}: {text}" for text in told]
    lines += [f"hint: {as_advice(hint)}" for hint in tuple(filter(None, hints))[:1]]
    lines += [f"next: {command_name()} {command}" for command in tuple(filter(None, commands))[:1]]
    return lines


def _submitted(view: GroupView) -> str:
    given, count = len(view.job_keys), len(view.job_keys) - len(view.creation_errors)
    if not count:
        return "no job was submitted"
    here = f"; {'it runs' if count == 1 else 'they run'} here, on the only host"
    jobs = counted(count, "job") if count == given else f"{count:,} of {given:,} jobs"
    return f"{jobs} submitted" + (here if view.only_host and not view.obstacles else "")


def obstacle_text(obstacle: Obstacle) -> str:
    """Return a text such as `2 jobs can never run: 64 cores asked, the largest host (linux-a) offers 2`."""
    many = counted(obstacle.count, "job")
    waits = "waits" if obstacle.count == 1 else "wait"
    return f"{many} {'can never run' if obstacle.never else f'{waits} for a host'}: {obstacle.text}"


def _error_texts(errors: Sequence[CreationError]) -> list[str]:
    """Return a line for each different error, with the number of jobs that have it."""
    keys: dict[str, list[str]] = {}
    for error in errors:
        keys.setdefault(error.message, []).append(error.job_key)
    texts = [f"{_not_created(those)}: {text}" for text, those in keys.items()]
    return _bounded(texts, "submission.creation_errors")


def _not_created(keys: Sequence[str]) -> str:
    one = len(keys) == 1
    return f"{keys[0]} was not created" if one else f"{len(keys):,} jobs, such as {keys[0]}, were not created"


def _bounded(texts: list[str], rest: str) -> list[str]:
    """Return the first MOST_REASONS texts and a line with the number of the others.

    `rest` is the attribute where a script finds all of them, such as `submission.warnings`.
    """
    more = len(texts) - MOST_REASONS
    return texts[:MOST_REASONS] + ([f"and {counted(more, 'more reason')} ({rest})"] if more > 0 else [])


def detached_line(view: GroupView) -> str:
    return f"{view.group_id}: {view.home.name} is no longer needed; you can disconnect"


def attached_line(view: GroupView) -> str:
    if view.only_host:
        stands = "all jobs have ended" if view.status == "COMPLETE" else "not detached"
        return f"{view.group_id}: {stands}; {view.detached_reason}"
    if view.status == "COMPLETE":
        return f"{view.group_id}: all jobs have ended, none is left to detach: {view.detached_reason}"
    return f"{view.group_id}: not detached yet: {view.detached_reason}"


def interrupted_lines(group_id: str) -> tuple[str, str, str]:
    command = command_name()
    return (
        f"{group_id}: stopped waiting; the jobs continue",
        f"hint: {command} jobs cancel {group_id} ends them",
        f"next: {command} jobs watch {group_id}",
    )
