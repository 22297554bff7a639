"""A line for each job of a group."""

from __future__ import annotations

from typing import Any

from paglets.cli.joblist import HEADERS, entries, row_of
from paglets.cli.jobs import STATUSES

NOW = 1000.0


def pending(key: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "job_key": key,
        "status": status,
        "host_name": "w1",
        "generation": 1,
        "attempt": 1,
        "since": NOW - 12,
        "reason": "",
        "reason_text": "",
        "never": False,
        **more,
    }


def ended(**more: Any) -> dict[str, Any]:
    return {"host_name": "w2", "generation": 1, "attempt": 2, "runtime_seconds": 3.0, "reported_at": NOW, **more}


SUMMARY = {
    "pending_jobs": [
        pending("b", "WAITING_FOR_SLOT", reason_text="2 cores asked, 1 free"),
        pending("c", "RUNNING"),
        pending("d", "PLACING"),
    ],
    "failures": {
        "e": ended(cause="cancelled", message="cancelled: by ann"),
        "f": ended(cause="exception", message="ValueError: bad"),
    },
    "results": {"a": ended(result={"mean": 0.5}), "g": ended(result={})},
}


def test_what_runs_comes_first_and_what_is_done_last() -> None:
    found = [(entry["job_key"], entry["status"]) for entry in entries(SUMMARY)]
    running, waiting = [("c", "running")], [("b", "waiting"), ("d", "waiting")]
    assert found == [*running, *waiting, ("f", "failed"), ("e", "cancelled"), ("a", "done"), ("g", "done")]
    assert {status for _, status in found} == set(STATUSES)


def test_a_line_says_where_a_job_is_since_when_and_what_came_of_it() -> None:
    rows = {str(row[0]): row for row in (row_of(entry, NOW, {}) for entry in entries(SUMMARY))}
    assert len(rows["a"]) == len(HEADERS)
    assert rows["c"] == ("c", "running", "w1", "1", "12 s", "")
    assert rows["b"][-1] == "2 cores asked, 1 free"
    assert rows["a"] == ("a", "done", "w2", "2", "3.0 s", '{"mean": 0.5}')
    assert rows["f"] == ("f", "failed", "w2", "2", "3.0 s", "exception: ValueError: bad")
    assert rows["e"][-1] == "by ann"
