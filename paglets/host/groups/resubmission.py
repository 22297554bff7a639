"""Makes the next generation of jobs whose copies are lost, or says why there is none.

All that is decided on is read in the transaction that writes it: what was asked for may be told of again, or have
ended, meanwhile. Each key is under its own savepoint, and a page of keys is one transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from types import MappingProxyType

from paglets.codec.envelope import WireMessage
from paglets.core.record import from_json
from paglets.core.refs import BlobRef, HostRef, ProxyRef
from paglets.groups import copies
from paglets.groups.keys import SUBMISSION_GENERATIONS, nth_copy
from paglets.groups.records import ExpectedJob, Sighting, Template
from paglets.groups.rows import CollectorRows
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.blobs.fetcher import BlobFetcher
from paglets.host.records.in_host import InHostStorage
from paglets.host.records.jobcopies import JobGroup, job_copy
from paglets.host.runtime.services import HostServices
from paglets.slots.model import SlotRequest
from paglets.store import blobs, paglets, posts, residence, sqlite_errors
from paglets.store.db import Tx
from paglets.store.events import record_event, record_event_once

KEYS_A_PAGE = 20
FILES_TOLD = 3
"""Inputs that lack: the reason names so many."""

NO_LOOKS: Mapping[str, int] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class Watched:
    """What is remembered of a key that has not ended. Times are monotonic seconds.

    `heard_at`: when its copy of `generation`, or a newer one, was last told of or asked for. `looks`: by the store of a
    host, how many times in a row it answered that it has no such copy. `older_at`: when an older copy was last told of.
    `lacks_since`: for how long inputs have been lacking for a further copy.
    """

    heard_at: float
    generation: int
    looks: Mapping[str, int] = field(default_factory=lambda: NO_LOOKS)
    older_at: float | None = None
    lacks_since: float | None = None

    def heard(self, generation: int, now: float) -> bool:
        """A copy of that generation was told of; whether that is the newest."""
        if generation < self.generation:
            self.older_at = now
            return False
        if generation > self.generation:
            self.older_at = None
        self.heard_at, self.looks, self.generation, self.lacks_since = now, NO_LOOKS, generation, None
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingJob:
    """A key that has not ended, as its collector has it, and its newest copy."""

    job: ExpectedJob
    template: Template
    copy: Sighting


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A copy that is lost, as it was last told of, and `why`, in words.

    `silent`: the hosts that may have it and were not heard of. `older_goes_on`: an older copy was told of lately, and
    may still bring the result.
    """

    collector: str
    job_key: str
    watched: Watched
    copy: Sighting
    why: str
    silent: tuple[HostRef, ...]
    older_goes_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What became of one: `generation` is the one that was made, or the inputs that are here and those that lack."""

    lost: Lost
    generation: int | None = None
    here: tuple[BlobRef, ...] = ()
    lacking: tuple[BlobRef, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Collector:
    """`group`: None where the collector is not here. `reports`: what lies in its inbox, by key; those after `seq` were
    not looked at yet."""

    group: JobGroup | None = None
    reports: dict[str, posts.InboxReport] = field(default_factory=dict)
    seq: int = 0

    def look(self, tx: Tx, ref: ProxyRef) -> None:
        group_id = paglets.state_value(tx, ref.agent_id, "group_id")
        bundle = paglets.bundle_of(tx, ref.agent_id)
        self.group = None if group_id is None else JobGroup(group_id=group_id, collector=ref, bundle=bundle)
        for report in posts.reports(tx, ref.agent_id, self.seq):
            self.reports[report.job_key], self.seq = report, report.seq


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A lost copy in the transaction that deals with it. `now`: epoch seconds."""

    tx: Tx
    rows: CollectorRows
    lost: Lost
    pending: PendingJob
    group: JobGroup
    now: float

    def say(self, reason: str, text: str) -> None:
        """Why there is no further copy; written where it is news."""
        waiting = copies.postponed(self.pending.job, self.pending.copy, reason, text, self.now)
        if waiting != self.pending.job:
            self.rows.put_job(self.lost.job_key, waiting)


