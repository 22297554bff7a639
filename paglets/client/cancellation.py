"""Cancel jobs of a group: ask the collector to cancel them, then poll all hosts until no copy of a job is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from paglets.api.groups import (
    ClearGroup,
    EndCopies,
    EndedCopies,
    FlushJobStatus,
    GroupView,
    ReportCounts,
    UnfinishedCount,
)
from paglets.api.paglets import Done
from paglets.client.fan_out import ask_all, online_refs, returning_errors
from paglets.client.mesh_client import MeshClient, quoted
from paglets.client.orphaned_groups import OrphanedGroup, orphaned_group
from paglets.core.errors import Conflict, PagletsError, Unknown, Unreachable
from paglets.core.messages import Message
from paglets.core.refs import HostRef

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0
COUNT_SECONDS = 3.0
"""Timeout of one round of requests. A host that does not answer in time is asked again in the next round."""

QUIET_ROUNDS = 2
"""Rounds in a row that must find no copy of a job. A single round may miss a copy that moves between two hosts."""

AWAY = "away"
"""Value of the detail `collector` of Unreachable: the host of the collector did not answer, so nothing was changed."""

CANCELLED = ("cancelled", "already_cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOutcome:
    """The outcome of a cancellation.

    `keys`: by job key, the outcome of the job: `cancelled`, `already_completed`, `already_failed`, `already_cancelled`
    or `unknown`. `running`: by host name, the number of copies of jobs that have not ended yet. `unreachable`: names
    of hosts that did not answer and may have copies. They end these copies when they are online again.
    """

    group_id: str
    keys: dict[str, str]
    running: dict[str, int] = field(default_factory=dict)
    unreachable: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Return True if the process trees of all cancelled jobs have ended."""
        return not self.running and not self.unreachable


def cancel_jobs(
    mesh: MeshClient,
    call: Callable[[Message], Any],
    group_id: str,
    job_keys: tuple[str, ...] | None,
    *,
    reason: str,
    answer_seconds: float,
    timeout: float,
) -> CancelOutcome:
    """Cancel the jobs `job_keys` of a group (None: all) and wait until their copies have ended, like `wait_ended`.

    `call` sends a message to the collector and returns the reply. Raises Unreachable if the collector does not answer.
    """
    try:
        reply = call(Message("cancel", {"job_keys": job_keys, "reason": reason}))
    except Unreachable as error:
        raise Unreachable(error.message, collector=AWAY) from None
    outcome = wait_ended(mesh, group_id, reply, whole=job_keys is None, answer_seconds=answer_seconds, timeout=timeout)
    if outcome.ended and reply["copies"]:
        # An error is harmless: without this message, the next cancellation asks these hosts once more.
        with suppress(PagletsError):
            call(Message("copies_gone", {"job_keys": job_keys}))
    return outcome


def wait_ended(
    mesh: MeshClient, group_id: str, reply: Mapping[str, Any], *, whole: bool, answer_seconds: float, timeout: float
) -> CancelOutcome:
    """Wait until no host has a copy of the cancelled jobs, for at most `timeout` seconds.

    `reply`: the reply of the collector to `cancel`. `whole`: True if all jobs of the group are to be cancelled. A
    request to a host times out after `answer_seconds` or COUNT_SECONDS, whichever is less.
    """
    keys: dict[str, str] = reply["keys"]
    gone = tuple(key for key, what in keys.items() if what in CANCELLED)
    if not gone:
        return CancelOutcome(group_id=group_id, keys=keys)
    body = FlushJobStatus(job_keys=None if whole else gone)
    rounds = _Rounds(mesh, timeout)
    # Maps the store ids of hosts that may have copies to their names. A host that goes offline is kept until it has
    # reported zero copies.
    may_have = {copy["host"]["store_id"]: copy["host"]["name"] for copy in reply["copies"]}
    while True:
        views = mesh.hosts()
        hosts = online_refs(views)
        # Hosts that were removed from the mesh cannot answer any more, so stop waiting for them.
        listed = {view.host.store_id for view in views}
        may_have = {store_id: name for store_id, name in may_have.items() if store_id in listed}
        seconds = min(answer_seconds, COUNT_SECONDS, rounds.left())
        ask = returning_errors(partial(_unfinished, mesh, group_id, body, seconds))
        running = {}
        for host, count in zip(hosts, ask_all(ask, hosts), strict=True):
            if count == 0:
                may_have.pop(host.store_id, None)
                continue
            may_have[host.store_id] = host.name
            if isinstance(count, int):
                running[host.name] = count
        if not rounds.go_on(is_quiet=not running):
            break
    unreachable = tuple(sorted(set(may_have.values()) - running.keys()))
    return CancelOutcome(group_id=group_id, keys=keys, running=running, unreachable=unreachable)


class _Rounds:
    """A schedule for repeated rounds of requests, with pauses between the rounds.

    The rounds end after QUIET_ROUNDS quiet ones in a row, or after `timeout` seconds. The caller decides whether a
    round was quiet.
    """

    def __init__(self, mesh: MeshClient, timeout: float) -> None:
        self._mesh = mesh
        self._end = mesh.clock.monotonic() + timeout
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._quiet = 0

    def left(self) -> float:
        """Return the seconds until the timeout."""
        return self._end - self._mesh.clock.monotonic()

    def go_on(self, *, is_quiet: bool) -> bool:
        """Pause and return True if another round is needed. `is_quiet`: True if the last one found nothing left."""
        self._quiet = self._quiet + 1 if is_quiet else 0
        if self._quiet == QUIET_ROUNDS or self.left() <= self._pause_seconds:
            return False
        self._mesh.pause(self._pause_seconds)
        self._pause_seconds = min(LONGEST_PAUSE_SECONDS, self._pause_seconds * 1.5)
        return True


