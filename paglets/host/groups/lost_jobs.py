"""The detector of lost copies of jobs, for the collectors on this host. `resubmission` replaces the copies.

A copy that no recent status report contained is searched for in the mesh. It is lost if every host where it may be
has been unreachable from this host for `host_lost_after`, or has answered several times that it lacks the copy
(see `groups.losses`). If a host has been unreachable for a shorter time, the search is repeated, at the latest after
the remaining time.

The detector keeps its state in memory only. So when the host starts or a collector arrives, the copies of its jobs
count as just seen, and the wait for their inputs restarts.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush

from paglets.api.groups import JobCopy
from paglets.api.paglets import Located, ResidenceRow
from paglets.core.refs import HostRef
from paglets.groups import copies, losses
from paglets.groups.keys import collector_id
from paglets.groups.losses import CopyLocation, PossibleHost
from paglets.groups.records import Sighting
from paglets.groups.rows import DESCRIPTIONS, UNREADABLE, CollectorRows
from paglets.host.groups.resubmission import NO_LOOKS, Lost, Resubmission, WatchedKey, rows_of
from paglets.host.groups.status_reports import full_report_seconds
from paglets.host.network.locator import PagletLocator
from paglets.host.records.in_host_storage import InHostStorage
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import paglets
from paglets.store.db import Tx
from paglets.store.events import record_event_once
from paglets.store.queue import QueuedJob

LOOK_SECONDS = 2.0
REPORTS_MISSED = 3
"""The number of complete status reports without a copy after which the copy is located. They take 30 s, or longer if
there are over 10,000 copies. The setting `host_lost_after` applies instead if it is shorter."""

LEAST_WAIT_SECONDS = 1.0
"""The minimum number of seconds before a copy whose hosts are unreachable is located again."""

ABSENT_SECONDS = 30.0
"""Seconds after which a copy is located again if a host answered that it lacks the copy."""

ANSWERED_SECONDS = 10.0
"""Seconds after which the next search in the mesh starts even if the previous one has no answer."""

KEYS_A_LOOK = 200
KEYS_A_PAGE = 500
REPORTS_A_TICK = 4
"""The maximum number of status reports that one tick processes. A report has at most 500 copies, so this takes a few
milliseconds."""

Key = tuple[str, str]
"""A collector's agent id and a job key."""


@dataclass(slots=True, kw_only=True)
class _WatchedCollector:
    """The watched keys of one collector. The key whose copy was not seen for the longest time is first.

    `after` is the last key that was read, or None if all keys have been read.
    """

    keys: OrderedDict[str, WatchedKey] = field(default_factory=OrderedDict)
    after: str | None = ""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _DueLocate:
    """A copy that was searched for at `asked_at`. It is searched for again at `at`, unless it is seen before."""

    at: float
    asked_at: float
    collector: str
    job_key: str


