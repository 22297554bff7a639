"""How a collector keeps its records in its storage: one row for each thing, so that a report costs a few.

| key | value |
| --- | --- |
| `job/KEY` | `groups.records.ExpectedJob` |
| `meta/KEY` | what `register_jobs` gave beside the key |
| `result/KEY`, `failure/KEY` | the record, as a summary shows it |
| `warning/KEY` | the warnings of an attempt that has no record yet, and which attempt it is |
| `ended/NUMBER` | the key that ended as the NUMBERth |
| `duplicate/NUMBER` | a report that was not taken |
| `unexpected/KEY\\nNUMBER` | a report for a key that is not registered, and the ids of the artifacts it came with |
| `template/KEY` | `groups.records.Template`: what a further copy of the job is made of, until the key has ended |
| `state/KEY` | the state as it was submitted, tagged JSON: read only when a further copy is made, and as long there |

`job/KEY` is written by the collector's handlers, and by its host as `groups.copies` says; the last two by its host.

Numbers have ten digits, so that their order is that of the keys. A line feed cannot be in a job key.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from paglets.core.context import Storage
from paglets.core.errors import BadRequest, Invalid
from paglets.core.record import from_json, to_json
from paglets.groups.records import (
    ExpectedJob,
    JobWarning,
    Report,
    ReportKind,
    Template,
    report_row,
    row_report,
    with_warnings,
)

PAGE_ROWS = 1000
"""Rows read at once: 100,000 jobs never are in memory together."""

PAGE_RECORDS = 50
"""Rows with users' values read at once: each may have megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedReport:
    """A report, when it came, and what came with it."""

    report: Report
    reported_at: float
    artifact_ids: tuple[str, ...] = ()


def _number(number: int) -> str:
    return f"{number:010d}"


TEMPLATES = "template/"
UNREADABLE = (Invalid, BadRequest)
"""What reading a row raises that is none of ours: a subclass of a user may have rows of these names itself."""


def template_key(key: str) -> str:
    """Return the storage key of a job's template."""
    return TEMPLATES + key


def state_key(key: str) -> str:
    """Return the storage key of the state that a job was submitted with."""
    return f"state/{key}"


