"""Complete summaries of groups: lists that are too long for one reply are fetched page by page."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from paglets.core.errors import TooLarge
from paglets.core.messages import Message
from paglets.groups.records import ReportKind
from paglets.slots.amounts import bytes_text

Ask = Callable[[Message], Any]
"""A function that calls the collector and returns its reply, with values decoded or as tagged JSON."""

MOST_BYTES = 1 << 30
"""Maximum size of the records in one dict, because more may not fit into memory. For larger groups, callers use
`Submission.as_completed`, which returns the records one by one."""

ONE_BY_ONE = "iterate over submission.as_completed(), which returns them one by one"

RECORDS: dict[str, ReportKind] = {"results": "result", "failures": "failure"}
"""The lists of records in a summary, and the kind of their records."""

LISTS = ("pending_jobs", "results", "failures", "duplicate_reports", "unexpected_reports", "jobs")


def whole_summary(ask: Ask, summary: dict[str, Any], lists: Collection[str] = LISTS) -> dict[str, Any]:
    """Return `summary` after fetching all entries of those `lists` that the collector did not send completely.

    Raises TooLarge if the records exceed 1 GiB.
    """
    left_out = summary.get("left_out") or {}
    lacking = [name for name in left_out if name in lists]
    if not lacking:
        return summary
    whole = {**summary, "left_out": {name: count for name, count in left_out.items() if name not in lacking}}
    # Fetch pending jobs before records. A job that ends between both requests is then in both lists, not in neither.
    whole |= {name: _listed(ask, name) for name in lacking if name not in RECORDS}
    if "jobs" in lacking:
        whole["jobs"] = {entry["job_key"]: entry["metadata"] for entry in whole["jobs"]}
    if "pending_jobs" in lacking:
        whole |= _with_ended(ask, summary)
    kinds: list[ReportKind] = [kind for name, kind in RECORDS.items() if name in lacking]
    if kinds:
        results, failures = all_records(ask, summary["group_id"], kinds[0] if len(kinds) == 1 else None)
        whole |= {"results": results} if "result" in kinds else {}
        whole |= {"failures": failures} if "failure" in kinds else {}
    return _counted(whole)


def all_records(ask: Ask, group_id: str, kind: ReportKind | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results and the failures of a group, by job key. Raises TooLarge if the records exceed 1 GiB.

    With `kind`, fetch only the records of that kind. The other dict is then empty.
    """
    results: dict[str, Any] = {}
    failures: dict[str, Any] = {}
    size, after = 0, ""
    while True:
        page = ask(Message("results", {"after": after, "kind": kind}))
        size += page.get("size_bytes", 0)
        if size > MOST_BYTES:
            raise TooLarge(f"the results of {group_id} exceed {bytes_text(MOST_BYTES)} in all", next=[ONE_BY_ONE])
        results.update(page["results"])
        failures.update(page["failures"])
        if page["next"] is None:
            return results, failures
        after = page["next"]


def _with_ended(ask: Ask, summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the `results` and `failures` of the summary, with those of the jobs that have ended since."""
    records = {name: dict(summary[name]) for name in RECORDS}
    after, until = summary["completed_count"] + summary["failed_count"], None
    while until is None or after < until:
        page = ask(Message("ended", {"after": after}))
        if not page["ended"]:
            break
        for entry in page["ended"]:
            for name, kind in RECORDS.items():
                records[name] |= {entry["job_key"]: entry[kind]} if kind in entry else {}
        # Jobs that end after the first page are still in the list of pending jobs.
        until = until or page["expected_count"] - page["pending_count"]
        after = page["next"]
    return records


def _listed(ask: Ask, name: str) -> list[Any]:
    found: list[Any] = []
    after: str | None = ""
    while after is not None:
        page = ask(Message("listed", {"name": name, "after": after}))
        found += page["entries"]
        after = page["next"]
    return found


def _counted(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary with counts that match its lists, because jobs may have ended between two pages.

    `left_out` has the number of missing entries of each list that is not complete.
    """
    left_out = summary["left_out"]
    ended = summary["results"].keys() | summary["failures"].keys()
    pending = [job for job in summary["pending_jobs"] if job["job_key"] not in ended]
    completed, failed = (len(summary[name]) + left_out.get(name, 0) for name in RECORDS)
    waiting = len(pending)
    if "pending_jobs" in left_out:
        waiting = max(waiting, summary["expected_count"] - completed - failed)
        left_out = {**left_out, "pending_jobs": waiting - len(pending)}
    return {
        **summary,
        "pending_jobs": pending,
        "completed_count": completed,
        "failed_count": failed,
        "pending_count": waiting,
        "expected_count": completed + failed + waiting,
        "truncated": any(left_out.values()),
        "left_out": {name: count for name, count in left_out.items() if count},
    }
