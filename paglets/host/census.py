"""Tells each collector's host which unfinished copies of its jobs are here, and ends those unwanted.

What changed is told at most once a second, everything every 10 s; so a collector knows where its jobs
are and why they wait, and a cancelled job ends even where a message got lost.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import lru_cache, partial

from paglets.api.groups import Census as Told
from paglets.api.groups import CensusReply, JobCopy, UnwantedCopy
from paglets.api.paglets import Located
from paglets.codec.text import dumps, loads
from paglets.core.errors import PagletsError
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.groups import copies
from paglets.groups.keys import collector_id
from paglets.groups.records import Sighting
from paglets.groups.rows import UNREADABLE
from paglets.host import outcomes
from paglets.host.generations import rows_of
from paglets.host.losses import Losses
from paglets.host.runner import note_once
from paglets.host.shell import Shell
from paglets.host.whereabouts import Whereabouts
from paglets.mesh.gossip import Gossip
from paglets.remote.exchange import Request, Response, dump_json, parsed
from paglets.store import handoffs, posts, queue, recalls, residence, views
from paglets.store.db import Tx

CHANGES_SECONDS = 1.0
ALL_SECONDS = 10.0
ANSWER_SECONDS = 10.0
AWAITED_SECONDS = 10.0
SEEK_SECONDS = 60.0
"""Where a collector's host is not online, all others are asked so often whether that has moved on before."""

MAX_COPIES = 500
"""Copies in one request, which the collector's host notes in one transaction; more go in the next ones."""

MAX_TOUCHED = 1_000
"""Most changes are of paglets that no census tells of, and wake nobody; so many are looked through all the same."""

Copy = tuple[ProxyRef, JobCopy]
"""The collector of a copy, and what is told of the copy."""

Batch = tuple[HostRef, list[JobCopy]]


class Census:
    """Part `census`."""

    name = "census"

    def __init__(self, shell: Shell, gossip: Gossip, whereabouts: Whereabouts, losses: Losses) -> None:
        self._shell = shell
        self._losses = losses
        self._gossip = gossip
        self._whereabouts = whereabouts
        self._touched: deque[str] = deque()
        self._told: dict[str, JobCopy] = {}
        self._all_at = 0.0
        self._next_at = 0.0
        self._seek_at = 0.0
        self._gap_ended_at: float | None = None
        self._unanswered: dict[str, int] = {}

    def awaited(self) -> bool:
        """Whether the jobs that wait here may be unwanted by now: this host did nothing for so long that their
        collectors may have begun them anew, and has not had their word since. After a while it goes on without."""
        gap = self._gossip.last_gap()
        now = self._shell.clock.monotonic()
        if gap.seconds < self._shell.settings.host_lost_after_seconds or now >= gap.ended_at + AWAITED_SECONDS:
            return False
        return self._gap_ended_at != gap.ended_at or bool(self._unanswered)

    def touched(self, agent_ids: tuple[str, ...]) -> None:
        """A COMMIT changed these paglets; any thread."""
        self._touched.extend(agent_ids)
        if len(self._touched) >= MAX_TOUCHED:
            self._shell.runner.wake(self.name)

    def hurry(self) -> None:
        """Tell everything again as soon as it may be; any thread."""
        self._all_at = 0.0
        self._shell.runner.wake(self.name)

    def take(self, told: Told) -> CensusReply:
        """What another host told; any thread."""
        reply = self._shell.store.write(lambda tx: receive(tx, told, self._shell.clock.wall()))
        self._losses.told(_of_groups_here(told, reply))
        return reply

    def tick(self, now: float) -> float | None:
        if now < self._next_at:
            return self._next_at
        self._next_at = now + CHANGES_SECONDS
        changed = {self._touched.popleft(): None for _ in range(len(self._touched))}
        gap_ended_at = self._gossip.last_gap().ended_at
        after_gap = gap_ended_at != self._gap_ended_at
        full = after_gap or now >= self._all_at
        if after_gap:
            self._gap_ended_at, self._unanswered = gap_ended_at, {}
            self._shell.runner.wake("scheduler")
        if full:
            self._all_at = now + ALL_SECONDS
        told = self._shell.store.read(lambda tx: _copies(tx, None if full else tuple(changed)))
        if full:
            self._told = {}
        if full and now >= self._seek_at:
            self._seek_at = now + SEEK_SECONDS
            online = {self._shell.own.store_id, *(member.store_id for member in self._gossip.online())}
            self._seek({copy.group_id for collector, copy in told if collector.host.store_id not in online})
        news = [(collector, copy) for collector, copy in told if self._told.get(copy.agent_id) != copy]
        self._told |= {copy.agent_id: copy for _, copy in news}
        for host, batch in _by_host(news):
            for start in range(0, len(batch), MAX_COPIES):
                if after_gap:
                    self._unanswered[host.store_id] = self._unanswered.get(host.store_id, 0) + 1
                self._tell(host, batch[start : start + MAX_COPIES], gap_ended_at if after_gap else None)
        return self._all_at if self._told else None

    def _tell(self, host: HostRef, copies: list[JobCopy], after_gap: float | None) -> None:
        told = Told(
            host=self._shell.own, copies=tuple(copies), group_ids=tuple(dict.fromkeys(copy.group_id for copy in copies))
        )
        if host.store_id == self._shell.own.store_id:
            self._shell.runner.change(
                lambda tx: receive(tx, told, self._shell.clock.wall()), partial(self._noted, told, after_gap)
            )
            return
        request = Request(method="POST", target="/v1/census", body=dump_json(told), repeatable=True)
        parse = partial(self._parse, host.store_id, after_gap)
        self._shell.transport.send(self._gossip.address(host), request, parse, timeout_seconds=ANSWER_SECONDS)

    def _noted(self, told: Told, after_gap: float | None, reply: CensusReply | BaseException) -> None:
        if isinstance(reply, BaseException):
            raise reply
        self._losses.told(_of_groups_here(told, reply))
        self._answered(self._shell.own.store_id, reply, after_gap)

    def _parse(self, store_id: str, after_gap: float | None, result: Response | PagletsError) -> None:
        try:
            self._answered(store_id, parsed(result, CensusReply), after_gap)
        except PagletsError:
            # A collector's host that is away is told again with the next full census.
            return

    def _answered(self, store_id: str, reply: CensusReply, after_gap: float | None) -> None:
        """`after_gap`: the end of the gap after which this was asked for; None: a census like others."""
        if after_gap is not None and after_gap == self._gap_ended_at and store_id in self._unanswered:
            self._unanswered[store_id] -= 1
            if not self._unanswered[store_id]:
                del self._unanswered[store_id]
                self._shell.runner.wake("scheduler")
        if reply.unwanted:
            self._shell.runner.change(
                lambda tx: end_unwanted(tx, reply.unwanted, self._shell.own, self._shell.clock.wall())
            )
        self._seek(reply.elsewhere)

    def _seek(self, groups: Collection[str]) -> None:
        """Ask the mesh where the collectors of these groups are."""
        ids = {collector_id(group): group for group in groups}
        if ids:
            self._whereabouts.locate(ids, lambda located: self._found(ids, located))

    def _found(self, groups: dict[str, str], located: Located) -> None:
        self._shell.runner.change(lambda tx: _point_to(tx, groups, located, self._shell.own, self._shell.clock.wall()))


