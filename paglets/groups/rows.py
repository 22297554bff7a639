r"""The rows in which a collector stores its records. They are small, so that a report changes only a few of them.

| key | value |
| --- | --- |
| `job/KEY` | `groups.records.ExpectedJob` |
| `meta/KEY` | the metadata that `register_jobs` got for the key |
| `result/KEY`, `failure/KEY` | the record, as in a summary |
| `warning/KEY` | the warnings of an attempt that has no record yet, and its numbers |
| `ended/NUMBER` | a job key that has ended; numbers are in the order of the ends |
| `duplicate/NUMBER` | a report that was not accepted |
| `unexpected/KEY\nNUMBER` | a report for a key that is not registered, and the ids of its artifacts |
| `template/KEY` | `groups.records.JobDescription`: the data for further copies, until the key has ended |
| `state/KEY` | the submitted state as tagged JSON, for further copies, until the key has ended |

The collector's handlers and its host (see `groups.copies`) write `job/KEY`. The host writes the rows `template/KEY` and
`state/KEY`. Numbers have ten digits, so that the rows sort by number. A job key cannot contain a line feed.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paglets.core.context import Storage
from paglets.core.errors import BadRequest, Invalid
from paglets.core.record import from_json, to_json
from paglets.groups.records import (
    ExpectedJob,
    JobDescription,
    JobWarning,
    Report,
    ReportKind,
    report_row,
    row_report,
    with_warnings,
)
from paglets.groups.tallies import Tally, TallyingStorage, tally

PAGE_ROWS = 1000
"""Number of rows to read at once, so that the rows of 100,000 jobs are never in memory together."""

PAGE_RECORDS = 50
"""Number of rows with user values to read at once, because each may have megabytes."""


PENDING_FIELDS = tuple(f"sighting.{name}" for name in ("status", "host.name", "reason", "reason_text", "never"))
"""The fields of a pending job that say why it waits. All are None for a job without a sighting."""

FAILURE_FIELDS = ("cause", "host_name", "message")
"""The fields of a failure record that say why the job failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedReport:
    """A report, the time when it arrived, and the ids of its artifacts."""

    report: Report
    reported_at: float
    artifact_ids: tuple[str, ...] = ()


def _number(number: int) -> str:
    return f"{number:010d}"


DESCRIPTIONS = "template/"
"""The prefix of the storage keys of job descriptions. Existing databases contain this older name."""

UNREADABLE = (Invalid, BadRequest)
"""The errors from reading a row that a user's subclass wrote in another format under one of these keys."""


def description_key(key: str) -> str:
    """Return the storage key of the description of a job."""
    return DESCRIPTIONS + key


def state_key(key: str) -> str:
    """Return the storage key of a job's submitted state."""
    return f"state/{key}"


def job_row_key(key: object) -> str:
    """Return the storage key of a job's row."""
    return f"job/{key}"


def keys_of_report(job_key: object) -> tuple[str, ...]:
    """Return the storage keys of the rows that a report for this key reads."""
    return job_row_key(job_key), f"warning/{job_key}"


