"""Tells each collector's host which unfinished copies of its jobs are here, and ends those unwanted.

What changed is told at most once a second, everything every 10 s, or as long as it takes page by page; so a collector
knows where its jobs are and why they wait, and a cancelled job ends even where a message got lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial

from paglets.api.groups import JobCopy, JobStatusReply, UnwantedCopy
from paglets.api.groups import JobStatusReport as Told
from paglets.api.paglets import Located
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef, ProxyRef
from paglets.groups import copies
from paglets.groups.keys import collector_id
from paglets.groups.records import Sighting
from paglets.groups.rows import UNREADABLE
from paglets.host.groups.lost_jobs import LostJobDetector
from paglets.host.groups.resubmission import rows_of
from paglets.host.network.locator import PagletLocator
from paglets.host.records import outcomes
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import copies as stored_copies
from paglets.store import paglets, posts, residence, rollbacks
from paglets.store.copies import Copy, copies_of, page
from paglets.store.db import Tx
from paglets.store.events import record_event_once
from paglets.wire.request import Request, Response, dump_json, parsed

CHANGES_SECONDS = 1.0
ALL_SECONDS = 10.0
ANSWER_SECONDS = 10.0
AWAITED_SECONDS = 10.0
SEEK_SECONDS = 60.0
"""Where a collector's host is not online, all others are asked so often whether that has moved on before."""

COPIES_A_TURN = 1_000
"""Copies that one turn of a whole census tells of. Up to 10,000 are told within `ALL_SECONDS`; with more the cost of a
second stays the same, and a whole census takes longer."""

MAX_COPIES = 500
"""Copies in one request, which the collector's host notes in one transaction; more go in the next ones."""

MAX_TOUCHED = 1_000
"""Most changes are of paglets that no census tells of, and wake nobody; so many are looked through all the same."""

Batch = tuple[HostRef, list[JobCopy]]


@dataclass(slots=True, kw_only=True)
class _Whole:
    """A whole census under way: `after` which id to go on, and what it `told`. `seeks`: look for collectors, too."""

    seeks: bool
    after: str = ""
    told: dict[str, JobCopy] = field(default_factory=dict)


