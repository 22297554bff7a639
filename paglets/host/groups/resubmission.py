"""Resubmission: create the next generation of jobs whose copies are lost, or store why none is created.

Each decision reads the rows of its key again in its own transaction, because they may have changed: the lost copy may
have been reported, or the key may have ended. A page of keys is one transaction, with a savepoint for each key.
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
from paglets.core.text import counted
from paglets.groups import copies
from paglets.groups.keys import SUBMISSION_GENERATIONS, nth_copy
from paglets.groups.records import ExpectedJob, JobDescription, Sighting
from paglets.groups.rows import CollectorRows
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.blobs.fetcher import BlobFetcher
from paglets.host.records.group_jobs import JobGroup, job_copy
from paglets.host.records.in_host_storage import InHostStorage
from paglets.host.runtime.services import HostServices
from paglets.slots.model import SlotRequest
from paglets.store import blobs, paglets, posts, residence, sqlite_errors
from paglets.store.db import Tx
from paglets.store.events import record_event, record_event_once

KEYS_A_PAGE = 20
FILES_NAMED = 3
"""The maximum number of missing inputs that a reason names."""

NO_LOOKS: Mapping[str, int] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class WatchedKey:
    """The state of a watched key that has not ended. Times are monotonic seconds.

    `seen_at`: when a copy of `generation`, or a newer one, was last reported or located. `looks`: by store id, how
    many times in a row a host answered that it lacks the copy. `older_at`: when an older copy was last reported.
    `lacks_since`: since when inputs for a further copy have been missing.
    """

    seen_at: float
    generation: int
    looks: Mapping[str, int] = field(default_factory=lambda: NO_LOOKS)
    older_at: float | None = None
    lacks_since: float | None = None

    def seen(self, generation: int, now: float) -> bool:
        """Record that a copy of `generation` was reported. Return False if a newer generation is known."""
        if generation < self.generation:
            self.older_at = now
            return False
        if generation > self.generation:
            self.older_at = None
        self.seen_at, self.looks, self.generation, self.lacks_since = now, NO_LOOKS, generation, None
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingJob:
    """A job that has not ended, as its collector stores it, and the newest copy of the job."""

    job: ExpectedJob
    description: JobDescription
    copy: Sighting


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A lost copy as it was last reported. `why` is a text that says why it counts as lost.

    `unreachable`: unreachable hosts that may have the copy. `older_goes_on`: an older copy was reported recently
    and may still report the result.
    """

    collector: str
    job_key: str
    watched: WatchedKey
    copy: Sighting
    why: str
    unreachable: tuple[HostRef, ...]
    older_goes_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resubmitted:
    """The outcome of the resubmission of one key.

    `generation` is the new generation, or None if inputs are missing. `here` lists the inputs that this host has, and
    `lacking` those that it lacks.
    """

    lost: Lost
    generation: int | None = None
    here: tuple[BlobRef, ...] = ()
    lacking: tuple[BlobRef, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Collector:
    """A collector, and the reports in its inbox by job key, read up to the number `seq`.

    `group` is None if the collector is no longer on this host.
    """

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
class _LostCase:
    """A lost copy, with the transaction that handles it. `now` is the time of the wall clock."""

    tx: Tx
    rows: CollectorRows
    lost: Lost
    pending: PendingJob
    group: JobGroup
    now: float

    def set_reason(self, reason: str, text: str) -> None:
        """Store why no further copy was created, unless the same reason is already stored."""
        waiting = copies.postponed(self.pending.job, self.pending.copy, reason, text, self.now)
        if waiting != self.pending.job:
            self.rows.put_job(self.lost.job_key, waiting)


def rows_of(tx: Tx, collector: str) -> CollectorRows:
    return CollectorRows(InHostStorage(tx, collector))


def pending(rows: CollectorRows, key: str, now: float) -> PendingJob | None:
    """Return the pending job of a key, or None if it has ended or cannot be resubmitted.

    Raises one of `paglets.groups.rows.UNREADABLE` if a row of the collector cannot be read.
    """
    job = rows.job(key)
    if job is None or job.ended:
        return None
    description = rows.description(key)
    if description is None:
        return None
    return PendingJob(job=job, description=description, copy=copies.newest_copy(job, description, now))


class Resubmission:
    """The resubmission of lost copies. Used only on the runner."""

    def __init__(self, services: HostServices, blob_fetcher: BlobFetcher, blob_store: BlobStore) -> None:
        self._services = services
        self._blob_fetcher = blob_fetcher
        self._blob_store = blob_store
        self._lost: deque[Lost] = deque()
        self._collectors: dict[str, _Collector] = {}

    @property
    def at_work(self) -> bool:
        """Return True while lost copies wait for the resubmission of their jobs."""
        return bool(self._lost)

    def resubmit(self, lost: Sequence[Lost]) -> None:
        """Resubmit the jobs of these lost copies, page by page. Must not be called while `at_work` is True."""
        self._collectors = {each.collector: _Collector() for each in lost}
        self._services.store.read(self._look_at_collectors)
        self._lost.extend(lost)
        self._next_page()

    def _look_at_collectors(self, tx: Tx) -> None:
        """Read the new reports in the inboxes of the collectors.

        This is called before a write transaction and again within it, so that the write transaction reads few reports.
        """
        for agent_id, collector in self._collectors.items():
            collector.look(tx, ProxyRef(agent_id=agent_id, host=self._services.own))

    def _next_page(self) -> None:
        page = list(islice(self._lost, KEYS_A_PAGE))
        if page:
            self._services.runner.change(lambda tx: self._page(tx, page), partial(self._page_done, page))

    def _page(self, tx: Tx, page: list[Lost]) -> list[_Resubmitted]:
        self._look_at_collectors(tx)
        done = [self._guarded(tx, lost) for lost in page]
        return [each for each in done if each is not None]

    def _page_done(self, page: list[Lost], result: list[_Resubmitted] | BaseException) -> None:
        if isinstance(result, BaseException):
            # The change was not stored, but the detector finds these copies again.
            self._lost.clear()
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

    def _remember(self, done: _Resubmitted) -> None:
        watched, now = done.lost.watched, self._services.clock.monotonic()
        if done.generation is not None:
            watched.seen(done.generation, now)
        elif watched.lacks_since is None:
            watched.lacks_since = now
        for blob in done.here:
            self._blob_store.pin(blob.sha256)
        for blob in done.lacking:
            self._blob_fetcher.fetch_blob(blob, partial(self._arrived, done.lost))

    def _arrived(self, lost: Lost) -> None:
        """Try to resubmit the job when one of its inputs has arrived, before the pin of that input expires."""
        if lost.watched.lacks_since is None:
            # The copy was reported, or its job was resubmitted, after the fetch started.
            return
        if self.at_work:
            self._collectors.setdefault(lost.collector, _Collector())
            self._lost.append(lost)
        else:
            self.resubmit([lost])

    # Methods that handle one key within the transaction.

    def _guarded(self, tx: Tx, lost: Lost) -> _Resubmitted | None:
        """Handle one key. An error is recorded and does not affect other keys; the key is retried later.

        Only an error of the store is raised, because it affects all keys.
        """
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
                return self._decide(_LostCase(tx=tx, rows=rows, lost=lost, pending=key, group=group, now=now))
        except Exception as error:
            if sqlite_errors.is_store_error(error):
                raise
            record_event_once(tx, now, "not_resubmitted", f"{lost.job_key} ({lost.copy.agent_id})", repr(error))
            return None

    def _decide(self, case: _LostCase) -> _Resubmitted | None:
        job, description = case.pending.job, case.pending.description
        report = self._collectors[case.lost.collector].reports.get(case.lost.job_key)
        if report is not None:
            if report.dead:
                case.set_reason(
                    "report_failed", f"its report arrived, but the collector could not take it: {report.error}"
                )
            return None
        most = from_json(SlotRequest, description.request).max_losses
        made = nth_copy(job.generation)
        # Generations above SUBMISSION_GENERATIONS belong to the next submission under this group id.
        if made > most or made == SUBMISSION_GENERATIONS:
            last = case.pending.copy.host.name
            text = f"lost {counted(made, 'time')} with its host, last on {last}; max_losses is {most}"
            self._give_up(case, text)
            return None
        lacking = tuple(blobs.missing(case.tx, (file.blob for file in description.files)))
        return self._wait_for(case, lacking) if lacking else self._make(case)

    def _wait_for(self, case: _LostCase, lacking: tuple[BlobRef, ...]) -> _Resubmitted:
        files, since = case.pending.description.files, case.lost.watched.lacks_since
        names = [
            f"its input {file.name} {self._blob_fetcher.status_text(file.blob)}"
            for file in files
            if file.blob in lacking
        ]
        more = [f"{len(names) - FILES_NAMED} more are missing"] if len(names) > FILES_NAMED else []
        text = "; ".join([case.lost.why, *names[:FILES_NAMED], *more])
        waited = 0.0 if since is None else self._services.clock.monotonic() - since
        if waited >= self._services.settings.input_wait_seconds:
            self._give_up(case, text)
        else:
            case.set_reason("input_absent", text)
        return _Resubmitted(
            lost=case.lost, here=tuple(file.blob for file in files if file.blob not in lacking), lacking=lacking
        )

    def _make(self, case: _LostCase) -> _Resubmitted:
        """Create a copy of the next generation on this host, which then places the copy."""
        tx, lost, job = case.tx, case.lost, case.pending.job
        generation = job.generation + 1
        agent_id = copies.copy_id(case.group.group_id, lost.job_key, generation)
        envelope = job_copy(
            agent_id,
            lost.job_key,
            case.pending.description,
            case.rows.submitted_state(lost.job_key),
            case.group,
            case.now,
            generation=generation,
            losses=nth_copy(job.generation),
        )
        made = residence.create(tx, envelope, case.now)
        # If the copy exists already, a handler of the collector has overwritten the row of the key (see
        # `groups.copies`). Store the row again, so that the lost-job detector locates the copy.
        why = f"resubmitted: {lost.why}" + ("" if made else f"; its copy of generation {generation} was made before")
        older = copies.older_copies(case.pending.copy, lost.unreachable)
        case.rows.put_job(lost.job_key, copies.resubmitted(job, agent_id, self._services.own, why, case.now, older))
        record_event(tx, case.now, "lost", f"{lost.job_key} ({lost.copy.agent_id})", why)
        return _Resubmitted(lost=lost, generation=generation)

    def _give_up(self, case: _LostCase, text: str) -> None:
        """Fail the job. If an older copy still runs, wait for that copy instead, because its result would count."""
        lost = case.lost
        if lost.older_goes_on:
            case.set_reason("older_copy", f"{text}; an older copy is still running, and its result counts")
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