def rows_of(tx: Tx, collector: str) -> CollectorRows:
    return CollectorRows(InHostStorage(tx, collector))


def pending(rows: CollectorRows, key: str, now: float) -> PendingJob | None:
    """None where the key has ended, or nothing further can be made of it. Raises one of `rows.UNREADABLE`."""
    job = rows.job(key)
    if job is None or job.ended:
        return None
    template = rows.template(key)
    if template is None:
        return None
    return PendingJob(job=job, template=template, copy=copies.newest_copy(job, template, now))


class Resubmission:
    """Belongs to the runner."""

    def __init__(self, services: HostServices, blob_fetcher: BlobFetcher, blob_store: BlobStore) -> None:
        self._services = services
        self._blob_fetcher = blob_fetcher
        self._blob_store = blob_store
        self._lost: deque[Lost] = deque()
        self._collectors: dict[str, _Collector] = {}

    @property
    def at_work(self) -> bool:
        """Whether it still has keys of the last `resubmit` before it."""
        return bool(self._lost)

    def resubmit(self, lost: Sequence[Lost]) -> None:
        """Make further copies of all these keys, page by page; not while `at_work`."""
        self._collectors = {each.collector: _Collector() for each in lost}
        self._services.store.read(self._look_at_collectors)
        self._lost.extend(lost)
        self._next_page()

    def _look_at_collectors(self, tx: Tx) -> None:
        """First outside of a transaction, so that nobody waits while inboxes are read; then little in them is new."""
        for agent_id, collector in self._collectors.items():
            collector.look(tx, ProxyRef(agent_id=agent_id, host=self._services.own))

    def _next_page(self) -> None:
        page = list(islice(self._lost, KEYS_A_PAGE))
        if page:
            self._services.runner.change(lambda tx: self._page(tx, page), partial(self._page_done, page))

    def _page(self, tx: Tx, page: list[Lost]) -> list[_Done]:
        self._look_at_collectors(tx)
        done = [self._guarded(tx, lost) for lost in page]
        return [each for each in done if each is not None]

    def _page_done(self, page: list[Lost], result: list[_Done] | BaseException) -> None:
        if isinstance(result, BaseException):
            self._lost.clear()  # The next looks find them again.
            self._collectors.clear()
            raise result
        for _ in page:
            self._lost.popleft()
        for done in result:
            self._remember(done)
        if not self._lost:
            self._collectors.clear()
            self._services.runner.wake("lost_jobs")
        self._next_page()

    def _remember(self, done: _Done) -> None:
        watched, now = done.lost.watched, self._services.clock.monotonic()
        if done.generation is not None:
            watched.heard(done.generation, now)
        elif watched.lacks_since is None:
            watched.lacks_since = now
        for blob in done.here:
            self._blob_store.pin(blob.sha256)
        for blob in done.lacking:
            self._blob_fetcher.fetch_blob(blob, partial(self._arrived, done.lost))

    def _arrived(self, lost: Lost) -> None:
        """One of its inputs is here, for a while: what is still lost is begun anew before that is over."""
        if lost.watched.lacks_since is None:
            return  # It has been heard of since, or was begun anew.
        if self.at_work:
            self._collectors.setdefault(lost.collector, _Collector())
            self._lost.append(lost)
        else:
            self.resubmit([lost])

    # One key, in the transaction.

    def _guarded(self, tx: Tx, lost: Lost) -> _Done | None:
        """One that cannot be dealt with holds up no others; it is looked at again later."""
        now, group, rows = (
            self._services.clock.wall(),
            self._collectors[lost.collector].group,
            rows_of(tx, lost.collector),
        )
        try:
            with tx.savepoint():
                key = pending(rows, lost.job_key, now)
                if group is None or key is None or _place(key.copy) != _place(lost.copy):
                    return None
                return self._decide(_Case(tx=tx, rows=rows, lost=lost, pending=key, group=group, now=now))
        except Exception as error:
            if sqlite_errors.is_store_error(error):
                raise
            record_event_once(tx, now, "not_resubmitted", f"{lost.job_key} ({lost.copy.agent_id})", repr(error))
            return None

    def _decide(self, case: _Case) -> _Done | None:
        job, template = case.pending.job, case.pending.template
        report = self._collectors[case.lost.collector].reports.get(case.lost.job_key)
        if report is not None:
            if report.dead:
                case.say("report_failed", f"its report came, and the collector could not take it: {report.error}")
            return None
        most = from_json(SlotRequest, template.request).max_losses
        made = nth_copy(job.generation)
        # The generations after the last one belong to the next submission under this group id.
        if made > most or made == SUBMISSION_GENERATIONS:
            last = case.pending.copy.host.name
            text = f"lost {made} times with its host, the last time on {last}; max_losses is {most}"
            self._give_up(case, text)
            return None
        lacking = tuple(blobs.missing(case.tx, (file.blob for file in template.files)))
        return self._wait_for(case, lacking) if lacking else self._make(case)

    def _wait_for(self, case: _Case, lacking: tuple[BlobRef, ...]) -> _Done:
        files, since = case.pending.template.files, case.lost.watched.lacks_since
        names = [
            f"its input {file.name} {self._blob_fetcher.status_text(file.blob)}"
            for file in files
            if file.blob in lacking
        ]
        more = [f"{len(names) - FILES_TOLD} more are lacking"] if len(names) > FILES_TOLD else []
        text = "; ".join([case.lost.why, *names[:FILES_TOLD], *more])
        waited = 0.0 if since is None else self._services.clock.monotonic() - since
        if waited >= self._services.settings.input_wait_seconds:
            self._give_up(case, text)
        else:
            case.say("input_absent", text)
        return _Done(
            lost=case.lost, here=tuple(file.blob for file in files if file.blob not in lacking), lacking=lacking
        )

    def _make(self, case: _Case) -> _Done:
        """A copy of the next generation, which looks for a host from here."""
        tx, lost, job = case.tx, case.lost, case.pending.job
        generation = job.generation + 1
        agent_id = copies.copy_id(case.group.group_id, lost.job_key, generation)
        envelope = job_copy(
            agent_id,
            lost.job_key,
            case.pending.template,
            case.rows.submitted_state(lost.job_key),
            case.group,
            case.now,
            generation=generation,
            losses=nth_copy(job.generation),
        )
        made = residence.create(tx, envelope, case.now)
        # A handler may have written over what was noted when it was made (`groups.copies`): then it is asked for next.
        why = f"begun anew: {lost.why}" + ("" if made else f"; its copy of generation {generation} was made before")
        older = copies.older_copies(case.pending.copy, lost.silent)
        case.rows.put_job(lost.job_key, copies.resubmitted(job, agent_id, self._services.own, why, case.now, older))
        record_event(tx, case.now, "lost", f"{lost.job_key} ({lost.copy.agent_id})", why)
        return _Done(lost=lost, generation=generation)

    def _give_up(self, case: _Case, text: str) -> None:
        """The job fails, unless an older copy goes on: its success would count, and a failure now would end the key."""
        lost = case.lost
        if lost.older_goes_on:
            case.say("older_copy", f"{text}; an older copy of it goes on, and its result counts")
            return
        args = {
            "job_key": lost.job_key,
            "cause": "host_lost",
            "message": text,
            "generation": case.pending.job.generation,
            "attempt": case.pending.copy.attempt,
            "host_name": case.pending.copy.host.name,
        }
        target = ProxyRef(agent_id=lost.collector, host=self._services.own)
        posts.send(case.tx, target, WireMessage(kind="job_failure", args=args), case.now)


def _place(copy: Sighting) -> tuple[str, str, int, str]:
    return copy.agent_id, copy.host.store_id, copy.epoch, copy.residence