class StatusReconciliation:
    """Part `reconciliation`."""

    name = "reconciliation"

    def __init__(
        self, services: HostServices, gossip: Gossiper, paglet_locator: PagletLocator, lost_jobs: LostJobDetector
    ) -> None:
        self._services = services
        self._lost_jobs = lost_jobs
        self._gossip = gossip
        self._locator = paglet_locator
        self._touched: deque[str] = deque()
        self._told: dict[str, JobCopy] = {}
        self._whole: _Whole | None = None
        self._all_at = 0.0
        self._next_at = 0.0
        self._seek_at = 0.0
        self._gap_ended_at: float | None = None
        self._unanswered: dict[str, int] = {}

    def awaited(self) -> bool:
        """Whether the jobs that wait here may be unwanted by now: this host did nothing for so long that their
        collectors may have begun them anew, and has not had their word since. After a while it goes on without."""
        gap = self._gossip.last_gap()
        now = self._services.clock.monotonic()
        if gap.seconds < self._services.settings.host_lost_after_seconds or now >= gap.ended_at + AWAITED_SECONDS:
            return False
        return self._gap_ended_at != gap.ended_at or bool(self._unanswered)

    def touched(self, agent_ids: tuple[str, ...]) -> None:
        """A COMMIT changed these paglets; any thread."""
        self._touched.extend(agent_ids)
        if len(self._touched) >= MAX_TOUCHED:
            self._services.runner.wake(self.name)

    def flush(self) -> None:
        """Tell everything again as soon as it may be; any thread."""
        self._all_at = 0.0
        self._services.runner.wake(self.name)

    def take(self, told: Told) -> JobStatusReply:
        """What another host told; any thread."""
        reply = self._services.store.write(lambda tx: receive(tx, told, self._services.clock.wall()))
        self._lost_jobs.told(_of_groups_here(told, reply))
        return reply

    def tick(self, now: float) -> float | None:
        if now < self._next_at:
            return self._next_at
        self._next_at = now + CHANGES_SECONDS
        changed = {self._touched.popleft(): None for _ in range(len(self._touched))}
        gap_ended_at = self._gossip.last_gap().ended_at
        after_gap = gap_ended_at != self._gap_ended_at
        if after_gap:
            self._gap_ended_at, self._unanswered = gap_ended_at, {}
            self._services.runner.wake("scheduler")
        if after_gap or (self._whole is None and now >= self._all_at):
            self._begin_whole(now)
        told = self._services.store.read(lambda tx: copies_of(tx, changed))
        news = {copy.agent_id: (at, copy) for at, copy in told if self._told.get(copy.agent_id) != copy}
        if self._whole is not None:
            news |= {copy.agent_id: (at, copy) for at, copy in self._next_page(self._whole, to_the_end=after_gap)}
        self._note(news.values())
        for host, batch in _by_host(news.values()):
            for start in range(0, len(batch), MAX_COPIES):
                if after_gap:
                    self._unanswered[host.store_id] = self._unanswered.get(host.store_id, 0) + 1
                self._tell(host, batch[start : start + MAX_COPIES], gap_ended_at if after_gap else None)
        if self._whole is not None:
            return self._next_at
        return max(self._all_at, self._next_at) if self._told else None

    def _begin_whole(self, now: float) -> None:
        self._all_at = now + ALL_SECONDS
        self._whole = _Whole(seeks=now >= self._seek_at)
        if self._whole.seeks:
            self._seek_at = now + SEEK_SECONDS

    def _next_page(self, whole: _Whole, *, to_the_end: bool) -> list[Copy]:
        """Return the next copies of a whole census, or all that are left. With the last page it is over."""
        most = -1 if to_the_end else COPIES_A_TURN
        found, whole.after = self._services.store.read(lambda tx: page(tx, whole.after, most))
        if whole.seeks:
            online = {self._services.own.store_id, *(member.store_id for member in self._gossip.online())}
            self._seek({copy.group_id for collector, copy in found if collector.host.store_id not in online})
        whole.told |= {copy.agent_id: copy for _, copy in found}
        if not whole.after:
            self._told, self._whole = whole.told, None
        return found

    def _note(self, news: Iterable[Copy]) -> None:
        told = {copy.agent_id: copy for _, copy in news}
        self._told |= told
        if self._whole is not None:
            self._whole.told |= told

    def _tell(self, host: HostRef, copies: list[JobCopy], after_gap: float | None) -> None:
        told = Told(
            host=self._services.own,
            copies=tuple(copies),
            group_ids=tuple(dict.fromkeys(copy.group_id for copy in copies)),
        )
        if host.store_id == self._services.own.store_id:
            self._services.runner.change(
                lambda tx: receive(tx, told, self._services.clock.wall()), partial(self._noted, told, after_gap)
            )
            return
        request = Request(method="POST", target="/v1/jobs/status", body=dump_json(told), repeatable=True)
        parse = partial(self._parse, host.store_id, after_gap)
        self._services.transport.send(self._gossip.address(host), request, parse, timeout_seconds=ANSWER_SECONDS)

    def _noted(self, told: Told, after_gap: float | None, reply: JobStatusReply | BaseException) -> None:
        if isinstance(reply, BaseException):
            raise reply
        self._lost_jobs.told(_of_groups_here(told, reply))
        self._answered(self._services.own.store_id, reply, after_gap)

    def _parse(self, store_id: str, after_gap: float | None, result: Response | PagletsError) -> None:
        try:
            self._answered(store_id, parsed(result, JobStatusReply), after_gap)
        except PagletsError:
            # A collector's host that is away is told again with the next full census.
            return

    def _answered(self, store_id: str, reply: JobStatusReply, after_gap: float | None) -> None:
        """`after_gap`: the end of the gap after which this was asked for; None: a census like others."""
        if after_gap is not None and after_gap == self._gap_ended_at and store_id in self._unanswered:
            self._unanswered[store_id] -= 1
            if not self._unanswered[store_id]:
                del self._unanswered[store_id]
                self._services.runner.wake("scheduler")
        if reply.unwanted:
            self._services.runner.change(
                lambda tx: end_unwanted(tx, reply.unwanted, self._services.own, self._services.clock.wall())
            )
        self._seek(reply.elsewhere)

    def _seek(self, groups: Collection[str]) -> None:
        """Ask the mesh where the collectors of these groups are."""
        ids = {collector_id(group): group for group in groups}
        if ids:
            self._locator.locate(ids, lambda located: self._found(ids, located))

    def _found(self, groups: dict[str, str], located: Located) -> None:
        self._services.runner.change(
            lambda tx: _point_to(tx, groups, located, self._services.own, self._services.clock.wall())
        )


