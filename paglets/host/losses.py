"""Begins jobs anew whose copies are lost, for the collectors that live here.

A copy that no census told of for a while is asked for in the whole mesh. It is lost when every host where it
may be was mute to this one for `host_lost_after`, or answers and has no such copy; then its key gets a further
generation, made here of its template and placed like any other job (`groups.losses`, `groups.copies`).

What is remembered is in memory: after a start, or when a collector comes, all its copies have just been heard of.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from functools import partial

from paglets.api.groups import Census
from paglets.api.paglets import Located, ResidenceRow
from paglets.codec.envelope import Envelope, JobPart, WireMessage
from paglets.core.record import from_json
from paglets.core.refs import BlobRef, HostRef, ProxyRef
from paglets.groups import copies, losses
from paglets.groups.keys import collector_id
from paglets.groups.losses import Found, Place
from paglets.groups.records import ExpectedJob, Sighting, Template
from paglets.groups.rows import CollectorRows
from paglets.host.fetching import Fetching
from paglets.host.inline import InlineStorage
from paglets.host.runner import note
from paglets.host.shell import Shell
from paglets.host.whereabouts import Whereabouts
from paglets.mesh.gossip import Gossip
from paglets.slots.model import SlotRequest
from paglets.store import blobs, paglets, posts, residence
from paglets.store.db import Tx

LOOK_SECONDS = 2.0
QUIET_SECONDS = 30.0
"""Three whole censuses: a copy of which nothing was heard for so long is asked for."""

GAP_SECONDS = 5.0
"""A look that comes so much later than it should was delayed by a gap of this host's own: nothing is judged then."""

KEYS_A_LOOK = 500
KEYS_A_PAGE = 2_000

Key = tuple[str, str]
"""A collector's agent id and a job key."""