class CollectorRows:
    """The rows of one collector."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def job(self, key: str) -> ExpectedJob | None:
        row = self._storage.get(f"job/{key}")
        return None if row is None else from_json(ExpectedJob, row)

    def generation(self, key: str) -> int:
        """The newest of that key; 1 where no row says so. Cheaper than `job`."""
        row = self._storage.get(f"job/{key}")
        generation = row.get("generation") if isinstance(row, dict) else None
        return generation if isinstance(generation, int) else 1

    def put_job(self, key: str, job: ExpectedJob) -> None:
        self._storage[f"job/{key}"] = to_json(job)

    def jobs(self) -> Iterator[tuple[str, ExpectedJob]]:
        """All keys in order. Rows may be changed while this is at work."""
        return ((key, from_json(ExpectedJob, row)) for key, row in self._scan("job/"))

    def pending(self, after: str = "") -> Iterator[tuple[str, ExpectedJob]]:
        """Keys beyond `after` that have not ended, in order."""
        return ((key, from_json(ExpectedJob, row)) for key, row in self._scan("job/", after) if not row["ended"])

    def statuses(self) -> Iterator[str]:
        """The status of each pending key, as its host told it last; only that is read of the rows."""
        for _, row in self._scan("job/"):
            if not row["ended"]:
                sighting = row.get("sighting")
                yield sighting["status"] if sighting else "PLACING"

    def causes(self) -> Iterator[str]:
        """The cause of each failure."""
        return (row["cause"] for _, row in self.records("failure"))

    def put_metadata(self, key: str, metadata: Mapping[str, Any]) -> bool:
        """Store what `register_jobs` gave beside the key. Return True if there was nothing of that key before."""
        is_new = f"meta/{key}" not in self._storage
        self._storage[f"meta/{key}"] = dict(metadata)
        return is_new

    def metadata(self, after: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what `register_jobs` gave beside keys, in the order of the keys."""
        return self._scan("meta/", after, PAGE_RECORDS)

    def metadata_of(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        """As `metadata`, of this key alone."""
        row = self._storage.get(f"meta/{key}")
        return [] if row is None else [(key, row)]

    def records_of(self, key: str, kind: ReportKind) -> list[tuple[str, dict[str, Any]]]:
        """As `records`, of this key alone."""
        row = self._storage.get(f"{kind}/{key}")
        return [] if row is None else [(key, row)]

    def record(self, key: str) -> tuple[ReportKind, dict[str, Any]]:
        """The record of a key that has ended, and which kind it is."""
        row = self._storage.get(f"result/{key}")
        return ("failure", self._storage[f"failure/{key}"]) if row is None else ("result", row)

    def put_record(self, key: str, kind: ReportKind, record: dict[str, Any], number: int) -> None:
        """The record of a key, which is the `number`th to end."""
        self._storage[f"{kind}/{key}"] = record
        self._storage[f"ended/{_number(number)}"] = key
        self._storage.discard(TEMPLATES + key)
        self._storage.discard(f"state/{key}")

    def change_record(self, key: str, kind: ReportKind, record: dict[str, Any]) -> None:
        """Replace the record of a key that has ended."""
        self._storage[f"{kind}/{key}"] = record

    def put_warning(self, warning: JobWarning) -> None:
        """Keep a warning until the record of its attempt is there. Warnings of older attempts are dropped."""
        known = self._storage.get(f"warning/{warning.job_key}")
        if known is not None and (known["generation"], known["attempt"]) > (warning.generation, warning.attempt):
            return
        row = known if known is not None and warning.of(known) else to_json(warning)
        self._storage[f"warning/{warning.job_key}"] = with_warnings(row, [warning.text])

    def take_warnings(self, key: str, record: Mapping[str, Any]) -> list[str]:
        """Delete the warnings of that key and return those of the attempt that `record` is of."""
        row = self._storage.get(f"warning/{key}")
        if row is None:
            return []
        del self._storage[f"warning/{key}"]
        is_same = (row["generation"], row["attempt"]) == (record["generation"], record["attempt"])
        return list(row["warnings"]) if is_same else []

    def records(self, kind: ReportKind, after: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        return self._scan(f"{kind}/", after, PAGE_RECORDS)

    def all_records(self, after: str = "") -> Iterator[tuple[str, ReportKind, dict[str, Any]]]:
        """Results and failures together, in the order of their keys."""

        def of(kind: ReportKind) -> Iterator[tuple[str, ReportKind, dict[str, Any]]]:
            return ((key, kind, row) for key, row in self.records(kind, after))

        return heapq.merge(of("result"), of("failure"), key=lambda entry: entry[0])

    def ended_after(self, number: int) -> Iterator[tuple[int, str]]:
        """(number, key) of the keys that ended after the `number`th, in that order."""
        return ((int(key), job_key) for key, job_key in self._scan("ended/", _number(number)))

    def template(self, key: str) -> Template | None:
        """None where the key has ended, or no group was submitted with it."""
        row = self._storage.get(TEMPLATES + key)
        return None if row is None else from_json(Template, row)

    def submitted_state(self, key: str) -> Any:
        """Of a key with a template. Raises KeyError."""
        return self._storage[f"state/{key}"]

    def put_duplicate(self, number: int, entry: dict[str, Any]) -> None:
        self._storage[f"duplicate/{_number(number)}"] = entry

    def duplicates(self, after: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Each with the name of its row, from the one after `after`."""
        return self._scan("duplicate/", after, PAGE_RECORDS)

    def put_unexpected(self, number: int, came: ReceivedReport) -> None:
        row = report_row(came.report) | {"reported_at": came.reported_at}
        if came.artifact_ids:
            row["artifact_ids"] = list(came.artifact_ids)
        self._storage[f"unexpected/{came.report.job_key}\n{_number(number)}"] = row

    def take_unexpected(self, key: str) -> list[ReceivedReport]:
        """The reports for that key, oldest first; their rows are deleted."""
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
        """Each with the name of its row, from the one after `after`."""
        return self._scan("unexpected/", after, PAGE_RECORDS)

    def _scan(self, prefix: str, after: str = "", rows: int = PAGE_ROWS) -> Iterator[tuple[str, Any]]:
        """Rows of that prefix beyond `prefix + after`, in order, their keys without it."""
        last = prefix + after
        while page := self._storage.scan(prefix, last, rows):
            yield from ((key[len(prefix) :], row) for key, row in page)
            if len(page) < rows:
                return
            last = page[-1][0]