class CollectorRows:
    """Typed access to the rows in the storage of one collector."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def job(self, key: str) -> ExpectedJob | None:
        row = self._storage.get(job_row_key(key))
        return None if row is None else from_json(ExpectedJob, row)

    def generation(self, key: str) -> int:
        """Return the newest generation of a job key; 1 if its row has none. This is faster than `job`."""
        row = self._storage.get(job_row_key(key))
        generation = row.get("generation") if isinstance(row, dict) else None
        return generation if isinstance(generation, int) else 1

    def put_job(self, key: str, job: ExpectedJob) -> None:
        self._storage[job_row_key(key)] = to_json(job)

    def jobs(self) -> Iterator[tuple[str, ExpectedJob]]:
        """Yield all job keys with their jobs, sorted by key. Rows may change during the iteration."""
        return ((key, from_json(ExpectedJob, row)) for key, row in self._scan("job/"))

    def pending(self, after: str = "") -> Iterator[tuple[str, ExpectedJob]]:
        """Yield the job keys after `after` that have not ended, with their jobs, sorted by key."""
        return ((key, from_json(ExpectedJob, row)) for key, row in self._scan("job/", after) if not row["ended"])

    def statuses(self) -> dict[str, int]:
        """Return the number of pending jobs by their last reported status, the most frequent first."""
        counts = Counter[str]()
        for each in self._tally("job/", ("sighting.status", "ended")):
            counts[each.values[0] or "PLACING"] += each.count
        return dict(counts.most_common())

    def causes(self) -> dict[str, int]:
        """Return the number of failure records by cause, the most frequent first."""
        return {each.values[0]: each.count for each in self._tally("failure/", ("cause", "ended"))}

    def pending_reasons(self, most: int) -> list[Tally]:
        """Return the `most` most frequent combinations of PENDING_FIELDS among the pending jobs."""
        return self._tally("job/", PENDING_FIELDS, most)

    def failure_reasons(self, most: int) -> list[Tally]:
        """Return the `most` most frequent combinations of FAILURE_FIELDS among the failure records."""
        return self._tally("failure/", FAILURE_FIELDS, most)

    def _tally(self, prefix: str, fields: Sequence[str], most: int = -1) -> list[Tally]:
        """Return up to `most` tallies (-1: all) of the rows with `prefix` that have not ended."""
        if isinstance(self._storage, TallyingStorage):
            return self._storage.tally(prefix, fields, "ended", most)
        found = tally(((key, row) for key, row in self._scan(prefix) if not row.get("ended")), fields)
        return found if most < 0 else found[:most]

    def put_metadata(self, key: str, metadata: Mapping[str, Any]) -> bool:
        """Store the metadata of a job key. Return True if the key had no metadata before."""
        is_new = f"meta/{key}" not in self._storage
        self._storage[f"meta/{key}"] = dict(metadata)
        return is_new

    def metadata(self, after: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the job keys after `after` that have metadata, with the metadata, sorted by key."""
        return self._scan("meta/", after, PAGE_RECORDS)

    def metadata_of(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        """Return a list with the item of `metadata` for this job key, or an empty list."""
        row = self._storage.get(f"meta/{key}")
        return [] if row is None else [(key, row)]

    def records_of(self, key: str, kind: ReportKind) -> list[tuple[str, dict[str, Any]]]:
        """Return a list with the item of `records` for this job key, or an empty list."""
        row = self._storage.get(f"{kind}/{key}")
        return [] if row is None else [(key, row)]

    def record(self, key: str) -> tuple[ReportKind, dict[str, Any]]:
        """Return the kind and the record of a job key that has ended."""
        row = self._storage.get(f"result/{key}")
        return ("failure", self._storage[f"failure/{key}"]) if row is None else ("result", row)

    def put_record(self, key: str, kind: ReportKind, record: dict[str, Any], number: int) -> None:
        """Store the record of a job key that has ended, and its position `number` in the order of the ends.

        Delete the job description and the submitted state.
        """
        self._storage[f"{kind}/{key}"] = record
        self._storage[f"ended/{_number(number)}"] = key
        self._storage.discard(DESCRIPTIONS + key)
        self._storage.discard(f"state/{key}")

    def change_record(self, key: str, kind: ReportKind, record: dict[str, Any]) -> None:
        """Replace the record of a job key that has ended."""
        self._storage[f"{kind}/{key}"] = record

    def put_warning(self, warning: JobWarning) -> None:
        """Store a warning until the record of its attempt arrives. Drop warnings of older attempts of the job."""
        known = self._storage.get(f"warning/{warning.job_key}")
        if known is not None and (known["generation"], known["attempt"]) > (warning.generation, warning.attempt):
            return
        row = known if known is not None and warning.of(known) else to_json(warning)
        self._storage[f"warning/{warning.job_key}"] = with_warnings(row, [warning.text])

    def take_warnings(self, key: str, record: Mapping[str, Any]) -> list[str]:
        """Delete the warnings of a job key. Return them if they belong to the attempt of `record`."""
        row = self._storage.get(f"warning/{key}")
        if row is None:
            return []
        del self._storage[f"warning/{key}"]
        is_same = (row["generation"], row["attempt"]) == (record["generation"], record["attempt"])
        return list(row["warnings"]) if is_same else []

    def records(self, kind: ReportKind, after: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        return self._scan(f"{kind}/", after, PAGE_RECORDS)

    def all_records(
        self, after: str = "", only: ReportKind | None = None
    ) -> Iterator[tuple[str, ReportKind, dict[str, Any]]]:
        """Yield the records of results and failures together, or the records of `only`, sorted by job key."""

        def of(kind: ReportKind) -> Iterator[tuple[str, ReportKind, dict[str, Any]]]:
            return ((key, kind, row) for key, row in self.records(kind, after))

        if only is not None:
            return of(only)
        return heapq.merge(of("result"), of("failure"), key=lambda entry: entry[0])

    def ended_after(self, number: int) -> Iterator[tuple[int, str]]:
        """Yield the job keys that ended after number `number`, each as (number, job key), in that order."""
        return ((int(key), job_key) for key, job_key in self._scan("ended/", _number(number)))

    def description(self, key: str) -> JobDescription | None:
        """Return the job description of a key; None if the key has ended or was not submitted with a group."""
        row = self._storage.get(DESCRIPTIONS + key)
        return None if row is None else from_json(JobDescription, row)

    def submitted_state(self, key: str) -> Any:
        """Return the submitted state of a job key as tagged JSON. Raises KeyError if there is none."""
        return self._storage[f"state/{key}"]

    def put_duplicate(self, number: int, entry: dict[str, Any]) -> None:
        self._storage[f"duplicate/{_number(number)}"] = entry

    def duplicates(self, after: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the duplicate reports after the row `after`, each as (row number, entry)."""
        return self._scan("duplicate/", after, PAGE_RECORDS)

    def put_unexpected(self, number: int, came: ReceivedReport) -> None:
        row = report_row(came.report) | {"reported_at": came.reported_at}
        if came.artifact_ids:
            row["artifact_ids"] = list(came.artifact_ids)
        self._storage[f"unexpected/{came.report.job_key}\n{_number(number)}"] = row

    def take_unexpected(self, key: str) -> list[ReceivedReport]:
        """Delete the unexpected reports for a job key and return them, oldest first."""
        found = list(self._scan(f"unexpected/{key}\n"))
        for number, _ in found:
            del self._storage[f"unexpected/{key}\n{number}"]
        return [
            ReceivedReport(
                report=row_report(row),
                reported_at=row["reported_at"],
                artifact_ids=tuple(row.get("artifact_ids", ())),
            )
            for _, row in found
        ]

    def unexpected(self, after: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the unexpected reports after the row `after`, each as (job key with row number, row)."""
        return self._scan("unexpected/", after, PAGE_RECORDS)

    def _scan(self, prefix: str, after: str = "", rows: int = PAGE_ROWS) -> Iterator[tuple[str, Any]]:
        """Yield the rows with `prefix` after the storage key `prefix + after`, each as (key without `prefix`, row)."""
        last = prefix + after
        while page := self._storage.scan(prefix, last, rows):
            yield from ((key[len(prefix) :], row) for key, row in page)
            if len(page) < rows:
                return
            last = page[-1][0]