def _unfinished(mesh: MeshClient, group_id: str, body: FlushJobStatus, timeout: float, host: HostRef) -> int:
    """Ask `host` to report its jobs to the collector and to end cancelled ones.

    Return how many copies of the jobs in `body` have not ended there.
    """
    route = f"/v1/groups/{quoted(group_id)}/unfinished"
    return mesh.ask("POST", route, body, UnfinishedCount, host=host, timeout=timeout).count


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOutcome:
    """The outcome of a cancellation without the collector.

    The keys of all dicts are host names. `ended`: keys of the jobs whose copies the host ended. `running`: the number
    of copies that have not ended, and of reports that were not removed yet. `unreachable`: the reason why a host did
    not answer; it may have more copies. `cleared`: the removed reports of finished jobs. `kept`: the number of results
    that still wait for the collector. `freed`: True if the group id can be used again.
    """

    group_id: str
    ended: dict[str, tuple[str, ...]] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)
    cleared: dict[str, ReportCounts] = field(default_factory=dict)
    kept: int = 0
    freed: bool = False


def end_copies(
    mesh: MeshClient, group_id: str, job_keys: tuple[str, ...] | None, *, reason: str, timeout: float
) -> EndOutcome:
    """Ask each online host to cancel its copies of the jobs `job_keys` (None: all), and wait until they have ended.

    Hosts are asked repeatedly, for at most `timeout` seconds, because jobs in transit may arrive later. A host refuses
    while it sees the host of the collector as online, which may last up to ten seconds after that host died.
    """
    return _end(mesh, group_id, EndCopies(job_keys=job_keys, reason=reason), timeout)


def clear_group(
    mesh: MeshClient,
    group_id: str,
    job_keys: tuple[str, ...] | None,
    *,
    reason: str,
    timeout: float,
    drop_results: bool,
) -> EndOutcome:
    """Cancel jobs like `end_copies`, and remove the reports that wait for a collector whose host was removed.

    Without `drop_results`, results are kept. If `job_keys` is None and no host has jobs or reports of the group any
    more, free the group id. Raises Unknown if no host that answers knows the group.
    """
    left = orphaned_group(mesh, group_id, min(timeout, COUNT_SECONDS))
    host = _collector_host(mesh, group_id, left, timeout)
    body = EndCopies(job_keys=job_keys, reason=reason, clear=True, drop_results=drop_results)
    outcome = _end(mesh, group_id, body, timeout)
    if job_keys is not None or outcome.running:
        return outcome
    rest = orphaned_group(mesh, group_id, min(timeout, COUNT_SECONDS))
    if rest.hosts:
        return replace(outcome, kept=rest.counts.results)
    body_of_clear = ClearGroup(submissions=max(left.submissions, 1), host=host)
    hosts = online_refs(mesh.hosts())

    def free(each: HostRef) -> Done:
        return mesh.ask("POST", _route(group_id, "clear"), body_of_clear, Done, host=each, timeout=timeout)

    answers = zip(hosts, ask_all(returning_errors(free), hosts), strict=True)
    failed = {each.name: answer.message for each, answer in answers if isinstance(answer, PagletsError)}
    return replace(outcome, freed=not failed, unreachable={**outcome.unreachable, **failed})


def _collector_host(mesh: MeshClient, group_id: str, left: OrphanedGroup, timeout: float) -> HostRef:
    """Return the last known host of the collector: from a host that knows the group, or from `left`. Raises Unknown."""
    try:
        return mesh.ask("GET", _route(group_id), None, GroupView, timeout=timeout).collector.host
    except Unknown:
        if not left.collectors:
            raise
        return left.collectors[0]


def _route(group_id: str, *further: str) -> str:
    return "/".join(("/v1/groups", quoted(group_id), *further))


def _end(mesh: MeshClient, group_id: str, body: EndCopies, timeout: float) -> EndOutcome:
    rounds = _Rounds(mesh, timeout)
    cleared: dict[str, ReportCounts] = {}
    ended: dict[str, dict[str, None]] = {}
    while True:
        views = mesh.hosts()
        hosts = online_refs(views)
        seconds = min(COUNT_SECONDS, rounds.left())
        answers = ask_all(returning_errors(partial(_end_on, mesh, group_id, body, seconds)), hosts)
        unreachable = {view.host.name: "the host is offline" for view in views if not view.online}
        running: dict[str, int] = {}
        for host, answer in zip(hosts, answers, strict=True):
            if isinstance(answer, PagletsError):
                unreachable[host.name] = answer.message
                continue
            if answer.job_keys:
                ended.setdefault(host.name, {}).update(dict.fromkeys(answer.job_keys))
            if answer.count or answer.reports_left:
                running[host.name] = answer.count + answer.reports_left
            if answer.cleared != ReportCounts():
                cleared[host.name] = cleared.get(host.name, ReportCounts()).plus(answer.cleared)
        refused = any(isinstance(answer, Conflict) for answer in answers)
        if not rounds.go_on(is_quiet=not running and not refused):
            break
    keys = {name: tuple(keys) for name, keys in sorted(ended.items())}
    return EndOutcome(group_id=group_id, ended=keys, running=running, unreachable=unreachable, cleared=cleared)


def _end_on(mesh: MeshClient, group_id: str, body: EndCopies, timeout: float, host: HostRef) -> EndedCopies:
    return mesh.ask("POST", _route(group_id, "end"), body, EndedCopies, host=host, timeout=timeout)