class LostJobDetector:
    """The runner part `lost_jobs`, which finds lost copies of jobs and passes them to `Resubmission`."""

    name = "lost_jobs"

    def __init__(
        self, services: HostServices, gossip: Gossiper, paglet_locator: PagletLocator, resubmission: Resubmission
    ) -> None:
        self._services = services
        self._gossip = gossip
        self._locator = paglet_locator
        self._resubmission = resubmission
        self._lost_after = services.settings.host_lost_after_seconds
        self._reports: deque[Sequence[JobCopy]] = deque()
        self._collectors: dict[str, _WatchedCollector] = {}
        self._set_quiet()
        self._due_locates: list[_DueLocate] = []
        self._gap_ended_at = gossip.last_gap().ended_at
        self._asking_until: float | None = None

    def reported(self, copies_reported: Sequence[JobCopy]) -> None:
        """Queue reported copies of jobs for the collectors on this host. May be called from any thread."""
        if copies_reported and self._collectors:
            self._reports.append(copies_reported)

    def older_goes_on(self, job: QueuedJob) -> bool:
        """Return True if an older copy of the job was reported recently to a collector on this host."""
        if job.group_id is None or job.generation == 1:
            return False
        watched = self._keys(collector_id(job.group_id)).get(job.job_key)
        return watched is not None and self._older_was_reported(watched)

    def _older_was_reported(self, watched: WatchedKey) -> bool:
        return watched.older_at is not None and self._services.clock.monotonic() < watched.older_at + self._reported_in

    def tick(self, now: float) -> float | None:
        more = self._follow_collectors(now) or self._take_reports(now)
        self._set_quiet()
        gap_ended_at = self._gossip.last_gap().ended_at
        if gap_ended_at != self._gap_ended_at:
            # This host was suspended, so old contact times do not show that other hosts are lost.
            self._gap_ended_at = gap_ended_at
            self._restart_waits(now)
        elif not more and not self._is_asking(now):
            more = self._look(now)
        if not self._collectors:
            return None
        return now if more else self._look_at(now)

    def _set_quiet(self) -> None:
        """Set the time in which each copy should be reported, and the time after which it is located.

        One host may have all watched copies. With over 30,000, a complete report takes longer than 30 s. If copies were
        located earlier, each one would be located between two reports.
        """
        watched = sum(len(collector.keys) for collector in self._collectors.values())
        self._reported_in = REPORTS_MISSED * full_report_seconds(watched)
        self._quiet = min(self._reported_in, self._lost_after)

    def _look_at(self, now: float) -> float:
        """Return the monotonic time of the next tick."""
        if self._due_locates and not self._is_asking(now):
            return max(now, min(now + LOOK_SECONDS, self._due_locates[0].at))
        return now + LOOK_SECONDS

    # Methods that watch copies.

    def _follow_collectors(self, now: float) -> bool:
        """Watch one more page of the keys of the collectors on this host. Return False if all are watched."""
        here = self._services.store.read(paglets.unfinished_collectors)
        self._collectors = {agent_id: self._collectors.get(agent_id) or _WatchedCollector() for agent_id in here}
        for agent_id, collector in self._collectors.items():
            if collector.after is not None:
                page = self._services.store.read(partial(_page, agent_id, collector.after))
                for key, generation in page:
                    collector.keys[key] = WatchedKey(seen_at=now, generation=generation)
                collector.after = page[-1][0] if len(page) == KEYS_A_PAGE else None
                return True
        return False

    def _take_reports(self, now: float) -> bool:
        """Process queued status reports. Return True if there are more."""
        for _ in range(min(REPORTS_A_TICK, len(self._reports))):
            reported = self._reports.popleft()
            ids = {group_id: collector_id(group_id) for group_id in dict.fromkeys(copy.group_id for copy in reported)}
            for copy in reported:
                # A copy in transit counts as not seen, because its target may be lost.
                if copy.residence != "leaving":
                    self._seen(ids[copy.group_id], copy.job_key, copy.generation, now)
        return bool(self._reports)

    def _seen(self, collector: str, key: str, generation: int, now: float) -> None:
        keys = self._keys(collector)
        watched = keys.get(key)
        if watched is not None and watched.seen(generation, now):
            keys.move_to_end(key)

    def _keys(self, collector: str) -> OrderedDict[str, WatchedKey]:
        known_here = self._collectors.get(collector)
        return OrderedDict() if known_here is None else known_here.keys

    def _restart_waits(self, now: float) -> None:
        self._due_locates.clear()
        for collector in self._collectors.values():
            for watched in collector.keys.values():
                watched.seen_at, watched.looks = now, NO_LOOKS

    # Methods that locate copies.

    def _is_asking(self, now: float) -> bool:
        waits = self._asking_until is not None and now < self._asking_until
        return waits or self._resubmission.at_work

    def _look(self, now: float) -> bool:
        """Locate the copies that were not seen recently.

        Return True if the next search should start at once, because no due key has a copy to locate.
        """
        keys = self._due_keys(now)
        asked = self._newest_copies(keys)
        if asked:
            self._asking_until = now + ANSWERED_SECONDS
            ids = [copy.agent_id for copy in asked.values()]
            self._locator.locate(ids, lambda located: self._located(asked, located))
        return bool(keys) and not asked

    def _due_keys(self, now: float) -> list[Key]:
        """Return the keys whose copies must be located, and restart their timers."""
        due = self._due_again_keys(now) or self._quiet_keys(now)
        for agent_id, key in due:
            keys = self._keys(agent_id)
            keys[key].seen_at = now
            keys.move_to_end(key)
        return due

    def _due_again_keys(self, now: float) -> list[Key]:
        """Return up to KEYS_A_LOOK keys whose repeated search (`_locate_again`) is due.

        A key is left out if its copy was seen since the previous search.
        """
        ripe: list[Key] = []
        while self._due_locates and self._due_locates[0].at <= now and len(ripe) < KEYS_A_LOOK:
            each = heappop(self._due_locates)
            watched = self._keys(each.collector).get(each.job_key)
            if watched is not None and watched.seen_at == each.asked_at:
                ripe.append((each.collector, each.job_key))
        return ripe

    def _quiet_keys(self, now: float) -> list[Key]:
        """Return up to KEYS_A_LOOK keys whose copies were not seen recently."""
        quiet: list[Key] = []
        for agent_id, collector in self._collectors.items():
            for key, watched in collector.keys.items():
                if watched.seen_at > now - self._quiet or len(quiet) == KEYS_A_LOOK:
                    break
                quiet.append((agent_id, key))
        return quiet

    def _newest_copies(self, keys: list[Key]) -> dict[Key, Sighting]:
        """Return the newest copies of these keys. Stop watching keys without one, and unreadable keys."""
        wall = self._services.clock.wall()
        bad: dict[Key, str] = {}

        def look(tx: Tx) -> dict[Key, Sighting]:
            found: dict[Key, Sighting] = {}
            for collector, key in keys:
                try:
                    copy = _newest(rows_of(tx, collector), key, wall)
                except UNREADABLE as error:
                    bad[collector, key] = repr(error)
                else:
                    if copy is not None:
                        found[collector, key] = copy
                        self._keys(collector)[key].generation = copy.generation
            return found

        found = self._services.store.read(look)
        for collector, key in keys:
            if (collector, key) not in found:
                self._keys(collector).pop(key, None)
        if bad:
            self._services.runner.change(lambda tx: _note_bad(tx, bad, wall))
        return found

    # Methods that decide which copies are lost.

    def _located(self, asked: dict[Key, Sighting], located: Located) -> None:
        self._asking_until = None
        self._services.runner.wake(self.name)
        now, answered = self._services.clock.monotonic(), frozenset(located.answered)
        rows = {row.agent_id: row for row in located.rows}
        lost: list[Lost] = []
        for (collector, key), copy in asked.items():
            found = _found(rows.get(copy.agent_id))
            watched = self._keys(collector).get(key)
            if losses.is_here(found):
                self._seen(collector, key, copy.generation, now)
            elif watched is not None and watched.generation == copy.generation:
                places = self._places(watched, losses.possible_hosts(copy, found), answered)
                lost_in = losses.seconds_until_lost(found, places, self._lost_after)
                if lost_in > 0:
                    again_in = min(lost_in, ABSENT_SECONDS) if watched.looks else lost_in
                    self._locate_again(collector, key, watched, now + max(again_in, LEAST_WAIT_SECONDS))
                else:
                    lost.append(self._lost(collector, key, watched, copy, places))
        if lost and not self._resubmission.at_work:
            self._resubmission.resubmit(lost)

    def _locate_again(self, collector: str, key: str, watched: WatchedKey, at: float) -> None:
        """Locate the copy again at the time `at`, unless its next regular search is earlier."""
        if at < watched.seen_at + self._quiet:
            heappush(self._due_locates, _DueLocate(at=at, asked_at=watched.seen_at, collector=collector, job_key=key))

    def _places(self, watched: WatchedKey, hosts: Sequence[HostRef], answered: frozenset[str]) -> list[PossibleHost]:
        """Return the hosts where the copy may be. For each that answered, count one more answer that it lacks the copy.

        The count of a host that did not answer restarts at 0.
        """
        ids = [host.store_id for host in hosts if host.store_id in answered]
        watched.looks = {store_id: watched.looks.get(store_id, 0) + 1 for store_id in ids}
        return [
            PossibleHost(
                host=host, seconds_since_seen=self._seconds_since_seen(host), looks=watched.looks.get(host.store_id, 0)
            )
            for host in hosts
        ]

    def _seconds_since_seen(self, host: HostRef) -> float:
        if host.store_id == self._services.own.store_id:
            return 0.0
        return (
            float("inf")
            if self._gossip.is_forgotten(host.store_id)
            else self._gossip.seconds_since_contact(host.store_id)
        )

    def _lost(
        self, collector: str, key: str, watched: WatchedKey, copy: Sighting, places: Sequence[PossibleHost]
    ) -> Lost:
        unreachable = [place.host for place in losses.unreachable(places, self._lost_after)]
        return Lost(
            collector=collector,
            job_key=key,
            watched=watched,
            copy=copy,
            why=losses.why_lost(places, self._lost_after),
            unreachable=tuple(host for host in unreachable if not self._gossip.is_forgotten(host.store_id)),
            older_goes_on=self._older_was_reported(watched),
        )


def _page(collector: str, after: str, tx: Tx) -> list[tuple[str, int]]:
    """Return a page of pending keys of the collector, and the newest generation of each."""
    rows = rows_of(tx, collector)
    page = InHostStorage(tx, collector).keys_from(DESCRIPTIONS, DESCRIPTIONS + after, KEYS_A_PAGE)
    keys = [key.removeprefix(DESCRIPTIONS) for key in page]
    return [(key, rows.generation(key)) for key in keys]


def _newest(rows: CollectorRows, key: str, now: float) -> Sighting | None:
    """Return the newest copy of a key, or None if the key has ended or cannot be resubmitted."""
    job = rows.job(key)
    if job is None or job.ended:
        return None
    if job.sighting is not None:
        return job.sighting
    description = rows.description(key)
    return None if description is None else copies.newest_copy(job, description, now)


def _note_bad(tx: Tx, bad: dict[Key, str], now: float) -> None:
    for (collector, key), error in bad.items():
        record_event_once(tx, now, "unreadable", f"{key} ({collector})", error)


def _found(row: ResidenceRow | None) -> CopyLocation | None:
    return None if row is None else CopyLocation(status=row.status, peer=row.peer)  # type: ignore[arg-type]
