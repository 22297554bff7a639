"""Cancellation of jobs of a group: the collector cancels their keys, then all hosts are asked until no copy is left."""

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
"""Timeout of one round. A host counts its copies at once. A slower one is asked again in the next round."""

QUIET_ROUNDS = 2
"""Rounds without a copy before all have ended. One is not enough: it may miss a copy that moves between two hosts."""

AWAY = "away"
"""`collector` in the details of an Unreachable: its host cannot be asked, and nothing was cancelled."""

CANCELLED = ("cancelled", "already_cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOutcome:
    """The outcome of a cancellation.

    `keys`: the outcome of each job: `cancelled`, `already_completed`, `already_failed`, `already_cancelled` or
    `unknown`. `running`: by name of host, the number of copies that have not ended yet. `unreachable`: names of hosts
    that may have copies and could not be asked. Their copies end when these hosts are back.
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
    """Cancel these keys of a group (None: all) and wait until their copies have ended. `call` calls the collector.

    Raises Unreachable if the collector cannot be asked.
    """
    try:
        reply = call(Message("cancel", {"job_keys": job_keys, "reason": reason}))
    except Unreachable as error:
        raise Unreachable(error.message, collector=AWAY) from None
    outcome = wait_ended(mesh, group_id, reply, whole=job_keys is None, answer_seconds=answer_seconds, timeout=timeout)
    if outcome.ended and reply["copies"]:
        with suppress(PagletsError):  # on failure, the next cancellation asks these hosts again
            call(Message("copies_gone", {"job_keys": job_keys}))
    return outcome


def wait_ended(
    mesh: MeshClient, group_id: str, reply: Mapping[str, Any], *, whole: bool, answer_seconds: float, timeout: float
) -> CancelOutcome:
    """Wait until no host has a copy of the cancelled keys, for at most `timeout` seconds.

    `reply`: the reply of the collector to `cancel`. `whole`: the request was for all keys of the group. Each host has
    `answer_seconds` to answer, and at most COUNT_SECONDS.
    """
    keys: dict[str, str] = reply["keys"]
    gone = tuple(key for key, what in keys.items() if what in CANCELLED)
    if not gone:
        return CancelOutcome(group_id=group_id, keys=keys)
    body = FlushJobStatus(job_keys=None if whole else gone)
    rounds = _Rounds(mesh, timeout)
    # Names by store id of hosts that have not reported zero copies. A host that went offline meanwhile stays here.
    may_have = {copy["host"]["store_id"]: copy["host"]["name"] for copy in reply["copies"]}
    while True:
        views = mesh.hosts()
        hosts = online_refs(views)
        # A host that was removed meanwhile cannot answer any more.
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
    """Rounds of requests to all hosts, until QUIET_ROUNDS in a row found no copy, or `timeout` seconds have passed."""

    def __init__(self, mesh: MeshClient, timeout: float) -> None:
        self._mesh = mesh
        self._end = mesh.clock.monotonic() + timeout
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._quiet = 0

    def left(self) -> float:
        """Return the seconds left."""
        return self._end - self._mesh.clock.monotonic()

    def go_on(self, *, is_quiet: bool) -> bool:
        """Pause and return True if another round is due. `is_quiet`: the last one found no copy."""
        self._quiet = self._quiet + 1 if is_quiet else 0
        if self._quiet == QUIET_ROUNDS or self.left() <= self._pause_seconds:
            return False
        self._mesh.pause(self._pause_seconds)
        self._pause_seconds = min(LONGEST_PAUSE_SECONDS, self._pause_seconds * 1.5)
        return True


def _unfinished(mesh: MeshClient, group_id: str, body: FlushJobStatus, timeout: float, host: HostRef) -> int:
    """Have `host` report its copies to the collector and end unwanted ones. Return how many of these keys it has."""
    route = f"/v1/groups/{quoted(group_id)}/unfinished"
    return mesh.ask("POST", route, body, UnfinishedCount, host=host, timeout=timeout).count


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOutcome:
    """The outcome of a cancellation without the collector.

    All dicts are by name of host. `ended`: keys of the copies that the host ended. `running`: the number of copies
    that have not ended yet. `unreachable`: the reason why a host was not asked; it may have more copies. `cleared`:
    finished reports that were removed. `kept`: results that still wait. `freed`: the group id can be used again.
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
    """Have each online host cancel its copies of these keys (None: all), and wait until they have ended.

    Hosts are asked repeatedly, for at most `timeout` seconds, because copies in transit may arrive or return. A host
    refuses while it sees the collector's host as online, which is up to ten seconds after that host has died.
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
    """Cancel copies like `end_copies`, and remove the reports that wait for a collector whose host was removed.

    Without `drop_results`, results stay. If nothing of the whole group is left, its id can be used again. Raises
    Unknown if no host that answers has anything of the group.
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
    """Return the last host of the collector, as the home host or the copies of jobs know it. Raises Unknown."""
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
        unreachable = {view.host.name: "it is offline" for view in views if not view.online}
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
