"""The summary of a group, and pages of its records. Both have a maximum size in bytes.

Entries come from iterators, which are read only until the size is reached. So the summary of a huge group reads few
more rows than it shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from paglets.groups.records import NO_COPY_SEEN, ExpectedJob

MAX_SUMMARY_BYTES = 16 << 20
MAX_PAGE_BYTES = 8 << 20
MAX_PAGE_ENTRIES = 1000

_HEAD_BYTES = 16 << 10
"""Number of bytes reserved for the parts of a summary that are not lists: ids, names, URLs, counts."""

_SHARES = {
    "failures": 4 << 20,
    "pending_jobs": 4 << 20,
    "duplicate_reports": 1 << 20,
    "unexpected_reports": 1 << 20,
    "jobs": 1 << 20,
}
"""Maximum size of each list in a summary of 16 MiB. The list `results` gets the remaining space."""

MAX_SKIPPED = 10
"""Maximum number of entries of a list that are skipped as too large. Reading each of them takes time."""

Entry = tuple[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """The host of a collector, or its home. `agent_id`: of the collector; at home, of the submitting paglet or None."""

    host_name: str
    host_url: str
    agent_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The parts of a summary that are not lists. Times are in seconds since the epoch."""

    group_id: str
    status: str
    collector: Location
    home: Location
    return_home_when_complete: bool
    waiting_for_home: bool
    expected_count: int
    completed_count: int
    failed_count: int
    duplicate_count: int = 0
    unexpected_count: int = 0
    metadata_count: int = 0
    created_at: float
    completed_at: float | None
    last_report_at: float | None

    @property
    def pending_count(self) -> int:
        return self.expected_count - self.completed_count - self.failed_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """The lists of a summary, sorted by job key. `duplicate_reports` are in the order of arrival."""

    pending_jobs: Iterable[dict[str, Any]]
    results: Iterable[Entry]
    failures: Iterable[Entry]
    duplicate_reports: Iterable[dict[str, Any]]
    unexpected_reports: Iterable[dict[str, Any]]
    jobs: Iterable[Entry] = ()


def json_bytes(value: Any) -> int:
    """Return the size in bytes of the value as compact JSON, followed by a comma.

    The size is exact for JSON values. For decoded values, which a collector in its own process has, it is an estimate:
    bytes count as base64, other values as their `repr`.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_stand_in, skipkeys=True)
    return len(text.encode("utf-8", "surrogatepass")) + 1


def _stand_in(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "x" * (len(value) * 4 // 3 + 32)
    if isinstance(value, (set, frozenset)):
        return [repr(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    size = getattr(type(value), "nbytes", None)
    # The repr of a large array is abbreviated, so its length would be too small.
    return repr(value) if size is None else "x" * (value.nbytes * 4 // 3 + 64)


class _Budget:
    """The number of bytes that are left for a summary. `cut`: True if an item did not fit."""

    def __init__(self, total: int) -> None:
        self.left = total
        self.cut = False

    def take(self, items: Iterable[Any], most: int) -> list[Any]:
        """Return the first items that fit into `most` bytes and into the bytes that are left.

        Up to MAX_SKIPPED items that alone exceed the limit are skipped, so that a huge result does not hide the others.
        """
        taken: list[Any] = []
        room = whole = min(most, self.left)
        skipped = 0
        for item in items:
            size = json_bytes(item)
            if size > whole and skipped < MAX_SKIPPED:
                self.cut = True
                skipped += 1
                continue
            if size > room:
                self.cut = True
                break
            taken.append(item)
            room -= size
            self.left -= size
        return taken


def summarise(facts: Facts, lists: Lists, *, limit_bytes: int = MAX_SUMMARY_BYTES) -> dict[str, Any]:
    """Return the summary as a dict. User values are in it as they are stored.

    Counts are always exact. If the summary would exceed `limit_bytes`, its lists are cut, `truncated` is True, and
    `left_out` has the number of missing entries of each list.
    """
    budget = _Budget(max(0, limit_bytes - _HEAD_BYTES))
    scale = limit_bytes / MAX_SUMMARY_BYTES

    def part(name: str, items: Iterable[Any]) -> list[Any]:
        return budget.take(items, int(_SHARES[name] * scale))

    failures = part("failures", lists.failures)
    pending = part("pending_jobs", lists.pending_jobs)
    duplicates = part("duplicate_reports", lists.duplicate_reports)
    unexpected = part("unexpected_reports", lists.unexpected_reports)
    jobs = part("jobs", lists.jobs)
    results = budget.take(lists.results, budget.left)
    lacking = {
        "pending_jobs": facts.pending_count - len(pending),
        "results": facts.completed_count - len(results),
        "failures": facts.failed_count - len(failures),
        "duplicate_reports": facts.duplicate_count - len(duplicates),
        "unexpected_reports": facts.unexpected_count - len(unexpected),
        "jobs": facts.metadata_count - len(jobs),
    }
    left_out = {name: count for name, count in lacking.items() if count > 0}
    return {
        "group_id": facts.group_id,
        "status": facts.status,
        "collector": _place(facts.collector),
        "home": _place(facts.home),
        "return_home_when_complete": facts.return_home_when_complete,
        "waiting_for_home": facts.waiting_for_home,
        "expected_count": facts.expected_count,
        "completed_count": facts.completed_count,
        "failed_count": facts.failed_count,
        "pending_count": facts.pending_count,
        "pending_jobs": pending,
        "results": dict(results),
        "failures": dict(failures),
        "duplicate_reports": duplicates,
        "unexpected_reports": unexpected,
        "jobs": dict(jobs),
        "created_at": facts.created_at,
        "completed_at": facts.completed_at,
        "last_report_at": facts.last_report_at,
        "truncated": budget.cut or bool(left_out),
        "left_out": left_out,
    }


def _place(place: Location) -> dict[str, Any]:
    return {"host_name": place.host_name, "host_url": place.host_url, "agent_id": place.agent_id}


def pending_entry(job_key: str, job: ExpectedJob, home_name: str) -> dict[str, Any]:
    """Return an entry of `pending_jobs` from the last sighting of a job. Without one, its reason is `no_copy_seen`."""
    sighting = job.sighting
    if sighting is None:
        return {
            "job_key": job_key,
            "generation": job.generation,
            "attempt": 0,
            "status": "PLACING",
            "host_name": home_name,
            "reason": NO_COPY_SEEN[0],
            "reason_text": NO_COPY_SEEN[1],
            "never": False,
            "since": job.since,
        }
    return {
        "job_key": job_key,
        "generation": sighting.generation,
        "attempt": sighting.attempt,
        "status": sighting.status,
        "host_name": sighting.host.name,
        "reason": sighting.reason,
        "reason_text": sighting.reason_text,
        "never": sighting.never,
        "since": sighting.since,
    }


def page(entries: Iterator[Any], most_entries: int, most_bytes: int = MAX_PAGE_BYTES) -> tuple[list[Any], bool]:
    """Return the first entries within both limits, at least one if there is any, and True if there are more."""
    taken: list[Any] = []
    room = most_bytes
    for entry in entries:
        room -= json_bytes(entry)
        if len(taken) == most_entries or (room < 0 and taken):
            return taken, True
        taken.append(entry)
    return taken, False