def _of_groups_here(told: Told, reply: JobStatusReply) -> tuple[JobCopy, ...]:
    """Those whose collector is on the host that gave that reply."""
    return tuple(copy for copy in told.copies if copy.group_id not in reply.elsewhere)


def _by_host(copies: Iterable[Copy]) -> list[Batch]:
    batches: dict[str, Batch] = {}
    for collector, copy in copies:
        batches.setdefault(collector.host.store_id, (collector.host, []))[1].append(copy)
    return list(batches.values())


def _point_to(tx: Tx, groups: dict[str, str], located: Located, own: HostRef, now: float) -> None:
    """Note where collectors live now, for the copies that are here and for those that are leaving.

    Of one that was disposed of nobody wants the copies any more.
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
    """The collector does not want these copies any more: waiting ones end at once, running ones are ended.

    One that is leaving ends when its target says that it has it not, or cannot be asked (`recall`).
    """
    for copy in unwanted:
        if rollbacks.request(tx, copy.agent_id, rollbacks.UNWANTED):
            continue
        if not outcomes.fail_waiting(tx, copy.agent_id, outcomes.CANCELLED, copy.cause, own, now, told=True):
            stored_copies.mark_unwanted(tx, copy.agent_id, copy.cause)
    tx.wake("runs", "cleanup")


def receive(tx: Tx, told: Told, now: float) -> JobStatusReply:
    """Note what a host told in the storage of the collectors here; gives what they no longer want."""
    unwanted: list[UnwantedCopy] = []
    elsewhere: list[str] = []
    by_group: dict[str, list[JobCopy]] = {group: [] for group in told.group_ids}
    for copy in told.copies:
        by_group.setdefault(copy.group_id, []).append(copy)
    for group_id, told_copies in by_group.items():
        agent_id = collector_id(group_id)
        row = residence.find(tx, agent_id)
        if row is None or row.status != "here":
            elsewhere.append(group_id)
            continue
        rows, first = rows_of(tx, agent_id), _first_generation(tx, agent_id)
        for copy in told_copies:
            try:
                cause = copies.record_sighting(rows, copy.job_key, _sighting(told.host, copy, now))
            except UNREADABLE as error:
                record_event_once(tx, now, "unreadable", f"{copy.job_key} ({agent_id})", repr(error))
                continue
            if cause is None and copy.generation < first:
                cause = "cancelled"
            if cause is not None:
                unwanted.append(UnwantedCopy(agent_id=copy.agent_id, cause=cause))
    return JobStatusReply(unwanted=tuple(unwanted), elsewhere=tuple(elsewhere))


def _first_generation(tx: Tx, agent_id: str) -> int:
    """Return the first generation that counts for that collector: older copies are of a group that had this id before.

    Its rows say so of each key that it has; this is for copies of other keys.
    """
    first = paglets.state_value(tx, agent_id, "first_generation")
    return first if isinstance(first, int) else 1


def _sighting(host: HostRef, copy: JobCopy, now: float) -> Sighting:
    return Sighting(
        agent_id=copy.agent_id,
        host=host,
        generation=copy.generation,
        attempt=copy.attempt,
        epoch=copy.epoch,
        residence=copy.residence,
        status=copy.status,
        reason=copy.reason,
        reason_text=copy.reason_text,
        never=copy.never,
        since=now,
        target=copy.target,
    )