@dataclass(slots=True, kw_only=True)
class _Watched:
    """`heard_at`: monotonic second when the copy of `generation` or a newer one was last told of or asked for;
    `looks`: how often it was asked for in vain."""

    heard_at: float
    looks: int = 0
    generation: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Absent:
    """A copy that is on no host that answered; `found`: what became of it, as far as one knows."""

    key: Key
    agent_id: str
    found: Found | None
    looks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A key that has not ended, as its collector has it, and its newest copy."""

    key: Key
    job: ExpectedJob
    template: Template
    copy: Sighting

    def put(self, tx: Tx, job: ExpectedJob) -> None:
        _rows(tx, self.key[0]).put_job(self.key[1], job)


class Losses:
    """Part `losses`."""

    name = "losses"

    def __init__(self, shell: Shell, gossip: Gossip, whereabouts: Whereabouts, fetching: Fetching) -> None:
        self._shell = shell
        self._gossip = gossip
        self._whereabouts = whereabouts
        self._fetching = fetching
        self._lost_after = shell.settings.host_lost_after_seconds
        self._quiet = min(QUIET_SECONDS, self._lost_after / 4)
        self._told: deque[Census] = deque()
        self._watched: OrderedDict[Key, _Watched] = OrderedDict()
        self._pages: dict[str, str | None] = {}
        self._due_at = shell.clock.monotonic()
        self._asking = False

    def told(self, census: Census) -> None:
        """These copies are where they were told of; any thread."""
        self._told.append(census)

    def tick(self, now: float) -> float | None:
        gap, self._due_at = now > self._due_at + GAP_SECONDS, now + LOOK_SECONDS
        self._follow_collectors(now)
        self._hear(now)
        if gap:
            for watched in self._watched.values():
                watched.heard_at, watched.looks = now, 0
        due = [] if gap or self._asking else self._quiet_keys(now)
        if due:
            self._ask(due)
        return self._due_at if self._pages else None

    # Which copies to watch, and when they were last heard of.

    def _follow_collectors(self, now: float) -> None:
        """Watch the keys of collectors that are here, a page of new ones at a time."""
        here = self._shell.store.read(_unfinished_collectors)
        if gone := self._pages.keys() - set(here):
            self._pages = {agent_id: after for agent_id, after in self._pages.items() if agent_id not in gone}
            self._watched = OrderedDict((key, seen) for key, seen in self._watched.items() if key[0] not in gone)
        for agent_id in here:
            after = self._pages.setdefault(agent_id, "")
            if after is not None:
                page = self._shell.store.read(partial(_templates, agent_id, after))
                for job_key in page:
                    self._watched.setdefault((agent_id, job_key), _Watched(heard_at=now))
                self._pages[agent_id] = page[-1] if len(page) == KEYS_A_PAGE else None

    def _hear(self, now: float) -> None:
        for _ in range(len(self._told)):
            for copy in self._told.popleft().copies:
                if copy.residence == "leaving":
                    continue  # where it goes to may be lost
                self._heard((collector_id(copy.group_id), copy.job_key), copy.generation, now)

    def _heard(self, key: Key, generation: int, now: float) -> None:
        watched = self._watched.get(key)
        if watched is not None and generation >= watched.generation:
            watched.heard_at, watched.looks, watched.generation = now, 0, generation
            self._watched.move_to_end(key)

    def _quiet_keys(self, now: float) -> list[Key]:
        """Those of which nothing was heard for long, each at most once in that time."""
        due: list[Key] = []
        for key, watched in self._watched.items():
            if watched.heard_at > now - self._quiet or len(due) == KEYS_A_LOOK:
                break
            due.append(key)
        for key in due:
            self._watched[key].heard_at = now
            self._watched.move_to_end(key)
        return due

    # Asking.

    def _ask(self, keys: list[Key]) -> None:
        """Where in the mesh are these? Keys that have ended are not watched any more."""

        def look(tx: Tx) -> dict[Key, Sighting]:
            for key in keys:
                if _rows(tx, key[0]).template(key[1]) is None:
                    self._watched.pop(key, None)
            found = {key: self._known(tx, key) for key in keys}
            return {key: known.copy for key, known in found.items() if known is not None}

        asked = self._shell.store.read(look)
        if asked:
            self._asking = True
            ids = [copy.agent_id for copy in asked.values()]
            self._whereabouts.locate(ids, lambda located: self._located(asked, located))

    def _known(self, tx: Tx, key: Key) -> _Known | None:
        """A key that has not ended, and its newest copy."""
        rows = _rows(tx, key[0])
        job, template = rows.job(key[1]), rows.template(key[1])
        if job is None or job.ended or template is None:
            return None
        copy = copies.newest_copy(job, template, self._shell.clock.wall())
        return _Known(key=key, job=job, template=template, copy=copy)

    def _located(self, asked: dict[Key, Sighting], located: Located) -> None:
        self._asking = False
        rows = {row.agent_id: row for row in located.rows}
        now = self._shell.clock.monotonic()
        absent: list[_Absent] = []
        for key, copy in asked.items():
            found = _found(rows.get(copy.agent_id))
            watched = self._watched.get(key)
            if losses.is_here(found):
                self._heard(key, copy.generation, now)
            elif watched is not None:
                watched.looks += 1
                absent.append(_Absent(key=key, agent_id=copy.agent_id, found=found, looks=watched.looks))
        if absent:
            self._shell.runner.change(lambda tx: self._judge(tx, absent), self._judged)

    # Judging; in one transaction, with what has been heard meanwhile.

    def _judge(self, tx: Tx, absent: list[_Absent]) -> list[BlobRef]:
        """Begin anew what is lost; gives the bytes that are lacking for it."""
        lacking: dict[BlobRef, None] = {}
        for each in absent:
            known = self._known(tx, each.key)
            if known is None or known.copy.agent_id != each.agent_id or _has_post(tx, each.key[0]):
                continue
            places = [self._place(host) for host in losses.where(known.copy, each.found)]
            if losses.is_lost(each.found, places, each.looks, self._lost_after):
                why = losses.why_lost(places, self._lost_after)
                lacking.update(dict.fromkeys(self._begin_anew(tx, known, why)))
        return list(lacking)

    def _place(self, host: HostRef) -> Place:
        if host.store_id == self._shell.own.store_id:
            return Place(name=host.name, silent_seconds=0.0, online=True)
        online = any(member.store_id == host.store_id for member in self._gossip.online())
        mute = float("inf") if self._gossip.is_forgotten(host.store_id) else self._gossip.mute_seconds(host.store_id)
        return Place(name=host.name, silent_seconds=mute, online=online)

    def _begin_anew(self, tx: Tx, known: _Known, why: str) -> list[BlobRef]:
        """Make a further copy of that key, or say why it cannot be; gives the bytes that it lacks here."""
        now, job, template, copy = self._shell.clock.wall(), known.job, known.template, known.copy
        most = from_json(SlotRequest, template.request).max_losses
        if job.generation > most:
            text = f"lost {job.generation} times with its host, the last time on {copy.host.name}; max_losses is {most}"
            self._fail(tx, known, text, now)
            return []
        lacking = blobs.missing(tx, (file.blob for file in template.files))
        if not lacking:
            agent_id = self._make(tx, known, now)
            known.put(tx, copies.begun_anew(job, agent_id, self._shell.own, why, now))
            note(tx, now, "lost", f"{known.key[1]} ({copy.agent_id})", why)
            return []
        names = ", ".join([file.name for file in template.files if file.blob in lacking][:5])
        text = f"{why}; no host that is online has its input {names}"
        if copy.reason == "input_absent" and now - copy.since >= self._shell.settings.input_wait_seconds:
            self._fail(tx, known, text, now)
        else:
            known.put(tx, copies.waits(job, copy, "input_absent", text, now))
        return lacking

    def _make(self, tx: Tx, known: _Known, now: float) -> str:
        """A copy of the next generation, which looks for a host from here; gives its id."""
        (collector, job_key), template, lost = known.key, known.template, known.job.generation
        group_id = tx.value("SELECT json_extract(state, '$.group_id') FROM paglets WHERE agent_id = ?", collector)
        envelope = Envelope(
            agent_id=copies.copy_id(group_id, job_key, lost + 1),
            epoch=1,
            class_name=template.class_name,
            kind="job",
            state=template.state,
            home=template.home,
            created_at=now,
            storage={},
            job=JobPart(
                group_id=group_id,
                job_key=job_key,
                collector=ProxyRef(agent_id=collector, host=self._shell.own),
                generation=lost + 1,
                attempt=0,
                status="PLACING",
                request=template.request,
                submitted_state=template.state,
                losses=lost,
            ),
            bundle=paglets.bundle_of(tx, collector),
            files=template.files,
        )
        residence.create(tx, envelope, now)
        return envelope.agent_id

    def _fail(self, tx: Tx, known: _Known, text: str, now: float) -> None:
        collector, job_key = known.key
        args = {
            "job_key": job_key,
            "cause": "host_lost",
            "message": text,
            "generation": known.job.generation,
            "attempt": known.copy.attempt,
            "host_name": known.copy.host.name,
        }
        target = ProxyRef(agent_id=collector, host=self._shell.own)
        posts.send(tx, target, WireMessage(kind="job_failure", args=args), now)

    def _judged(self, lacking: list[BlobRef] | BaseException) -> None:
        if isinstance(lacking, BaseException):
            raise lacking
        for blob in lacking:
            self._fetching.fetch_blob(blob)


def _unfinished_collectors(tx: Tx) -> list[str]:
    rows = tx.all(
        "SELECT agent_id FROM paglets WHERE kind = 'collector' AND EXISTS (SELECT 1 FROM storage s"
        " WHERE s.agent_id = paglets.agent_id AND s.key > 'template/' AND s.key < 'template0') ORDER BY agent_id"
    )
    return [row["agent_id"] for row in rows]


def _templates(collector: str, after: str, tx: Tx) -> list[str]:
    return _rows(tx, collector).templates(after, KEYS_A_PAGE)


def _rows(tx: Tx, collector: str) -> CollectorRows:
    return CollectorRows(InlineStorage(tx, collector))


def _has_post(tx: Tx, collector: str) -> bool:
    """Whether a report may lie there that was not handled yet."""
    return tx.value("SELECT 1 FROM inbox WHERE agent_id = ? AND status = 'waiting' LIMIT 1", collector) is not None


def _found(row: ResidenceRow | None) -> Found | None:
    return None if row is None else Found(standing=row.status, peer=row.peer)  # type: ignore[arg-type]
