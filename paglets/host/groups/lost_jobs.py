"""Finds the copies of jobs that are lost, for the collectors that live here; `host.generations` begins them anew.

A copy that no census told of for a while is asked for in the whole mesh. It is lost when every host where it
may be was mute to this one for `host_lost_after`, or says, again and again, that it has no such copy (`groups.losses`).
One whose hosts are mute, but not for long enough, is asked for again at the moment when they will have been.

What is remembered is in memory: after a start, or when a collector comes, all its copies have just been heard of, and
the wait for inputs begins anew.
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
from paglets.groups.rows import TEMPLATES, UNREADABLE, CollectorRows
from paglets.host.groups.resubmission import NO_LOOKS, Lost, Resubmission, Watched, rows_of
from paglets.host.network.locator import PagletLocator
from paglets.host.records.in_host import InHostStorage
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import paglets
from paglets.store.db import Tx
from paglets.store.events import record_event_once
from paglets.store.queue import QueuedJob

LOOK_SECONDS = 2.0
QUIET_SECONDS = 30.0
"""Three whole censuses: a copy of which nothing was heard for so long is asked for, or for `host_lost_after` where that
is less."""

MUTE_PRECISION_SECONDS = 1.0
"""How long a host has been mute is measured anew so often."""

ANSWERED_SECONDS = 10.0
"""The mesh is asked again when a question has had no answer for so long."""

KEYS_A_LOOK = 200
KEYS_A_PAGE = 500
TOLD_A_TICK = 4
"""Censuses of at most 500 copies. Each of the three is a few milliseconds; where there is more, it goes on at once."""

Key = tuple[str, str]
"""A collector's agent id and a job key."""


@dataclass(slots=True, kw_only=True)
class _Collector:
    """`keys`: those that had not ended when last looked at, the one that was heard of longest ago first. `after`: the
    last key that was read, None where all are."""

    keys: OrderedDict[str, Watched] = field(default_factory=OrderedDict)
    after: str | None = ""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class _Ripening:
    """A copy that was asked for at `asked_at`, and will be lost at `at` if nothing is heard until then."""

    at: float
    asked_at: float
    collector: str
    job_key: str


