"""Groups of jobs: list, show, summarise, cancel and clear them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paglets.api.groups import GroupLine, Groups, GroupView, WaitingReport
from paglets.api.hosts import MeshHostView
from paglets.api.paglets import PagletView
from paglets.client.cancellation import AWAY, CancelOutcome, EndOutcome, cancel_jobs, clear_group, end_copies
from paglets.client.collectors import online_collector
from paglets.client.fan_out import ask_all, online_hosts, returning_errors, with_host_name
from paglets.client.group_records import whole_summary
from paglets.client.large_results import load_summary
from paglets.client.mesh_client import MeshClient, quoted
from paglets.client.orphaned_groups import OrphanedGroup, orphaned_group, waiting_reports
from paglets.client.proxy import PagletProxy
from paglets.core.errors import PagletsError, PeerReplaced, Unknown, Unreachable
from paglets.core.messages import Message
from paglets.core.refs import HostRef, ProxyRef, check_group_id

UNKNOWN = "UNKNOWN"
"""Status of a group on a host that has only reports of the group's finished jobs."""


class GroupClient:
    """The methods of `HostClient` for groups of jobs."""

    _mesh: MeshClient
    timeout: float

    def proxy(self, target: Any) -> PagletProxy:
        raise NotImplementedError

    def download_artifact(self, artifact: Any, target: str | Path) -> Path:
        raise NotImplementedError

    def hosts(self) -> tuple[MeshHostView, ...]:
        raise NotImplementedError

    def paglet(self, target: Any, *, timeout: float | None = None) -> PagletView:
        raise NotImplementedError

    def groups(self) -> tuple[GroupLine, ...]:
        """Return the groups that the online hosts know, newest first. Hosts that do not answer are left out.

        The counts come from the host of the collector. If that host is offline, they are the last counts that the home
        host received, or None.
        """
        return self.mesh_groups(self.timeout)[0]

    def mesh_groups(self, timeout: float) -> tuple[tuple[GroupLine, ...], dict[HostRef, PagletsError]]:
        """Return the groups, and the errors of the online hosts that did not answer within `timeout` seconds."""
        hosts = online_hosts(self._mesh)

        def ask(host: HostRef) -> tuple[GroupLine, ...]:
            return self._mesh.ask("GET", "/v1/groups", None, Groups, host=host, timeout=timeout).groups

        answers = ask_all(returning_errors(ask), hosts)
        pairs = zip(hosts, answers, strict=True)
        errors = {host: with_host_name(host, answer) for host, answer in pairs if isinstance(answer, PagletsError)}
        return merged_groups([answer for answer in answers if not isinstance(answer, PagletsError)]), errors

    def group(self, group_id: str) -> GroupView:
        """Return a group that any online host of the mesh knows. Raises Unknown, Invalid."""
        route = f"/v1/groups/{quoted(check_group_id(group_id))}"
        return self._mesh.ask("GET", route, None, GroupView, timeout=self.timeout)

    def collected(self, group_id: str, *, timeout: float | None = None) -> GroupView | None:
        """Return a group as the host of its collector shows it; None if no online host has the collector.

        All hosts are asked at once, because the home host may not know the last move of the collector. Raises
        Unreachable if no collector is found and a host did not answer within `timeout` seconds.
        """
        route, hosts = f"/v1/groups/{quoted(check_group_id(group_id))}?here=1", online_hosts(self._mesh)

        def ask(host: HostRef) -> GroupView:
            return self._mesh.ask("GET", route, None, GroupView, host=host, timeout=timeout or self.timeout)

        unreachable: list[PagletsError] = []
        for host, answer in zip(hosts, ask_all(returning_errors(ask), hosts), strict=True):
            if isinstance(answer, GroupView) and answer.collector.host.store_id == host.store_id:
                return answer
            if isinstance(answer, PagletsError) and not isinstance(answer, Unknown):
                unreachable.append(with_host_name(host, answer))
        if unreachable:
            raise Unreachable(
                f"the collector of {group_id} is on no host that answered; {unreachable[0].message}", collector=AWAY
            )
        return None

    def _collector(self, group_id: str) -> ProxyRef:
        """Return the collector on the host that the home host reports. If that host was removed, ask all hosts.

        Raises Unreachable, with next steps for the user, if no host has the collector.
        """
        known = self.group(group_id).collector
        return known if self._mesh.listed(known.host) else online_collector(self, known, group_id)

    def summary(self, group_id: str) -> dict[str, Any]:
        """Return the collector's summary of a group with all records of jobs. `groups.summary` describes its fields.

        Raises TooLarge if the records exceed 1 GiB in all: `Submission.as_completed` returns them one by one.
        """
        collector = self._collector(group_id)
        ask = self.proxy(collector).call
        try:
            summary = whole_summary(ask, ask(Message("summary")))
        except PeerReplaced as error:
            raise PeerReplaced(
                f"the collector of {group_id} was on {collector.host.name}, and {error.message}",
                **{
                    **error.details,
                    "hint": ["that host restarted with an empty data directory, or another host has its address"],
                },
            ) from None
        return load_summary(self, summary, group_id)

    def cancel(
        self, group_id: str, job_keys: Sequence[str] | None = None, *, reason: str = "", timeout: float | None = None
    ) -> CancelOutcome:
        """Cancel queued and running jobs of a group (`job_keys` None: all). Jobs that have ended are not changed.

        Returns when the process trees of the jobs have ended, or after `timeout` seconds (default: the timeout of the
        client). `reason` is stored in the failures of the jobs. Raises Unreachable if the host of the collector is
        offline; nothing is cancelled then (see `end_copies`).
        """
        keys = None if job_keys is None else tuple(job_keys)
        call = self.proxy(self._collector(group_id)).call
        wait = self.timeout if timeout is None else timeout
        return cancel_jobs(self._mesh, call, group_id, keys, reason=reason, answer_seconds=self.timeout, timeout=wait)

    def end_copies(
        self, group_id: str, job_keys: Sequence[str] | None = None, *, reason: str = "", timeout: float | None = None
    ) -> EndOutcome:
        """Cancel jobs of a group (`job_keys` None: all) on each host that answers, without the collector of the group.

        A host refuses while it sees the host of the collector as online. When the collector is back, it receives these
        jobs as failures with the cause `cancelled`. Wait like `cancel`.
        """
        keys = None if job_keys is None else tuple(job_keys)
        wait = self.timeout if timeout is None else timeout
        return end_copies(self._mesh, check_group_id(group_id), keys, reason=reason, timeout=wait)

    # The methods below handle groups whose collector is lost.

    def orphaned_group(self, group_id: str, *, timeout: float | None = None) -> OrphanedGroup:
        """Return the reports of finished jobs, and the unfinished jobs, that online hosts have of a group."""
        return orphaned_group(self._mesh, check_group_id(group_id), timeout or self.timeout)

    def waiting_reports(
        self, left: OrphanedGroup, job_key: str | None = None
    ) -> Iterator[tuple[HostRef, WaitingReport]]:
        """Yield the reports on the hosts of `left` that wait for the collector, optionally of one job only."""
        hosts = tuple(each.host for each in left.hosts if each.counts.results or each.counts.failures)
        return waiting_reports(self._mesh, left.group_id, hosts, self.timeout, job_key)

    def clear_group(
        self,
        group_id: str,
        job_keys: Sequence[str] | None = None,
        *,
        reason: str = "",
        timeout: float | None = None,
        drop_results: bool = False,
    ) -> EndOutcome:
        """Cancel the jobs `job_keys` (None: all) of a group that lost its collector with a removed host.

        Also delete their reports, but keep results that wait for the collector, unless `drop_results`. When no jobs and
        reports are left, the group id can be used again. Wait like `cancel`. Raises Unknown.
        """
        keys = None if job_keys is None else tuple(job_keys)
        wait = self.timeout if timeout is None else timeout
        return clear_group(
            self._mesh, check_group_id(group_id), keys, reason=reason, timeout=wait, drop_results=drop_results
        )


def merged_groups(answers: Sequence[Sequence[GroupLine]]) -> tuple[GroupLine, ...]:
    """Return each group once, newest first, as the host of its collector shows it, else as its home host shows it."""
    found: dict[str, GroupLine] = {}
    waiting: dict[str, int] = {}
    for line in (line for lines in answers for line in lines):
        waiting[line.group_id] = waiting.get(line.group_id, 0) + line.waiting_reports
        known = found.get(line.group_id)
        if known is None or line.here or (known.status == UNKNOWN and not known.here):
            found[line.group_id] = line
    lines = (replace(line, waiting_reports=waiting[line.group_id]) for line in found.values())
    return tuple(sorted(lines, key=lambda line: (-line.created_at, line.group_id)))
