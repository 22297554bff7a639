"""What a submitter is told on stderr: of its submission, and of waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol, runtime_checkable

from paglets.api.groups import GroupView
from paglets.core.clock import QUIET_SECONDS, told_if_slow
from paglets.core.errors import NO_ANSWER, GroupLost, PagletsError
from paglets.core.terminal import put_line
from paglets.core.text import as_typed, command_name, counted
from paglets.remote.collectors import FORGOTTEN, LOST, Finder, moved, next_steps
from paglets.remote.losthosts import view_of

MOST_ERRORS = 10
STATUS_SECONDS = 5.0
"""For how a group stands that was there before: nice to know, and no reason to wait long."""
_UNITS = ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"))


@runtime_checkable
class GroupReader(Finder, Protocol):
    """A HostClient: can ask its host how a group stands. (Within a paglet, submitting again answers that.)"""

    def group(self, group_id: str) -> GroupView: ...


def say(*lines: str) -> None:
    for line in lines:
        put_line(line)


def remarks_on(view: GroupView, status: str, now: float, *, from_script: bool, trouble: str = "") -> tuple[str, ...]:
    """Warnings of the submitter's side. `now`: seconds since the epoch; `status`: of the group, "" if it is not known;
    `trouble`: why it is not.

    A paglet that is run again submits again, and that is as it should be: it is told only if something differs.
    """
    found: list[str] = []
    if view.was_there and (from_script or view.differs):
        since = f"submitted {_ago(now - view.created_at)} ago" + (f", {status}" if status else "")
        found.append(f"group {view.group_id} is there already ({since}): nothing was submitted")
        found += [trouble] if trouble else []
    if view.differs:
        what = " and ".join(view.differs)
        verb = "differs" if view.differs == ("code",) else "differ"
        them = "it" if view.differs == ("code",) else "them"
        found.append(f"its {what} {verb} from what there is now: submit under another group_id to run {them}")
    if not view.job_keys:
        found.append(f"group {view.group_id} has no jobs: there is nothing to run")
    return tuple(found)


def said_if_slow(text: str) -> AbstractContextManager[None]:
    """Say what a script waits for, where that takes long."""
    return told_if_slow(say, f"paglets: {text}", QUIET_SECONDS)


def said_if_storing(submitter: object, group_id: str | None) -> AbstractContextManager[None]:
    """Say in a script that its host is waited for, which stores the group."""
    if not isinstance(submitter, GroupReader):
        return nullcontext()
    which = f"group {group_id}" if group_id else "the group"
    return said_if_slow(f"waiting for the host that stores {which}")


def without_collector(view: GroupView, reader: GroupReader, error: PagletsError) -> tuple[GroupView, str, str]:
    """Of a group whose collector did not say how it stands: the view, with the collector where it is; the status as
    another host tells it, or "", and then why it is not known. `error`: what came in the place of its answer.

    Raises GroupLost where the collector is lost with a host that was forgotten, or that has another store by now.
    """
    try:
        found = moved(reader, view.collector, view.group_id)
    except PagletsError as why:
        if why.details.get("collector") in LOST:
            raise group_lost(view.group_id, why.message, why.next_steps) from None
        return _not_known(view, "; ".join((why.message, *map(as_typed, why.next_steps[:1]))))
    if found is not None:
        return replace(view, collector=found.collector), found.status, ""
    return _not_known(view, _unknown_text(view, error))


def _not_known(view: GroupView, why: str) -> tuple[GroupView, str, str]:
    """Nobody says that a group whose collector cannot be asked is detached, whatever its home stored before."""
    return replace(view, detached=False, detached_reason=why), "", why


def group_lost(group_id: str, why: str, steps: Sequence[str] = ()) -> GroupLost:
    """Return the error that nothing runs under this group id, with what to do."""
    return GroupLost(
        f"group {group_id} is there already and nothing was submitted: {why}",
        next=list(steps) or next_steps(group_id, FORGOTTEN, ""),
    )


def detached_if_seen(reader: GroupReader, refresh: Callable[[], GroupView]) -> GroupView:
    """Return what `refresh` gives, but not `detached` while the collector's host is not online.

    Of a group that was there already, and whose collector could not be asked.
    """
    view = refresh()
    host = view.collector.host
    if not view.detached or host.store_id == view.home.store_id:
        return view
    member = view_of(host, reader.hosts())
    if member is not None and member.online:
        return view
    why = "which was forgotten" if member is None else f"not seen for {member.silent_seconds:.0f} s"
    return replace(view, detached=False, detached_reason=f"its collector is on {host.name}, {why}")


def _unknown_text(view: GroupView, error: PagletsError) -> str:
    """Why a collector whose host is online did not say how its group stands, and what to do."""
    host = view.collector.host
    if not isinstance(error, NO_ANSWER):
        return f"its collector, on {host.name}, does not say how it stands: {error.message}"
    told = f"{error.message}; see {command_name()} jobs status {view.group_id}"
    return f"its collector, last known on {host.name}, cannot be asked now: {told}"


def _ago(seconds: float) -> str:
    for unit, name in _UNITS:
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)} {name}"
    return "a moment"


def submission_lines(view: GroupView, remarks: Iterable[str], *, from_script: bool) -> list[str]:
    """What stands in the way, and after a script's submission the next commands."""
    command = command_name()
    errors = () if view.was_there else view.creation_errors
    lines = [f"paglets: {error.job_key} was not created: {error.message}" for error in errors[:MOST_ERRORS]]
    if len(errors) > MOST_ERRORS:
        lines.append(f"paglets: ... and {len(errors) - MOST_ERRORS:,} more (submission.creation_errors)")
    warnings = () if view.was_there else view.warnings
    lines += [f"paglets: warning: {warning}" for warning in (*warnings, *remarks)]
    if warnings:
        lines.append(f"paglets: see why, at any time: {command} jobs why {view.group_id}")
    if from_script:
        done = "" if view.was_there else f"submitted group {view.group_id}, {counted(len(view.job_keys), 'job')}; "
        lines.append(f"paglets: {done}next:")
        lines += [f"  {command} jobs {rest}" for rest in _next_commands(view.group_id)]
    return lines


def _next_commands(group_id: str) -> tuple[str, str, str]:
    return f"groups {group_id}", f"why {group_id}", "ps"


def attached_line(view: GroupView) -> str:
    if view.status == "COMPLETE":
        return f"paglets: group {view.group_id} is COMPLETE, no job is left to detach: {view.detached_reason}"
    return f"paglets: group {view.group_id} is not detached yet: {view.detached_reason}"


def interrupted_line(group_id: str) -> str:
    watch = f"{command_name()} jobs watch {group_id}"
    return f"paglets: nothing was cancelled, group {group_id} goes on; see {watch}, or jobs cancel {group_id}"
