"""Status reconciliation: report unfinished copies of jobs to their collectors, and end unwanted copies.

Changes are reported at most once a second. All copies are reported every 10 s, or less often if there are over 10,000.
So a collector knows where its jobs are and why they wait, and a cancelled job ends even if a message was lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from paglets.api.groups import JobCopy, JobStatusReply, JobStatusReport, UnwantedCopy
from paglets.api.paglets import Located
from paglets.core.refs import HostRef, ProxyRef
from paglets.groups.keys import collector_id
from paglets.host.blobs.pusher import BlobPusher
from paglets.host.groups.lost_jobs import LostJobDetector
from paglets.host.groups.sightings import SightingRecorder
from paglets.host.groups.status_reports import ALL_SECONDS, CHANGES_SECONDS, COPIES_A_TURN, StatusReports
from paglets.host.network.locator import PagletLocator
from paglets.host.records import outcomes
from paglets.host.runtime.delivery import DeliveryLanes
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import copies as stored_copies
from paglets.store import posts, rollbacks
from paglets.store.copies import Copy, copies_of, page
from paglets.store.db import Tx

AWAITED_SECONDS = 10.0
SEEK_SECONDS = 60.0
"""Seconds between two searches for collectors whose last known host is offline. Such a collector may have moved before
the host went offline."""

MAX_TOUCHED = 1_000
"""The number of queued changed paglets at which this part is woken before its next regular turn."""


@dataclass(slots=True, kw_only=True)
class _FullReport:
    """A complete report in progress.

    `reported` holds the copies reported so far, by paglet id. The report continues after the paglet id `after`. `seeks`
    is True if the report also searches for collectors.
    """

    seeks: bool
    after: str = ""
    reported: dict[str, JobCopy] = field(default_factory=dict)


class StatusReconciliation:
    """The runner part `reconciliation`. `lanes` is the part that delivers its reports."""

    name = "reconciliation"

    def __init__(
        self,
        services: HostServices,
        gossip: Gossiper,
        paglet_locator: PagletLocator,
        blob_pusher: BlobPusher,
        lost_jobs: LostJobDetector,
    ) -> None:
        self._services = services
        self._lost_jobs = lost_jobs
        self._gossip = gossip
        self._locator = paglet_locator
        self._reports = StatusReports(services, self._take_here, self._answered, self._not_reported)
        self.lanes = DeliveryLanes(services, gossip, blob_pusher, self._reports)
        self._recorder = SightingRecorder()
        self._touched: deque[str] = deque()
        self._reported: dict[str, JobCopy] = {}
        self._full: _FullReport | None = None
        self._all_at = 0.0
        self._next_at = 0.0
        self._seek_at = 0.0
        self._gap_ended_at: float | None = None

    def awaited(self) -> bool:
        """Return True if jobs must not start before their collectors have answered.

        This is so after a suspension so long that collectors may have resubmitted the jobs of this host. The result is
        False again after AWAITED_SECONDS, even without an answer.
        """
        gap = self._gossip.last_gap()
        now = self._services.clock.monotonic()
        if gap.seconds < self._services.settings.host_lost_after_seconds or now >= gap.ended_at + AWAITED_SECONDS:
            return False
        return self._gap_ended_at != gap.ended_at or self._reports.awaits_answers

    def touched(self, agent_ids: tuple[str, ...]) -> None:
        """Queue paglets that a COMMIT changed. May be called from any thread."""
        self._touched.extend(agent_ids)
        if len(self._touched) >= MAX_TOUCHED:
            self._services.runner.wake(self.name)

    def flush(self) -> None:
        """Report all copies as soon as possible. May be called from any thread."""
        self._all_at = 0.0
        self._services.runner.wake(self.name)

    def take(self, reported: JobStatusReport) -> JobStatusReply:
        """Process the status report of another host. May be called from any thread."""
        reply = self._services.store.write(lambda tx: self._recorder.receive(tx, reported, self._services.clock.wall()))
        self._lost_jobs.reported(_of_groups_here(reported, reply))
        return reply

    def tick(self, now: float) -> float | None:
        if now < self._next_at:
            return self._next_at
        self._next_at = now + CHANGES_SECONDS
        changed = {self._touched.popleft(): None for _ in range(len(self._touched))}
        gap_ended_at = self._gossip.last_gap().ended_at
        after_gap = gap_ended_at != self._gap_ended_at
        if after_gap:
            self._gap_ended_at = gap_ended_at
            self._reports.clear()
            self.lanes.restart()
            self._services.runner.wake("scheduler")
        if after_gap or (self._full is None and now >= self._all_at):
            self._begin_full(now)
        reported = self._services.store.read(lambda tx: copies_of(tx, changed))
        news = {copy.agent_id: (at, copy) for at, copy in reported if self._reported.get(copy.agent_id) != copy}
        if self._full is not None:
            news |= {copy.agent_id: (at, copy) for at, copy in self._next_page(self._full, to_the_end=after_gap)}
        for collector, copy in news.values():
            self._reports.put(collector.host, copy)
        self._note({copy.agent_id: copy for _, copy in news.values()})
        if after_gap:
            self._reports.await_answers()
        if self._full is not None:
            return self._next_at
        return max(self._all_at, self._next_at) if self._reported else None

    def _note(self, reported: dict[str, JobCopy]) -> None:
        self._reported |= reported
        if self._full is not None:
            self._full.reported |= reported

    def _begin_full(self, now: float) -> None:
        self._all_at = now + ALL_SECONDS
        self._full = _FullReport(seeks=now >= self._seek_at)
        if self._full.seeks:
            self._seek_at = now + SEEK_SECONDS

    def _next_page(self, full: _FullReport, *, to_the_end: bool) -> list[Copy]:
        """Return the next page of a complete report, or all remaining copies if `to_the_end`.

        The last page ends the report.
        """
        most = -1 if to_the_end else COPIES_A_TURN
        found, full.after = self._services.store.read(lambda tx: page(tx, full.after, most))
        if full.seeks:
            online = {self._services.own.store_id, *(mesh_host.store_id for mesh_host in self._gossip.online())}
            self._seek({copy.group_id for collector, copy in found if collector.host.store_id not in online})
        full.reported |= {copy.agent_id: copy for _, copy in found}
        if not full.after:
            self._reported, self._full = full.reported, None
        return found

    # Methods that process answers.

    def _take_here(self, tx: Tx, reported: JobStatusReport) -> JobStatusReply:
        """Process a report of this host to itself."""
        reply = self._recorder.receive(tx, reported, self._services.clock.wall())
        self._lost_jobs.reported(_of_groups_here(reported, reply))
        return reply

    def _answered(self, tx: Tx, reply: JobStatusReply) -> None:
        if reply.unwanted:
            end_unwanted(tx, reply.unwanted, self._services.own, self._services.clock.wall())
        self._seek(reply.elsewhere)

    def _not_reported(self, agent_ids: Iterable[str]) -> None:
        for agent_id in agent_ids:
            self._reported.pop(agent_id, None)
            self._touched.append(agent_id)
        self._services.runner.wake(self.name)

    def _seek(self, groups: Collection[str]) -> None:
        """Locate the collectors of these groups, and store their hosts."""
        ids = {collector_id(group): group for group in groups}
        if ids:
            self._locator.locate(ids, lambda located: self._found(ids, located))

    def _found(self, groups: dict[str, str], located: Located) -> None:
        self._services.runner.change(
            lambda tx: _point_to(tx, groups, located, self._services.own, self._services.clock.wall())
        )


def _of_groups_here(reported: JobStatusReport, reply: JobStatusReply) -> tuple[JobCopy, ...]:
    """Return the reported copies whose collector is on the host that sent the reply."""
    return tuple(copy for copy in reported.copies if copy.group_id not in reply.elsewhere)


def _point_to(tx: Tx, groups: dict[str, str], located: Located, own: HostRef, now: float) -> None:
    """Store the located hosts of collectors in the copies on this host.

    Also end the copies of jobs whose collector was disposed of.
    """
    for row in located.rows:
        if row.status == "disposed" and row.agent_id in groups:
            ids = stored_copies.all_ids(tx, groups[row.agent_id])
            end_unwanted(tx, tuple(UnwantedCopy(agent_id=each, cause="recorded") for each in ids), own, now)
        if row.status == "here" and row.peer is not None and row.agent_id in groups:
            collector = ProxyRef(agent_id=row.agent_id, host=row.peer)
            stored_copies.set_collector(tx, groups[row.agent_id], collector)
            posts.redirect(tx, row.agent_id, row.peer)
    tx.wake("reconciliation")


def end_unwanted(tx: Tx, unwanted: tuple[UnwantedCopy, ...], own: HostRef, now: float) -> None:
    """End unwanted copies: waiting ones at once, running ones when their processes have been ended.

    A copy in transit ends once its target answers that it lacks the copy, or is unreachable (see `rollback`).
    """
    for copy in unwanted:
        if rollbacks.request(tx, copy.agent_id, rollbacks.UNWANTED):
            continue
        if not outcomes.fail_waiting(tx, copy.agent_id, outcomes.CANCELLED, copy.cause, own, now, reported=True):
            stored_copies.mark_unwanted(tx, copy.agent_id, copy.cause)
    tx.wake("runs", "cleanup")
