"""Routes about groups of jobs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from paglets.api.groups import (
    ClearGroup,
    EndCopies,
    EndedCopies,
    FlushJobStatus,
    Groups,
    GroupView,
    JobStatusReply,
    JobStatusReport,
    ReportCounts,
    SubmitGroup,
    UnfinishedCount,
    WaitingReport,
    WaitingReports,
)
from paglets.api.paglets import Done
from paglets.core.errors import Invalid, PagletsError, Unknown
from paglets.core.failpoints import reach
from paglets.core.refs import check_group_id
from paglets.host.groups import clearing
from paglets.host.groups.forced_cancel import end_copies
from paglets.host.host import Host
from paglets.host.http.router import ParsedRequest, Route
from paglets.host.records import group_views
from paglets.host.records.group_jobs import MAX_SUBMISSIONS
from paglets.mesh.ask_all import ask_all
from paglets.store import copies, undelivered
from paglets.store.db import Tx
from paglets.wire.request import PendingResponse, Request, reply_error

MAX_PAGE_REPORTS = 500
MAX_PAGE_BYTES = 4 << 20
"""The maximum size of a page of waiting reports. A page with a single report may be larger."""

MOST_NUMBER = 1 << 53
MOST_CLEAR_PAGES = 50
"""The maximum number of short transactions in one request. The caller repeats the request to clear more pages."""

SMALL_GROUP_JOBS = 32
"""The number of jobs up to which a group is stored by the runner. It takes about 0.1 ms for each job."""

ELSEWHERE_SECONDS = 2.0
"""Seconds to wait for the hosts that may know a group, so that an unresponsive host does not delay the reply."""


def submit(host: Host, asked: ParsedRequest) -> GroupView:
    body: SubmitGroup = asked.body
    prepared = host.submission.prepare(host.services.entropy.token(), body)

    def store(tx: Tx) -> GroupView:
        view = host.submission.store(tx, prepared)
        reach("after-accept-before-commit")
        return view

    # A small group is placed in the same COMMIT. A larger one is stored on this thread, so that the runner can go on.
    is_small = len(body.jobs) <= SMALL_GROUP_JOBS
    view = host.runner.write(store) if is_small else host.services.store.write(store)
    reach("after-commit-before-reply")
    return view


def lines(host: Host, asked: ParsedRequest) -> Groups:
    return Groups(groups=host.services.store.read(lambda tx: group_views.lines(tx, host.services.own)))


def one(host: Host, asked: ParsedRequest) -> Any:
    group_id = check_group_id(asked.path["ID"])
    view = host.services.store.read(lambda tx: group_views.view(tx, group_id, host.host_view))
    if view is not None:
        return group_views.on_only_host(view, host.gossip.candidates()[0])
    error = Unknown(f"no online host of the mesh knows a group {group_id!r}")
    if asked.query.get("here"):
        raise error
    return _from_elsewhere(host, group_id, error)


def _from_elsewhere(host: Host, group_id: str, error: PagletsError) -> PendingResponse:
    """Ask all online hosts for a group.

    The reply is the complete view from the home host of the group. If that host is offline, the reply is the view from
    the host of the collector, which has no job keys.
    """
    pending = PendingResponse()
    ask_all(
        host.services.transport,
        [mesh_host.ref for mesh_host in host.gossip.online()],
        Request(method="GET", target=f"/v1/groups/{group_id}?here=1"),
        lambda mesh_host, response: (response, response.parse(GroupView)),
        lambda answers: pending.complete(answers[-1][0] if answers else reply_error(error)),
        timeout_seconds=ELSEWHERE_SECONDS,
        enough=lambda answer: bool(answer[1].job_keys),
    )
    return pending


def take_status(host: Host, asked: ParsedRequest) -> JobStatusReply:
    body: JobStatusReport = asked.body
    asked.require_sender([body.host.store_id])
    return host.reconciliation.take(body)


def flush(host: Host, asked: ParsedRequest) -> UnfinishedCount:
    group_id = check_group_id(asked.path["ID"])
    body: FlushJobStatus = asked.body
    keys = None if body.job_keys is None else frozenset(body.job_keys)
    count = host.services.store.read(lambda tx: copies.unfinished(tx, group_id, keys))
    if count:
        host.reconciliation.flush()
    return UnfinishedCount(count=count)


def end(host: Host, asked: ParsedRequest) -> EndedCopies:
    group_id = check_group_id(asked.path["ID"])
    body: EndCopies = asked.body
    online = frozenset(mesh_host.store_id for mesh_host in host.gossip.online())
    own, store, now = host.services.own, host.services.store, host.services.clock.wall()
    if body.clear:
        store.read(lambda tx: clearing.require_lost(tx, group_id, _known_stores(host), own))
    ended = store.write(lambda tx: end_copies(tx, group_id, body, online, own, now))
    return _clear(host, group_id, body, ended) if body.clear else ended


def _clear(host: Host, group_id: str, body: EndCopies, ended: EndedCopies) -> EndedCopies:
    """Clear the undelivered reports of a group in a series of short transactions (see `clear_page`)."""
    store, now = host.services.store, host.services.clock.wall()
    after = 0
    total = ReportCounts()
    for _ in range(MOST_CLEAR_PAGES):
        after, cleared = store.write(
            partial(clearing.clear_page, group_id=group_id, request=body, after=after, now=now)
        )
        total = total.plus(cleared)
        if not after:
            return replace(ended, cleared=total)
    left = store.read(lambda tx: undelivered.counts(tx, group_id))
    return replace(ended, cleared=total, reports_left=left.failures + (left.results if body.drop_results else 0))


def clear(host: Host, asked: ParsedRequest) -> Done:
    group_id = check_group_id(asked.path["ID"])
    body: ClearGroup = asked.body
    if not 1 <= body.submissions <= MAX_SUBMISSIONS:
        raise Invalid(f"submissions is {body.submissions}: expected 1 to {MAX_SUBMISSIONS:,}")
    mesh_hosts, own, now = _known_stores(host), host.services.own, host.services.clock.wall()
    if body.host.store_id in mesh_hosts:
        raise clearing.is_in_mesh(group_id, body.host)

    def change(tx: Tx) -> None:
        clearing.require_lost(tx, group_id, mesh_hosts, own)
        clearing.free_id(tx, group_id, body, now)

    host.services.store.write(change)
    return Done()


def _known_stores(host: Host) -> frozenset[str]:
    """Return the store ids of all hosts of the mesh that this host knows, itself included, online or not."""
    return frozenset(view.host.store_id for view in host.gossip.hosts())


def waiting_reports(host: Host, asked: ParsedRequest) -> WaitingReports:
    group_id, own = check_group_id(asked.path["ID"]), host.services.own
    after, limit = asked.number("after", 0, MOST_NUMBER), asked.number("limit", 0, MAX_PAGE_REPORTS)
    key = asked.query.get("job_key")

    def read(tx: Tx) -> WaitingReports:
        reports: tuple[WaitingReport, ...] = ()
        following = None
        if limit:
            reports, following = undelivered.page(
                tx, group_id, own, after=after, most=limit, most_bytes=MAX_PAGE_BYTES, job_key=key
            )
        running = copies.running_count(tx, group_id)
        return WaitingReports(
            host=own,
            collectors=undelivered.collector_hosts(tx, group_id),
            counts=undelivered.counts(tx, group_id),
            running=running,
            queued=copies.unfinished(tx, group_id, None) - running,
            submissions=undelivered.submissions(tx, group_id),
            reports=reports,
            next=following,
        )

    return host.services.store.read(read)


ROUTES = (
    Route(
        method="POST",
        path="/v1/groups",
        takes=SubmitGroup,
        gives=GroupView,
        about="submit a group of jobs in one request",
        answer=submit,
    ),
    Route(
        method="GET",
        path="/v1/groups",
        takes=None,
        gives=Groups,
        about="the groups with their home, their collector or waiting reports on this host",
        answer=lines,
    ),
    Route(
        method="GET",
        path="/v1/groups/ID",
        takes=None,
        gives=GroupView,
        about="one group, whichever host knows it",
        answer=one,
    ),
    Route(
        method="POST",
        path="/v1/groups/ID/unfinished",
        takes=FlushJobStatus,
        gives=UnfinishedCount,
        about="report the job copies on this host to the collectors now, and count the group's unfinished ones",
        answer=flush,
    ),
    Route(
        method="POST",
        path="/v1/groups/ID/end",
        takes=EndCopies,
        gives=EndedCopies,
        about="end this host's copies of a group's jobs while its collector is unreachable",
        answer=end,
    ),
    Route(
        method="GET",
        path="/v1/groups/ID/waiting",
        takes=None,
        gives=WaitingReports,
        about="the reports of a group that wait on this host for its collector, and counts of its job copies here",
        answer=waiting_reports,
    ),
    Route(
        method="POST",
        path="/v1/groups/ID/clear",
        takes=ClearGroup,
        gives=Done,
        about="free the id of a group whose collector is lost",
        answer=clear,
    ),
    Route(
        method="POST",
        path="/v1/jobs/status",
        takes=JobStatusReport,
        gives=JobStatusReply,
        about="take a host's report of its unfinished job copies",
        answer=take_status,
    ),
)
