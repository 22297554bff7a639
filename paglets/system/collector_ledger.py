"""The ledger of a collector, which changes its counts and its rows together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from paglets.core.agent import PagletState
from paglets.groups import acceptance
from paglets.groups.records import (
    ExpectedJob,
    FailureReport,
    JobWarning,
    ReportKind,
    duplicate_entry,
    kind_of,
    record_of,
    with_warnings,
)
from paglets.groups.rows import CollectorRows, ReceivedReport
from paglets.system.collector_messages import NewKey


@dataclass(kw_only=True)
class ResultCollectorState(PagletState):
    """The state of a collector. It has counts, so that handlers need not count rows. Times are epoch seconds.

    `unexpected_number`: the row number of the newest unexpected report. `first_generation`: lower generations belong to
    an earlier group with this id (`groups.keys.first_generation`).
    """

    group_id: str = ""
    status: str = "ACTIVE"
    home_store_id: str = ""
    submitter_id: str | None = None
    job_class: str = ""
    return_home_when_complete: bool = False
    expected_count: int = 0
    completed_count: int = 0
    failed_count: int = 0
    duplicate_count: int = 0
    unexpected_count: int = 0
    unexpected_number: int = 0
    metadata_count: int = 0
    first_generation: int = 1
    created_at: float = 0.0
    completed_at: float | None = None
    last_report_at: float | None = None

    @property
    def ended_count(self) -> int:
        return self.completed_count + self.failed_count

    @property
    def pending_count(self) -> int:
        return self.expected_count - self.ended_count


class Ledger:
    """The changes that handlers make to the state and rows of a collector. `now`: seconds since the epoch."""

    def __init__(self, state: ResultCollectorState, rows: CollectorRows, now: float) -> None:
        self._state = state
        self._rows = rows
        self._now = now

    def register(self, keys: Iterable[NewKey]) -> list[str]:
        """Store keys that are new, and newer generations and metadata of known ones. Return the new keys."""
        new: list[str] = []
        first = self._state.first_generation
        for key in keys:
            known = self._rows.job(key.job_key)
            if known is None:
                new.append(key.job_key)
                self._rows.put_job(key.job_key, _expected(key, first, self._now))
            elif key.generation > known.generation:
                self._rows.put_job(key.job_key, acceptance.registered_again(known, key.generation))
            if key.metadata and self._rows.put_metadata(key.job_key, key.metadata):
                self._state.metadata_count += 1
        self._state.expected_count += len(new)
        return new

    def take_unexpected(self, keys: Iterable[str]) -> list[str]:
        """Process the reports that arrived before these keys were registered.

        Return the ids of the artifacts of the reports that are not accepted.
        """
        not_wanted: list[str] = []
        for key in keys:
            if not self._state.unexpected_count:
                break
            for came in self._rows.take_unexpected(key):
                self._state.unexpected_count -= 1
                if self.take(came) != "accepted":
                    not_wanted += came.artifact_ids
        return not_wanted

    def take(self, came: ReceivedReport) -> str:
        """Store the report as the record of its key, as a duplicate or as unexpected, and return the verdict.

        A report of an earlier submission is dropped.
        """
        report, reported_at = came.report, came.reported_at
        if 0 < report.generation < self._state.first_generation:
            return "earlier_submission"
        job = self._rows.job(report.job_key)
        if job is None:
            self._state.unexpected_count += 1
            self._state.unexpected_number += 1
            self._rows.put_unexpected(self._state.unexpected_number, came)
            return "unexpected"
        generation = acceptance.effective_generation(job, report.generation)
        verdict = acceptance.judge_report(job, report)
        if verdict == "accepted":
            record = record_of(report, generation, reported_at)
            self._end(report.job_key, acceptance.ended(job, generation), kind_of(report), record)
        else:
            self._state.duplicate_count += 1
            entry = duplicate_entry(report, generation, reported_at, verdict)
            self._rows.put_duplicate(self._state.duplicate_count, entry)
        return verdict

    def warn(self, warning: JobWarning) -> None:
        """Add a warning to the record of its attempt. If the job has not ended, keep the warning until it has.

        Drop the warning if the job is unknown, if its copy no longer counts, or if the record is of another attempt.
        """
        job = self._rows.job(warning.job_key)
        if job is None or warning.generation < job.floor:
            return
        if not job.ended:
            self._rows.put_warning(warning)
            return
        kind, record = self._rows.record(warning.job_key)
        if warning.of(record):
            self._rows.change_record(warning.job_key, kind, with_warnings(record, [warning.text]))

    def cancel(self, key: str, job: ExpectedJob | None, reason: str) -> str:
        """Record a pending key as cancelled. Return how the key has ended, or "unknown" if it was never registered."""
        if job is None:
            return "unknown"
        if job.ended:
            return self._how_ended(key)
        seen = job.sighting
        failure = FailureReport(
            job_key=key,
            cause="cancelled",
            message=f"cancelled: {reason}" if reason else "cancelled",
            attempt=seen.attempt if seen else 0,
            host_name=seen.host.name if seen else "",
        )
        record = record_of(failure, job.generation, self._now)
        self._end(key, acceptance.cancelled(job), "failure", record)
        return "cancelled"

    def gone(self, key: str, job: ExpectedJob | None) -> None:
        """Forget the copies of a key that has ended. A pending key is left unchanged."""
        if job is not None and job.ended and (job.sighting is not None or job.older):
            self._rows.put_job(key, acceptance.gone(job))

    def _end(self, key: str, job: ExpectedJob, kind: ReportKind, record: dict[str, Any]) -> None:
        if kind == "result":
            self._state.completed_count += 1
        else:
            self._state.failed_count += 1
        record = with_warnings(record, self._rows.take_warnings(key, record))
        self._rows.put_record(key, kind, record, self._state.ended_count)
        self._rows.put_job(key, job)

    def _how_ended(self, key: str) -> str:
        kind, record = self._rows.record(key)
        if kind == "result":
            return "already_completed"
        return "already_cancelled" if record["cause"] == "cancelled" else "already_failed"


def _expected(key: NewKey, first: int, now: float) -> ExpectedJob:
    """Return the row of a new key. Reports of generations below `first` are ignored."""
    return ExpectedJob(generation=max(key.generation, first), floor=first, since=now)
