"""The lines of `paglets jobs list`."""

from __future__ import annotations

from typing import Any

import pytest

from paglets.api.slots import JobView, Slots
from paglets.cli.commands.jobs.list import HEADERS, count_omitted, entries, row_of
from paglets.cli.commands.jobs.parser import STATUSES
from paglets.cli.main import main
from paglets.core.refs import HostRef
from paglets.slots.model import Resources

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


def view(key: str, status: str) -> JobView:
    return JobView(
        agent_id=f"id-{key}",
        group_id="g",
        job_key=key,
        generation=1,
        attempt=0,
        status=status,
        residence="here",
        reason="",
        reason_text="",
        never=False,
        waited_seconds=1.0,
        running_seconds=0.0,
        request={},
    )


@pytest.mark.parametrize(("status", "count"), [(None, 5), ("running", 0), ("waiting", 5)])
def test_jobs_beyond_the_limit_are_counted_by_status(status: str | None, count: int) -> None:
    """Jobs without a host, which are neither running nor queued, count, too."""
    none = Resources()
    slots = Slots(
        host=HostRef(store_id="s", name="w1", url="http://w1:8765"),
        capacity=none,
        free=none,
        tags=(),
        queued_jobs=0,
        running_jobs=1,
        all_jobs=7,
        jobs=(view("a", "RUNNING"), view("b", "PLACING")),
    )
    assert count_omitted(slots, status) == count


@pytest.mark.parametrize("command", ["jobs list", "jobs history g", "jobs top", "notes"])
def test_a_limit_below_one_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--limit", "-1"]) == 2
    assert "'-1' is not a positive whole number" in capsys.readouterr().err