def _of_groups_here(told: Told, reply: CensusReply) -> tuple[JobCopy, ...]:
    """Those whose collector is on the host that gave that reply."""
    return tuple(copy for copy in told.copies if copy.group_id not in reply.elsewhere)


def _by_host(copies: Iterable[Copy]) -> list[Batch]:
    batches: dict[str, Batch] = {}
    for collector, copy in copies:
        batches.setdefault(collector.host.store_id, (collector.host, []))[1].append(copy)
    return list(batches.values())


def _copies(tx: Tx, agent_ids: tuple[str, ...] | None) -> list[Copy]:
    """Unfinished copies of group jobs here or leaving: those of `agent_ids`, or all."""
    if agent_ids is None:
        return [*_here(tx, None), *_unreported(tx, None), *_leaving(tx, None)]
    found: list[Copy] = []
    for agent_id in agent_ids:
        found += [*_here(tx, agent_id), *_unreported(tx, agent_id), *_leaving(tx, agent_id)]
    return found


_COPIES = (
    "SELECT r.agent_id, r.group_id, r.job_key, r.collector, r.generation, r.attempt, r.status, r.reason, r.reason_text,"
    " r.never, s.epoch"
)
"""Not the states, of which there may be gigabytes: all copies are read every ten seconds."""


def _here(tx: Tx, agent_id: str | None) -> list[Copy]:
    rows = tx.all(
        f"{_COPIES} FROM requests r JOIN residence s USING (agent_id)"
        " WHERE r.collector IS NOT NULL AND r.status IN ('PLACING', 'WAITING_FOR_SLOT', 'RUNNING')"
        f" AND NOT EXISTS (SELECT 1 FROM job_states j WHERE j.agent_id = r.agent_id AND j.outcome IS NOT NULL)"
        f"{_only('r', agent_id)} ORDER BY r.agent_id",
        *_ids(agent_id),
    )
    return [(_collector(row), views.copy_here(row)) for row in rows]


def _unreported(tx: Tx, agent_id: str | None) -> list[Copy]:
    """Copies that have ended and whose report does not get to the collector's host."""
    rows = tx.all(
        f"{_COPIES} FROM outbox o JOIN requests r ON r.agent_id = o.report_of"
        " JOIN residence s ON s.agent_id = r.agent_id"
        f" WHERE o.report_of IS NOT NULL AND o.problem != '' AND r.collector IS NOT NULL{_only('r', agent_id)}"
        " ORDER BY r.agent_id",
        *_ids(agent_id),
    )
    return [(_collector(row), _of_report(tx, views.copy_here(row))) for row in rows]


