"""Orphaned groups: the jobs and reports that hosts still have of a group whose collector does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from paglets.api.groups import ReportCounts, WaitingReport, WaitingReports
from paglets.client.fan_out import ask_all, online_refs, returning_errors
from paglets.client.mesh_client import MeshClient, quoted
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef

PAGE_REPORTS = 500
MOST_PAGES = 100_000
"""Maximum number of pages from one host, in case a faulty host sends a list without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanedGroup:
    """The unfinished jobs, and the reports of finished jobs, that hosts have of a group.

    `hosts`: one entry for each host that has any. `submissions`: the number of groups that had this id, as far as the
    hosts know. `unreachable`: by host name, the reason why a host did not answer; it may have more jobs and reports.
    """

    group_id: str
    hosts: tuple[WaitingReports, ...] = ()
    submissions: int = 0
    unreachable: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> ReportCounts:
        """Return the total numbers of reports on all hosts."""
        total = ReportCounts()
        for each in self.hosts:
            total = total.plus(each.counts)
        return total

    @property
    def unfinished(self) -> int:
        """Return the number of unfinished copies of jobs on all hosts, waiting or running."""
        return sum(each.running + each.queued for each in self.hosts)

    @property
    def collectors(self) -> tuple[HostRef, ...]:
        """Return the last known hosts of the collector, according to the hosts that have jobs or reports."""
        return tuple({host.store_id: host for each in self.hosts for host in each.collectors}.values())


def orphaned_group(mesh: MeshClient, group_id: str, timeout: float) -> OrphanedGroup:
    """Return the jobs and reports that online hosts have of a group. `timeout`: seconds for each request."""
    views = mesh.hosts()
    hosts = online_refs(views)
    answers = ask_all(returning_errors(lambda host: _page(mesh, host, group_id, "limit=0", timeout)), hosts)
    unreachable = {view.host.name: "the host is offline" for view in views if not view.online}
    found: list[WaitingReports] = []
    for host, answer in zip(hosts, answers, strict=True):
        if isinstance(answer, PagletsError):
            unreachable[host.name] = answer.message
        else:
            found.append(replace(answer, host=host))
    return OrphanedGroup(
        group_id=group_id,
        hosts=tuple(each for each in found if each.counts != ReportCounts() or each.running or each.queued),
        submissions=max((each.submissions for each in found), default=0),
        unreachable=unreachable,
    )


def waiting_reports(
    mesh: MeshClient, group_id: str, hosts: tuple[HostRef, ...], timeout: float, job_key: str | None = None
) -> Iterator[tuple[HostRef, WaitingReport]]:
    """Yield the reports on these hosts that wait for the collector, optionally of one job only."""
    only = "" if job_key is None else f"&job_key={quoted(job_key)}"
    for host in hosts:
        after = 0
        for _ in range(MOST_PAGES):
            page = _page(mesh, host, group_id, f"after={after}&limit={PAGE_REPORTS}{only}", timeout)
            yield from ((host, report) for report in page.reports)
            if page.next is None or page.next <= after:
                break
            after = page.next


def newest_reports(found: Iterator[tuple[HostRef, WaitingReport]]) -> dict[str, tuple[HostRef, WaitingReport]]:
    """Return one report of each job, by job key: a result rather than a failure, then the newest attempt."""
    newest: dict[str, tuple[HostRef, WaitingReport]] = {}
    for host, report in found:
        known = newest.get(report.job_key)
        if known is None or _rank(report) > _rank(known[1]):
            newest[report.job_key] = (host, report)
    return dict(sorted(newest.items()))


def _rank(report: WaitingReport) -> tuple[bool, int, int]:
    return (report.kind == "result", report.record["generation"], report.record["attempt"])


def _page(mesh: MeshClient, host: HostRef, group_id: str, query: str, timeout: float) -> WaitingReports:
    return mesh.ask(
        "GET", f"/v1/groups/{quoted(group_id)}/waiting?{query}", None, WaitingReports, host=host, timeout=timeout
    )
