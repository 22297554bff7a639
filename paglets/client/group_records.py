"""Complete summaries of groups: lists that are too long for one reply are fetched page by page."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from paglets.core.errors import TooLarge
from paglets.core.messages import Message
from paglets.slots.amounts import bytes_text

Ask = Callable[[Message], Any]
"""A function that calls the collector and returns its reply, with values decoded or as tagged JSON."""

MOST_BYTES = 1 << 30
"""Maximum size of the records in one dict, because more may not fit into memory. For larger groups, callers use
`Submission.as_completed`, which returns the records one by one."""

ONE_BY_ONE = "iterate over submission.as_completed(), which returns them one by one"

LISTS = ("pending_jobs", "results", "failures", "duplicate_reports", "unexpected_reports", "jobs")


def whole_summary(ask: Ask, summary: dict[str, Any], lists: Collection[str] = LISTS) -> dict[str, Any]:
    """Return `summary` after fetching all entries of those `lists` that the collector did not send completely.

    Raises TooLarge if the records exceed 1 GiB.
    """
    lacking = [name for name in summary.get("left_out") or {} if name in lists]
    if not lacking:
        return summary
    # Fetch pending jobs before results. A job that ends between both requests is then in both lists, not in neither.
    others: dict[str, Any] = {name: _listed(ask, name) for name in lacking if name not in ("results", "failures")}
    if "jobs" in others:
        others["jobs"] = {entry["job_key"]: entry["metadata"] for entry in others["jobs"]}
    results, failures = all_records(ask, summary["group_id"], with_results="results" in lists)
    return _counted({**summary, **others, "results": results, "failures": failures})


def all_records(ask: Ask, group_id: str, *, with_results: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results and the failures of a group, by job key. Raises TooLarge if the records exceed 1 GiB.

    Without `with_results`, each result is None, and pages that contain only results do not count towards 1 GiB.
    """
    results: dict[str, Any] = {}
    failures: dict[str, Any] = {}
    size, after = 0, ""
    while True:
        page = ask(Message("results", {"after": after}))
        size += page.get("size_bytes", 0) if with_results or page["failures"] else 0
        if size > MOST_BYTES:
            raise TooLarge(f"the results of {group_id} exceed {bytes_text(MOST_BYTES)} in all", next=[ONE_BY_ONE])
        results.update(page["results"] if with_results else dict.fromkeys(page["results"]))
        failures.update(page["failures"])
        if page["next"] is None:
            return results, failures
        after = page["next"]


def _listed(ask: Ask, name: str) -> list[Any]:
    found: list[Any] = []
    after: str | None = ""
    while after is not None:
        page = ask(Message("listed", {"name": name, "after": after}))
        found += page["entries"]
        after = page["next"]
    return found


def _counted(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary with counts that match its lists, because jobs may have ended between two pages."""
    results, failures = summary["results"], summary["failures"]
    ended = results.keys() | failures.keys()
    pending = [job for job in summary["pending_jobs"] if job["job_key"] not in ended]
    return {
        **summary,
        "pending_jobs": pending,
        "completed_count": len(results),
        "failed_count": len(failures),
        "pending_count": len(pending),
        "expected_count": len(results) + len(failures) + len(pending),
        "truncated": False,
        "left_out": {},
    }