def _of_report(tx: Tx, copy: JobCopy) -> JobCopy:
    text = queue.report_waits(tx, copy.agent_id)
    return replace(copy, reason="report_waits", reason_text=text, never=False)


def _collector(row: sqlite3.Row) -> ProxyRef:
    return _proxy(row["collector"])


@lru_cache(maxsize=256)
def _proxy(text: str) -> ProxyRef:
    """All copies of a group have the same collector: it is parsed once."""
    return from_json(ProxyRef, loads(text))


def _only(table: str, agent_id: str | None) -> str:
    """A condition that the planner serves from the primary key; none where all rows are wanted."""
    return "" if agent_id is None else f" AND {table}.agent_id = ?"


def _ids(agent_id: str | None) -> tuple[str, ...]:
    return () if agent_id is None else (agent_id,)


def _leaving(tx: Tx, agent_id: str | None) -> list[Copy]:
    jobs = handoffs.jobs(tx, f"group_id IS NOT NULL{_only('handoffs', agent_id)}", *_ids(agent_id))
    return [(job.collector, job.copy) for job in jobs if job.collector is not None and not job.ended]


def unfinished(tx: Tx, group_id: str, job_keys: frozenset[str] | None) -> int:
    """Copies of these keys (None: of all) that wait, run or leave: none once their process trees have ended."""
    rows = tx.each(
        "SELECT job_key FROM requests WHERE group_id = ? AND status IN ('PLACING', 'WAITING_FOR_SLOT', 'RUNNING')"
        " UNION ALL SELECT job_key FROM handoffs WHERE group_id = ? AND kind = 'job'"
        " AND ended = 0",
        group_id,
        group_id,
    )
    return sum(1 for row in rows if job_keys is None or row["job_key"] in job_keys)


def _point_to(tx: Tx, groups: dict[str, str], located: Located, own: HostRef, now: float) -> None:
    """Note where collectors live now, for the copies that are here and for those that are leaving.

    Of one that was disposed of nobody wants the copies any more.
    """
    for row in located.rows:
        if row.status == "disposed" and row.agent_id in groups:
            ids = tx.all(_COPIES_OF, groups[row.agent_id], groups[row.agent_id])
            end_unwanted(tx, tuple(UnwantedCopy(agent_id=each["agent_id"], cause="recorded") for each in ids), own, now)
        if row.status == "here" and row.peer is not None and row.agent_id in groups:
            group_id, ref = groups[row.agent_id], dumps(to_json(ProxyRef(agent_id=row.agent_id, host=row.peer)))
            tx.run("UPDATE requests SET collector = ? WHERE group_id = ? AND collector IS NOT NULL", ref, group_id)
            tx.run(
                "UPDATE handoffs SET collector = ? WHERE group_id = ? AND kind = 'job' AND collector IS NOT NULL",
                ref,
                group_id,
            )
            posts.redirect(tx, row.agent_id, row.peer)
    tx.wake("census")


_COPIES_OF = (
    "SELECT agent_id FROM requests WHERE group_id = ? AND collector IS NOT NULL"
    " UNION SELECT agent_id FROM handoffs WHERE group_id = ? AND kind = 'job'"
)


def end_unwanted(tx: Tx, unwanted: tuple[UnwantedCopy, ...], own: HostRef, now: float) -> None:
    """The collector does not want these copies any more: waiting ones end at once, running ones are ended.

    One that is leaving ends when its target says that it has it not, or cannot be asked (`recall`).
    """
    for copy in unwanted:
        if recalls.wish(tx, copy.agent_id, recalls.UNWANTED):
            continue
        if not outcomes.fail_waiting(tx, copy.agent_id, outcomes.CANCELLED, copy.cause, own, now, told=True):
            tx.run(
                "UPDATE requests SET unwanted = ? WHERE agent_id = ? AND status = 'RUNNING' AND unwanted IS NULL",
                copy.cause,
                copy.agent_id,
            )
    tx.wake("runs", "janitor")


def receive(tx: Tx, told: Told, now: float) -> CensusReply:
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
                cause = copies.see(rows, copy.job_key, _sighting(told.host, copy, now))
            except UNREADABLE as error:
                note_once(tx, now, "unreadable", f"{copy.job_key} ({agent_id})", repr(error))
                continue
            if cause is None and copy.generation < first:
                cause = "cancelled"
            if cause is not None:
                unwanted.append(UnwantedCopy(agent_id=copy.agent_id, cause=cause))
    return CensusReply(unwanted=tuple(unwanted), elsewhere=tuple(elsewhere))


def _first_generation(tx: Tx, agent_id: str) -> int:
    """Return the first generation that counts for that collector: older copies are of a group that had this id before.

    Its rows say so of each key that it has; this is for copies of other keys.
    """
    first = tx.value("SELECT json_extract(state, '$.first_generation') FROM paglet_states WHERE agent_id = ?", agent_id)
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
