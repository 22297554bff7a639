"""The read-only views of a collector: its summary and pages of its lists."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from paglets.groups.records import NO_COPY_SEEN
from paglets.groups.rows import FAILURE_FIELDS, CollectorRows
from paglets.groups.summary import MAX_SUMMARY_BYTES, Facts, Lists, Location, pending_entry, summarise
from paglets.groups.tallies import Tally
from paglets.system.collector_ledger import ResultCollectorState
from paglets.system.collector_messages import LISTS

MOST_RECORD_BYTES = 16 * MAX_SUMMARY_BYTES
"""The size limit of the summary of one job, in bytes. No record is larger, because requests have at most 64 MiB."""

SUMMARY_LISTS = (*LISTS, "results", "failures", "truncated")
"""The keys of a summary that a reply to `reasons` leaves out."""

LONG = ("result", "traceback", "stderr_tail")
"""The fields of a record that may be long."""


MOST_REASONS = 200
"""The maximum number of pending reasons, and of failure reasons, in a reply to `reasons`, which counts the rest."""


class View:
    """A reader of the state and rows of a collector. `here` is its location."""

    def __init__(self, state: ResultCollectorState, rows: CollectorRows, here: Location) -> None:
        self._state = state
        self._rows = rows
        self._here = here

    def summary(self, job_key: str = "", limit: int | None = None) -> dict[str, Any]:
        """Return the summary with at most `limit` entries in each list. If `job_key` is given, list only that job."""
        if job_key:
            return summarise(self._facts(), self._lists_of(job_key), limit_bytes=MOST_RECORD_BYTES)
        rows = self._rows
        lists = Lists(
            pending_jobs=(entry for _, entry in islice(self.listed("pending_jobs", ""), limit)),
            results=islice(rows.records("result"), limit),
            failures=islice(rows.records("failure"), limit),
            duplicate_reports=(entry for _, entry in islice(rows.duplicates(), limit)),
            unexpected_reports=(entry for _, entry in islice(rows.unexpected(), limit)),
            jobs=islice(rows.metadata(), limit),
        )
        return summarise(self._facts(), lists)

    def reasons(self) -> dict[str, Any]:
        """Return the summary with the reasons in place of its lists, each with the number of its jobs."""
        pending = [self._pending_reason(each) for each in self._rows.pending_reasons(MOST_REASONS)]
        failures = [_failure_reason(each) for each in self._rows.failure_reasons(MOST_REASONS)]
        lacking = {
            "pending_reasons": self._state.pending_count - sum(each["count"] for each in pending),
            "failure_reasons": self._state.failed_count - sum(each["count"] for each in failures),
        }
        return {
            **{name: value for name, value in self.summary(limit=0).items() if name not in SUMMARY_LISTS},
            "cancelled_count": self._rows.causes().get("cancelled", 0),
            "pending_reasons": pending,
            "failure_reasons": failures,
            "left_out": {name: count for name, count in lacking.items() if count > 0},
        }

    def _pending_reason(self, found: Tally) -> dict[str, Any]:
        values = found.values
        if values[0] is None:  # No host has reported a copy.
            values = ("PLACING", self._state.home_host_name, *NO_COPY_SEEN, False)
        names = ("status", "host_name", "reason", "reason_text", "never")
        return {**dict(zip(names, values, strict=True)), "count": found.count, "job_key": found.first}

    def listed(self, name: str, after: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the entries of the list `name` (one of LISTS) after the row `after`, each as (its `after`, entry)."""
        if name == "pending_jobs":
            home = self._state.home_host_name
            # With this limit, a scan from the first key ends at the last pending key and reads no ended keys after it.
            pending = islice(self._rows.pending(after), self._state.pending_count)
            return ((key, pending_entry(key, job, home)) for key, job in pending)
        if name == "jobs":
            return ((key, {"job_key": key, "metadata": row}) for key, row in self._rows.metadata(after))
        return self._rows.duplicates(after) if name == "duplicate_reports" else self._rows.unexpected(after)

    def ended(self, after: int, brief: bool) -> Iterator[dict[str, Any]]:
        """Yield the records with a number over `after`, in their order. `brief` leaves out the fields LONG."""
        for number, key in self._rows.ended_after(after):
            kind, record = self._rows.record(key)
            shown = {name: value for name, value in record.items() if name not in LONG} if brief else record
            yield {"number": number, "job_key": key, kind: shown}

    def _facts(self) -> Facts:
        state = self._state
        return Facts(
            group_id=state.group_id,
            status=state.status,
            collector=self._here,
            home=Location(host_name=state.home_host_name, host_url=state.home_host_url, agent_id=state.submitter_id),
            return_home_when_complete=state.return_home_when_complete,
            waiting_for_home=state.status == "WAITING_FOR_HOME",
            expected_count=state.expected_count,
            completed_count=state.completed_count,
            failed_count=state.failed_count,
            duplicate_count=state.duplicate_count,
            unexpected_count=state.unexpected_count,
            metadata_count=state.metadata_count,
            created_at=state.created_at,
            completed_at=state.completed_at,
            last_report_at=state.last_report_at,
        )

    def _lists_of(self, key: str) -> Lists:
        """Return the lists of a summary of one key."""
        rows = self._rows
        job = rows.job(key)
        pending = [] if job is None or job.ended else [pending_entry(key, job, self._state.home_host_name)]
        return Lists(
            pending_jobs=pending,
            results=rows.records_of(key, "result"),
            failures=rows.records_of(key, "failure"),
            duplicate_reports=(),
            unexpected_reports=(),
            jobs=rows.metadata_of(key),
        )


def _failure_reason(found: Tally) -> dict[str, Any]:
    return {**dict(zip(FAILURE_FIELDS, found.values, strict=True)), "count": found.count, "job_key": found.first}