class LostJobDetector:
    """Part `lost_jobs`."""

    name = "lost_jobs"

    def __init__(
        self, services: HostServices, gossip: Gossiper, paglet_locator: PagletLocator, resubmission: Resubmission
    ) -> None:
        self._services = services
        self._gossip = gossip
        self._locator = paglet_locator
        self._resubmission = resubmission
        self._lost_after = services.settings.host_lost_after_seconds
        self._quiet = min(QUIET_SECONDS, self._lost_after)
        self._told: deque[Sequence[JobCopy]] = deque()
        self._collectors: dict[str, _Collector] = {}
        self._ripening: list[_Ripening] = []
        self._gap_ended_at = gossip.last_gap().ended_at
        self._asking_until: float | None = None

    def told(self, copies_told: Sequence[JobCopy]) -> None:
        """A census told that these are where it says, and their collectors are here; any thread."""
        if copies_told and self._collectors:
            self._told.append(copies_told)

    def older_goes_on(self, job: QueuedJob) -> bool:
        """Whether an older copy of that job, whose collector is here, was told of lately."""
        if job.group_id is None or job.generation == 1:
            return False
        watched = self._keys(collector_id(job.group_id)).get(job.job_key)
        return watched is not None and self._older_was_told_of(watched)

    def _older_was_told_of(self, watched: Watched) -> bool:
        return watched.older_at is not None and self._services.clock.monotonic() < watched.older_at + QUIET_SECONDS

    def tick(self, now: float) -> float | None:
        more = self._follow_collectors(now) or self._hear(now)
        gap_ended_at = self._gossip.last_gap().ended_at
        if gap_ended_at != self._gap_ended_at:  # this host did nothing for a while: nothing is judged now
            self._gap_ended_at = gap_ended_at
            self._begin_waits_anew(now)
        elif not more and not self._is_asking(now):
            more = self._look(now)
        if not self._collectors:
            return None
        return now if more else self._look_at(now)

    def _look_at(self, now: float) -> float:
        """When to look again."""
        if self._ripening and not self._is_asking(now):
            return max(now, min(now + LOOK_SECONDS, self._ripening[0].at))
        return now + LOOK_SECONDS

    # Which copies to watch, and when they were last heard of.

    def _follow_collectors(self, now: float) -> bool:
        """Watch the keys of collectors that are here, a page of new ones at a time; True where there are more."""
        here = self._services.store.read(paglets.unfinished_collectors)
        self._collectors = {agent_id: self._collectors.get(agent_id) or _Collector() for agent_id in here}
        for agent_id, collector in self._collectors.items():
            if collector.after is not None:
                page = self._services.store.read(partial(_page, agent_id, collector.after))
                for key, generation in page:
                    collector.keys[key] = Watched(heard_at=now, generation=generation)
                collector.after = page[-1][0] if len(page) == KEYS_A_PAGE else None
                return True
        return False

    def _hear(self, now: float) -> bool:
        """What censuses told; True where there are more."""
        for _ in range(min(TOLD_A_TICK, len(self._told))):
            told = self._told.popleft()
            ids = {group_id: collector_id(group_id) for group_id in dict.fromkeys(copy.group_id for copy in told)}
            for copy in told:
                if copy.residence != "leaving":  # where it goes to may be lost
                    self._heard(ids[copy.group_id], copy.job_key, copy.generation, now)
        return bool(self._told)

    def _heard(self, collector: str, key: str, generation: int, now: float) -> None:
        keys = self._keys(collector)
        watched = keys.get(key)
        if watched is not None and watched.heard(generation, now):
            keys.move_to_end(key)

    def _keys(self, collector: str) -> OrderedDict[str, Watched]:
        known_here = self._collectors.get(collector)
        return OrderedDict() if known_here is None else known_here.keys

    def _begin_waits_anew(self, now: float) -> None:
        self._ripening.clear()
        for collector in self._collectors.values():
            for watched in collector.keys.values():
                watched.heard_at, watched.looks = now, NO_LOOKS

    # Asking.

    def _is_asking(self, now: float) -> bool:
        waits = self._asking_until is not None and now < self._asking_until
        return waits or self._resubmission.at_work

    def _look(self, now: float) -> bool:
        """Ask where the copies are of which nothing was heard for long; True where there may be more to ask for at
        once, because none of these keys is left to ask for."""
        keys = self._due_keys(now)
        asked = self._newest_copies(keys)
        if asked:
            self._asking_until = now + ANSWERED_SECONDS
            ids = [copy.agent_id for copy in asked.values()]
            self._locator.locate(ids, lambda located: self._located(asked, located))
        return bool(keys) and not asked

    def _due_keys(self, now: float) -> list[Key]:
        """Those to ask for now, as having been asked for."""
        due = self._ripe_keys(now) or self._quiet_keys(now)
        for agent_id, key in due:
            keys = self._keys(agent_id)
            keys[key].heard_at = now
            keys.move_to_end(key)
        return due

    def _ripe_keys(self, now: float) -> list[Key]:
        """Those whose hosts will by now have been mute for long enough, and of which nothing was heard meanwhile."""
        ripe: list[Key] = []
        while self._ripening and self._ripening[0].at <= now and len(ripe) < KEYS_A_LOOK:
            each = heappop(self._ripening)
            watched = self._keys(each.collector).get(each.job_key)
            if watched is not None and watched.heard_at == each.asked_at:
                ripe.append((each.collector, each.job_key))
        return ripe

    def _quiet_keys(self, now: float) -> list[Key]:
        """Those of which nothing was heard for long."""
        quiet: list[Key] = []
        for agent_id, collector in self._collectors.items():
            for key, watched in collector.keys.items():
                if watched.heard_at > now - self._quiet or len(quiet) == KEYS_A_LOOK:
                    break
                quiet.append((agent_id, key))
        return quiet

    def _newest_copies(self, keys: list[Key]) -> dict[Key, Sighting]:
        """Those that have ended, or cannot be read, are not watched any more."""
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

    # Judging.

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
                self._heard(collector, key, copy.generation, now)
            elif watched is not None and watched.generation == copy.generation:
                places = self._places(watched, losses.possible_hosts(copy, found), answered)
                lost_in = losses.seconds_until_lost(found, places, self._lost_after)
                if lost_in > 0:
                    self._ripen(collector, key, watched, now + max(lost_in, MUTE_PRECISION_SECONDS))
                else:
                    lost.append(self._lost(collector, key, watched, copy, places))
        if lost and not self._resubmission.at_work:
            self._resubmission.resubmit(lost)

    def _ripen(self, collector: str, key: str, watched: Watched, at: float) -> None:
        """Ask again at that second, where that is before its next turn."""
        if at < watched.heard_at + self._quiet:
            heappush(self._ripening, _Ripening(at=at, asked_at=watched.heard_at, collector=collector, job_key=key))

    def _places(self, watched: Watched, hosts: Sequence[HostRef], answered: frozenset[str]) -> list[PossibleHost]:
        """Where the copy may be. A host that gave no answer is asked from the beginning."""
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

    def _lost(self, collector: str, key: str, watched: Watched, copy: Sighting, places: Sequence[PossibleHost]) -> Lost:
        silent = [place.host for place in losses.unreachable(places, self._lost_after)]
        return Lost(
            collector=collector,
            job_key=key,
            watched=watched,
            copy=copy,
            why=losses.why_lost(places, self._lost_after),
            silent=tuple(host for host in silent if not self._gossip.is_forgotten(host.store_id)),
            older_goes_on=self._older_was_told_of(watched),
        )


def _page(collector: str, after: str, tx: Tx) -> list[tuple[str, int]]:
    """A page of keys that have not ended, and the newest generation of each."""
    rows = rows_of(tx, collector)
    page = InHostStorage(tx, collector).keys_from(TEMPLATES, TEMPLATES + after, KEYS_A_PAGE)
    keys = [key.removeprefix(TEMPLATES) for key in page]
    return [(key, rows.generation(key)) for key in keys]


def _newest(rows: CollectorRows, key: str, now: float) -> Sighting | None:
    """The newest copy of a key; None where that has ended, or nothing further can be made of it."""
    job = rows.job(key)
    if job is None or job.ended:
        return None
    if job.sighting is not None:
        return job.sighting
    template = rows.template(key)
    return None if template is None else copies.newest_copy(job, template, now)


def _note_bad(tx: Tx, bad: dict[Key, str], now: float) -> None:
    for (collector, key), error in bad.items():
        record_event_once(tx, now, "unreadable", f"{key} ({collector})", error)


def _found(row: ResidenceRow | None) -> CopyLocation | None:
    return None if row is None else CopyLocation(status=row.status, peer=row.peer)  # type: ignore[arg-type]
