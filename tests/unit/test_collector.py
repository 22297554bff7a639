"""The collector over a storage in memory: raw as in a host's transaction, and decoded as in a child."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from test_groups import SUMMARY_FIELDS

from paglets.client.group_records import all_records, whole_summary
from paglets.codec.tagged_json import decode_state, encode_state
from paglets.core.errors import Invalid, NotHandled, TimedOut, TooLarge
from paglets.core.messages import Message
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef, HostRef, ProxyRef
from paglets.groups import copies
from paglets.groups.records import MAX_WARNING_CHARACTERS, MAX_WARNINGS, Sighting
from paglets.groups.rows import CollectorRows
from paglets.system.collector import (
    KINDS,
    SMALL_GROUP_JOBS,
    SMALL_SUMMARY_BYTES,
    ResultCollectorPaglet,
    ResultCollectorState,
)
from paglets.system.collector_views import MOST_REASONS
from tests.fakes.collector import FakeCollectorContext, Parked

HOME = HostRef(store_id="s-home", name="laptop", url="http://laptop:8765")
AWAY = HostRef(store_id="s-away", name="w1", url="http://w1:8765")
THIRD = HostRef(store_id="s-third", name="w2", url="http://w2:8765")


def collector(host: HostRef = AWAY, *, decoded: bool = False) -> FakeCollectorContext:
    context = FakeCollectorContext(host, decoded=decoded)
    context.paglet = ResultCollectorPaglet(ResultCollectorState(), context)  # type: ignore[arg-type]
    return context


def begun(*keys: str, host: HostRef = AWAY, decoded: bool = False, **more: Any) -> FakeCollectorContext:
    context = collector(host, decoded=decoded)
    context.send("begin", begin_args(*keys, **more))
    return context


def begin_args(*keys: str, **more: Any) -> dict[str, Any]:
    jobs = [{"job_key": key} for key in keys]
    return {"group_id": "g1", "home": to_json(HOME), "created_at": 5.0, "jobs": jobs} | more


def state(context: FakeCollectorContext) -> ResultCollectorState:
    assert context.paglet is not None
    kept = context.paglet.state
    assert isinstance(kept, ResultCollectorState)
    return kept


def result(context: FakeCollectorContext, key: str, value: Any = None, **more: Any) -> Any:
    return context.send("job_result", {"job_key": key, "result": value} | more)


def failure(context: FakeCollectorContext, key: str, cause: str = "exception", **more: Any) -> Any:
    return context.send("job_failure", {"job_key": key, "cause": cause} | more)


def copy_of(key: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """A key, and the sighting of a copy of it."""
    fields: dict[str, Any] = {
        "agent_id": f"agent-{key}",
        "generation": 1,
        "attempt": 0,
        "epoch": 1,
        "status": "WAITING_FOR_SLOT",
        "residence": "here",
        "reason": "slots_busy",
        "reason_text": "2 cores asked, 0 free",
        "never": False,
    }
    return key, fields | more


def census(
    context: FakeCollectorContext, *copies_told: tuple[str, dict[str, Any]], host: HostRef = THIRD
) -> dict[str, str]:
    """Store sightings that `host` reported; return the causes to cancel copies, by key."""
    rows = CollectorRows(context.storage)
    told = [(key, Sighting(host=host, since=context.now, **fields)) for key, fields in copies_told]
    return {key: cause for key, sighting in told if (cause := copies.record_sighting(rows, key, sighting)) is not None}


def lose(context: FakeCollectorContext, *keys: str) -> None:
    """Lose the newest copies of these keys, and resubmit the keys that have not ended."""
    rows = CollectorRows(context.storage)
    for key in keys:
        job = rows.job(key)
        if job is not None and not job.ended:
            rows.put_job(key, copies.resubmitted(job, f"next-{key}", AWAY, "w2 is lost", context.now))


# From beginning to end.


def test_a_new_group_expects_its_keys() -> None:
    context = begun("b", "a")
    summary = context.send("summary")
    assert list(summary) == SUMMARY_FIELDS
    assert (summary["status"], summary["expected_count"], summary["pending_count"]) == ("ACTIVE", 2, 2)
    assert [job["job_key"] for job in summary["pending_jobs"]] == ["a", "b"]
    assert summary["pending_jobs"][0]["reason"] == "no_copy_seen"
    assert summary["collector"] == {"host_name": "w1", "host_url": "http://w1:8765", "agent_id": "collector-1"}
    assert summary["home"] == {"host_name": "laptop", "host_url": "http://laptop:8765", "agent_id": None}
    assert (summary["created_at"], summary["completed_at"], summary["last_report_at"]) == (5.0, None, None)


def test_a_group_without_jobs_is_complete_at_once() -> None:
    assert begun(host=HOME).send("summary")["status"] == "COMPLETE"


def test_beginning_twice_changes_nothing_and_another_group_is_refused() -> None:
    context = begun("a")
    before = (dict(context.storage), encode_state(state(context)))
    context.send("begin", begin_args("a"))
    assert (dict(context.storage), encode_state(state(context))) == before
    with pytest.raises(Invalid, match="g1"):
        context.send("begin", begin_args("a", group_id="g2"))


def test_results_and_failures_are_kept_as_they_came() -> None:
    context = begun("a", "b")
    context.now = 50.0
    value = {"$bytes": "AAAA"}
    assert result(context, "a", value, attempt=1, host_name="w2", runtime_seconds=1.5)["accepted"]
    texts = {"message": "m", "traceback": "t", "stderr_tail": "e"}
    assert failure(context, "b", "exit:3", attempt=2, host_name="w3", **texts)["accepted"]
    summary = context.send("summary")
    assert summary["results"] == {
        "a": {
            "result": value,
            "host_name": "w2",
            "generation": 1,
            "attempt": 1,
            "reported_at": 50.0,
            "runtime_seconds": 1.5,
        }
    }
    assert summary["failures"] == {
        "b": {"cause": "exit:3", **texts, "host_name": "w3", "generation": 1, "attempt": 2, "reported_at": 50.0}
    }
    assert (summary["completed_count"], summary["failed_count"], summary["pending_count"]) == (1, 1, 0)
    assert (summary["status"], summary["completed_at"], summary["last_report_at"]) == ("COMPLETE", 50.0, 50.0)


def test_decoded_values_go_through_untouched() -> None:
    context = begun("a", "b", decoded=True)
    value = {"data": b"\x00", "pair": (1, 2), "path": PurePosixPath("/x"), "set": {3}, 4: 5}
    result(context, "a", value)
    result(context, "a", value)
    result(context, "c", value)
    summary = context.send("summary")
    assert summary["results"]["a"]["result"] == value
    assert summary["duplicate_reports"][0]["result"] == value
    assert summary["unexpected_reports"][0]["result"] == value
    context.send("register_jobs", {"jobs": ({"job_key": "c", "when": (1, 2)},)})
    assert context.send("results")["results"]["c"]["result"] == value


def test_creation_failures_are_failures_from_the_start() -> None:
    failures = [{"job_key": "bad", "cause": "invalid", "message": "cpu_cores is -1"}]
    context = begun("bad", "good", failures=failures)
    summary = context.send("summary")
    assert summary["failures"]["bad"]["cause"] == "invalid"
    assert summary["failures"]["bad"]["host_name"] == "laptop"
    assert (summary["expected_count"], summary["pending_count"]) == (2, 1)


def test_a_report_that_names_no_host_has_that_of_its_sender() -> None:
    context = begun("a")
    sender = ProxyRef(agent_id="job", host=THIRD)
    context.send("job_result", {"job_key": "a", "result": 1}, sender)
    assert context.send("summary")["results"]["a"]["host_name"] == "w2"


def test_a_second_report_is_a_duplicate_and_changes_nothing() -> None:
    context = begun("a", "b")
    result(context, "a", 1)
    assert result(context, "a", {"x": 2, "artifact": {"name": "f"}}) == {
        "accepted": False,
        "verdict": "already_recorded",
    }
    failure(context, "a")
    summary = context.send("summary")
    assert summary["results"]["a"]["result"] == 1
    assert summary["failures"] == {}
    assert [(entry["kind"], entry["why"]) for entry in summary["duplicate_reports"]] == [
        ("result", "already_recorded"),
        ("failure", "already_recorded"),
    ]
    assert summary["duplicate_reports"][0]["result"] == {"x": 2}
    assert summary["pending_count"] == 1


def test_a_lost_copy_may_still_succeed_but_not_fail() -> None:
    context = begun("a", "b")
    lose(context, "a", "b")
    assert failure(context, "a", generation=1)["verdict"] == "not_newest"
    assert result(context, "a", "late", generation=1)["accepted"]
    assert failure(context, "b", generation=2)["accepted"]


def test_an_unexpected_report_is_taken_when_its_key_is_registered() -> None:
    context = begun("a")
    assert result(context, "late", 1)["verdict"] == "unexpected"
    assert result(context, "late", 2)["verdict"] == "unexpected"
    assert result(context, "late-2", 3)["verdict"] == "unexpected"
    result(context, "a")
    assert context.send("summary")["status"] == "COMPLETE"
    assert context.send("register_jobs", {"jobs": [{"job_key": "late"}]})["registered"] == 1
    summary = context.send("summary")
    assert summary["results"]["late"]["result"] == 1
    assert [entry["result"] for entry in summary["duplicate_reports"]] == [2]
    assert [entry["job_key"] for entry in summary["unexpected_reports"]] == ["late-2"]
    assert (summary["status"], summary["expected_count"]) == ("COMPLETE", 2)


def test_a_new_key_makes_an_ended_group_active_again() -> None:
    context = begun("a")
    result(context, "a")
    reply = context.send("register_jobs", {"jobs": [{"job_key": "a"}, {"job_key": "b", "note": "x"}]})
    assert (reply["registered"], reply["known"], reply["status"]) == (1, 1, "ACTIVE")
    assert context.send("summary")["completed_at"] is None
    assert context.send("summary")["jobs"] == {"b": {"note": "x"}}
    assert context.send("register_jobs", {"jobs": [{"job_key": "a"}]})["registered"] == 0


def test_a_tagged_tuple_of_jobs_is_a_list_of_jobs() -> None:
    context = begun()
    assert context.send("register_jobs", {"jobs": {"$tuple": [{"job_key": "b"}]}})["registered"] == 1


@pytest.mark.parametrize(
    ("kind", "args", "field"),
    [
        ("register_jobs", {}, "jobs"),
        ("register_jobs", {"jobs": [{"job_key": "x"}, {}]}, r"jobs\[1\].job_key"),
        ("register_jobs", {"jobs": [{"job_key": "x"}, {"job_key": "x"}]}, "twice"),
        ("register_jobs", {"jobs": [{"job_key": "x", "generation": 0}]}, "generation"),
        ("register_jobs", {"jobs": ["x"]}, "object"),
        ("job_result", {"job_key": "a", "attempt": "1"}, "attempt"),
        ("job_failure", {"job_key": "a"}, "cause"),
        ("cancel", {"job_keys": "a"}, "job_keys"),
        ("summary", {"verbose": True}, "verbose"),
        ("results", {"limit": 0}, "limit"),
        ("ended", {"after": "x"}, "after"),
    ],
)
def test_wrong_arguments_name_the_field(kind: str, args: dict[str, Any], field: str) -> None:
    context = begun("a")
    with pytest.raises(Invalid, match=field):
        context.send(kind, args)


def warning(context: FakeCollectorContext, key: str, text: str, attempt: int = 1) -> None:
    context.send("job_warning", {"job_key": key, "generation": 1, "attempt": attempt, "text": text})


def warnings_of(context: FakeCollectorContext, key: str) -> list[str]:
    found: list[str] = context.send("summary")["results"][key].get("warnings", [])
    return found


@pytest.mark.parametrize("decoded", [True, False])
@pytest.mark.parametrize("comes_first", [True, False])
def test_a_warning_is_in_the_record_of_its_attempt_whichever_comes_first(comes_first: bool, decoded: bool) -> None:
    context = begun("a", "b", decoded=decoded)
    acts = [lambda: warning(context, "a", "odd"), lambda: result(context, "a", attempt=1)]
    for act in acts if comes_first else reversed(acts):
        act()
    assert warnings_of(context, "a") == ["odd"]
    assert not [key for key in context.storage if key.startswith("warning/")]


def test_a_warning_of_another_attempt_or_an_unknown_key_is_dropped() -> None:
    context = begun("a")
    warning(context, "a", "of the first", attempt=1)
    warning(context, "a", "of the second", attempt=2)
    warning(context, "nobody", "of none")
    result(context, "a", attempt=2)
    warning(context, "a", "of the first", attempt=1)
    assert warnings_of(context, "a") == ["of the second"]


def test_a_late_warning_of_an_older_attempt_does_not_replace_that_of_a_newer_one() -> None:
    context = begun("a")
    warning(context, "a", "of the second", attempt=2)
    warning(context, "a", "of the first", attempt=1)
    result(context, "a", attempt=2)
    assert warnings_of(context, "a") == ["of the second"]


def test_nothing_is_kept_of_warnings_of_an_earlier_submission_or_a_cancelled_key() -> None:
    context = begun("a", "b", first_generation=1001)
    warning(context, "a", "of the group before")
    context.send("job_warning", {"job_key": "b", "generation": 1001, "attempt": 1, "text": "odd"})
    context.send("cancel")
    assert not [key for key in context.storage if key.startswith("warning/")]


def test_warnings_are_bounded_and_each_is_kept_once() -> None:
    context = begun("a")
    result(context, "a", attempt=1)
    for number in range(2 * MAX_WARNINGS):
        warning(context, "a", f"{number}" + "x" * 1000)
        warning(context, "a", f"{number}" + "x" * 1000)
    kept = warnings_of(context, "a")
    assert len(kept) == MAX_WARNINGS
    assert max(map(len, kept)) == MAX_WARNING_CHARACTERS


def test_an_unknown_kind_is_not_handled() -> None:
    for kind in ("nonsense", "handle_message", "_summary", "state"):
        with pytest.raises(NotHandled):
            begun("a").send(kind)


def test_every_kind_has_a_method_that_a_subclass_may_override() -> None:
    class Loud(ResultCollectorPaglet):
        def summary(self, message: Any) -> dict[str, Any]:
            return super().summary(message) | {"loud": True}

    context = begun("a")
    context.paglet = Loud(state(context), context)  # type: ignore[arg-type]
    assert context.send("summary")["loud"]
    assert all(callable(getattr(ResultCollectorPaglet, kind)) for kind in KINDS)


def test_a_collector_made_by_hand_takes_its_home_from_where_it_is() -> None:
    context = collector(THIRD)
    assert context.paglet is not None
    context.paglet.on_creation()
    context.send("register_jobs", {"jobs": [{"job_key": "a"}]})
    result(context, "a")
    summary = context.send("summary")
    assert (summary["group_id"], summary["home"]["host_name"], summary["status"]) == ("collector-1", "w2", "COMPLETE")


def test_the_state_is_plain_json() -> None:
    context = begun("a", "b", return_home_when_complete=True)
    result(context, "a")
    tree = encode_state(state(context))
    assert all(value is None or isinstance(value, (str, int, float, bool)) for value in tree.values())
    assert decode_state(ResultCollectorState, tree) == state(context)


# Artifacts.


def artifact_of(key: str) -> ArtifactRef:
    return ArtifactRef(
        artifact_id=f"art-{key:0>8}",
        name="rows.db",
        size_bytes=4,
        sha256="0" * 64,
        host_name="w1",
        owner="collector-1",
        created_at=1.0,
    )


def with_artifact(context: FakeCollectorContext, key: str, number: str, **more: Any) -> str:
    """Send a report of `key` with the artifact of that number; return the verdict."""
    ref = artifact_of(number)
    args = {"job_key": key, "result": {"n": number, "artifact": ref.to_wire()}} | more
    verdict: str = context.send("job_result", args, artifacts=(ref,))["verdict"]
    return verdict


@pytest.mark.parametrize("decoded", [False, True])
def test_an_accepted_report_keeps_its_artifact_and_a_duplicate_does_not(decoded: bool) -> None:
    context = begun("a", decoded=decoded)
    assert with_artifact(context, "a", "1") == "accepted"
    assert with_artifact(context, "a", "2") == "already_recorded"
    assert context.deleted == [artifact_of("2").artifact_id]
    summary = context.send("summary")
    assert summary["results"]["a"]["result"] == {"n": "1", "artifact": artifact_of("1").to_wire()}
    assert summary["duplicate_reports"][0]["result"] == {"n": "2"}


def test_an_unexpected_report_keeps_its_artifact_until_it_is_a_known_duplicate() -> None:
    context = begun("a")
    assert [with_artifact(context, "late", number) for number in "123"] == ["unexpected"] * 3
    assert context.deleted == []
    context.send("register_jobs", {"jobs": [{"job_key": "late"}]})
    assert context.deleted == [artifact_of("2").artifact_id, artifact_of("3").artifact_id]
    assert context.send("summary")["results"]["late"]["result"]["n"] == "1"


def test_an_artifact_that_is_gone_already_is_no_trouble() -> None:
    context = begun("a")
    with_artifact(context, "a", "1")
    assert [with_artifact(context, "a", "2") for _ in range(2)] == ["already_recorded"] * 2
    assert context.deleted == [artifact_of("2").artifact_id]


def test_a_report_after_a_cancel_deletes_its_artifact() -> None:
    context = begun("a")
    context.send("cancel", {"job_keys": ["a"]})
    assert with_artifact(context, "a", "1", generation=1) == "already_recorded"
    assert context.deleted == [artifact_of("1").artifact_id]


# Waiting.


@pytest.mark.parametrize("kind", ["drain", "ended", "summary", "counts", "cancel", "return_home"])
def test_a_call_that_comes_before_the_keys_waits_for_them(kind: str) -> None:
    context = collector()
    with pytest.raises(Parked):
        context.send(kind)
    context.send("begin", begin_args("a"))
    assert context.send("counts")["pending_count"] == 1


def test_a_report_that_comes_before_the_keys_is_accepted_with_them() -> None:
    context = collector()
    assert result(context, "a", 7)["verdict"] == "unexpected"
    assert state(context).status == "ACTIVE"
    context.send("begin", begin_args("a", "b"))
    counts = context.send("counts")
    assert (counts["completed_count"], counts["pending_count"], counts["status"]) == (1, 1, "ACTIVE")
    result(context, "b", 8)
    assert context.send("drain")["completed_count"] == 2


def test_drain_waits_for_the_last_key_only() -> None:
    context = begun("a", "b", return_home_when_complete=True)
    result(context, "a")
    with pytest.raises(Parked):
        context.send("drain")
    with pytest.raises(TimedOut, match="1 of 2"):
        context.send("drain", {"timeout_seconds": 0})
    result(context, "b")
    assert context.send("drain")["status"] == "WAITING_FOR_HOME"


def test_ended_gives_records_in_the_order_of_their_ends() -> None:
    context = begun("a", "b", "c")
    with pytest.raises(Parked):
        context.send("ended", {"wait_seconds": 10})
    assert context.send("ended")["ended"] == []
    result(context, "b", 2)
    failure(context, "a")
    first = context.send("ended", {"limit": 1, "wait_seconds": 10})
    assert [(each["number"], each["job_key"]) for each in first["ended"]] == [(1, "b")]
    assert first["ended"][0]["result"]["result"] == 2
    second = context.send("ended", {"after": first["next"]})
    assert [each["job_key"] for each in second["ended"]] == ["a"]
    assert second["ended"][0]["failure"]["cause"] == "exception"
    with pytest.raises(Parked):
        context.send("ended", {"after": second["next"], "wait_seconds": 10})
    context.send("cancel")
    assert [each["job_key"] for each in context.send("ended", {"after": 2})["ended"]] == ["c"]
    assert context.send("ended", {"after": 3, "wait_seconds": 10})["ended"] == []


def test_pages_of_results_come_in_the_order_of_keys() -> None:
    keys = [f"k{n:03d}" for n in range(120)]
    context = begun(*keys)
    for n, key in enumerate(keys[:110]):
        (failure if n % 3 == 0 else result)(context, key)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        reply = context.send("results", {"after": after, "limit": 7})
        page = sorted([*reply["results"], *reply["failures"]])
        assert len(page) <= 7
        seen += page
        after = reply["next"]
    assert seen == keys[:110]
    assert context.send("results")["pending_count"] == 10


# The way home.


def test_the_collector_goes_home_with_the_last_key() -> None:
    context = begun("a", return_home_when_complete=True)
    assert context.intent is None
    result(context, "a")
    assert context.intent == HOME
    summary = context.send("summary")
    assert (summary["status"], summary["waiting_for_home"]) == ("WAITING_FOR_HOME", True)
    assert context.paglet is not None
    context.paglet.on_dispatching()
    assert state(context).status == "RETURNING_HOME"
    context.host, context.intent = HOME, None
    context.paglet.on_arrival()
    summary = context.send("summary")
    assert (summary["status"], summary["waiting_for_home"]) == ("COMPLETE", False)
    assert summary["collector"]["host_name"] == "laptop"
    assert context.intent is None


def test_a_collector_that_is_home_or_may_stay_is_complete_at_once() -> None:
    for context in (begun("a", host=HOME, return_home_when_complete=True), begun("a", host=AWAY)):
        result(context, "a")
        assert (state(context).status, context.intent) == ("COMPLETE", None)


def test_a_home_of_the_same_name_with_another_store_is_not_home() -> None:
    context = begun("a", host=HostRef(store_id="other", name="laptop"), return_home_when_complete=True)
    result(context, "a")
    assert context.intent == HOME


def test_a_new_key_keeps_the_collector_from_going() -> None:
    context = begun("a", return_home_when_complete=True)
    result(context, "a")
    context.send("register_jobs", {"jobs": [{"job_key": "b"}]})
    assert (state(context).status, context.intent) == ("ACTIVE", None)
    result(context, "b")
    assert (state(context).status, context.intent) == ("WAITING_FOR_HOME", HOME)


def test_a_report_that_registration_applies_ends_the_group_and_sends_it_home() -> None:
    context = begun("a", return_home_when_complete=True)
    result(context, "a")
    result(context, "b")
    context.send("register_jobs", {"jobs": [{"job_key": "b"}]})
    assert (state(context).status, context.intent) == ("WAITING_FOR_HOME", HOME)


def test_return_home_sends_a_complete_collector_home() -> None:
    context = begun("a")
    result(context, "a")
    reply = context.send("return_home")
    assert (reply["status"], reply["waiting_for_home"], context.intent) == ("WAITING_FOR_HOME", True, HOME)
    context.intent = None
    context.send("return_home")
    assert context.intent == HOME


def test_return_home_of_an_active_group_counts_at_its_end() -> None:
    context = begun("a")
    assert context.send("return_home")["status"] == "ACTIVE"
    assert context.intent is None
    result(context, "a")
    assert context.intent == HOME


def test_return_home_at_home_changes_nothing() -> None:
    context = begun("a", host=HOME)
    result(context, "a")
    assert context.send("return_home")["status"] == "COMPLETE"
    assert context.intent is None


def test_a_collector_that_came_elsewhere_turns_back() -> None:
    context = begun("a", return_home_when_complete=True)
    result(context, "a")
    assert context.paglet is not None
    context.paglet.on_dispatching()
    context.host, context.intent = THIRD, None
    context.paglet.on_arrival()
    assert (state(context).status, context.intent) == ("WAITING_FOR_HOME", HOME)


def test_a_move_of_an_active_or_complete_collector_changes_no_status() -> None:
    context = begun("a")
    assert context.paglet is not None
    for status in ("ACTIVE", "COMPLETE"):
        context.paglet.on_dispatching()
        context.paglet.on_arrival()
        assert (state(context).status, context.intent) == (status, None)
        result(context, "a")


# Cancel.


def test_cancel_ends_keys_and_a_record_that_is_there_wins() -> None:
    context = begun("done", "failed", "open", "kept")
    result(context, "done", 1)
    failure(context, "failed")
    reply = context.send("cancel", {"job_keys": ["done", "failed", "open", "nobody"], "reason": "wrong input"})
    assert reply["keys"] == {
        "done": "already_completed",
        "failed": "already_failed",
        "open": "cancelled",
        "nobody": "unknown",
    }
    assert reply["pending_count"] == 1
    summary = context.send("summary")
    assert summary["failures"]["open"]["cause"] == "cancelled"
    assert summary["failures"]["open"]["message"] == "cancelled: wrong input"
    assert summary["results"]["done"]["result"] == 1
    assert context.send("cancel", {"job_keys": ["open"]})["keys"] == {"open": "already_cancelled"}


def test_a_result_after_a_cancel_is_a_duplicate() -> None:
    context = begun("a")
    lose(context, "a")
    context.send("cancel")
    assert result(context, "a", generation=2)["verdict"] == "already_recorded"
    assert context.send("summary")["failures"]["a"]["cause"] == "cancelled"


def test_cancel_of_all_ends_the_group_and_says_where_copies_are() -> None:
    context = begun("a", "b", return_home_when_complete=True)
    census(context, copy_of("a"))
    reply = context.send("cancel", {"job_keys": None})
    assert reply["keys"] == {"a": "cancelled", "b": "cancelled"}
    assert reply["copies"] == [{"job_key": "a", "agent_id": "agent-a", "host": to_json(THIRD), "residence": "here"}]
    assert (state(context).status, context.intent) == ("WAITING_FOR_HOME", HOME)
    assert context.send("summary")["failures"]["a"]["host_name"] == "w2"


def test_a_copy_of_a_cancelled_key_is_told_of_until_it_is_known_to_be_gone() -> None:
    context = begun("a", "b", "open")
    census(context, copy_of("a"), copy_of("open"))
    context.send("cancel", {"job_keys": ["a", "b"]})

    def where() -> list[tuple[str, str]]:
        reply = context.send("cancel", {"job_keys": ["a", "b"]})
        assert set(reply["keys"].values()) == {"already_cancelled"}
        return [(copy["job_key"], copy["host"]["name"]) for copy in reply["copies"]]

    assert where() == [("a", "w2")]
    census(context, copy_of("a", epoch=2), copy_of("b"), host=HOME)
    assert where() == [("a", "laptop"), ("b", "laptop")]
    context.send("copies_gone", {"job_keys": ["a", "open"]})
    assert where() == [("b", "laptop")]
    context.send("copies_gone")
    assert where() == []
    assert context.send("summary")["pending_jobs"][0]["host_name"] == "w2"


# Status reconciliation.


def test_a_census_fills_the_list_of_pending_jobs() -> None:
    context = begun("a", "b")
    context.now = 100.0
    assert census(context, copy_of("a", never=True)) == {}
    pending = {job["job_key"]: job for job in context.send("summary")["pending_jobs"]}
    assert pending["a"] == {
        "job_key": "a",
        "generation": 1,
        "attempt": 0,
        "status": "WAITING_FOR_SLOT",
        "host_name": "w2",
        "reason": "slots_busy",
        "reason_text": "2 cores asked, 0 free",
        "never": True,
        "since": 100.0,
    }
    assert pending["b"]["reason"] == "no_copy_seen"


def test_a_census_without_news_writes_nothing() -> None:
    context = begun("a")
    census(context, copy_of("a"))
    writes = context.storage.writes
    context.now += 10
    census(context, copy_of("a"))
    assert context.storage.writes == writes


def test_a_census_gives_the_copies_that_nobody_wants() -> None:
    context = begun("done", "cancelled", "lost", "open")
    result(context, "done")
    context.send("cancel", {"job_keys": ["cancelled"]})
    lose(context, "lost")
    unwanted = census(context, *(copy_of(key) for key in ("done", "cancelled", "lost", "open", "unknown")))
    assert unwanted == {"done": "recorded", "cancelled": "cancelled"}


def test_a_copy_that_is_begun_anew_is_pending_where_it_was_made() -> None:
    context = begun("a")
    census(context, copy_of("a", attempt=1, status="RUNNING"))
    lose(context, "a")
    (pending,) = context.send("summary")["pending_jobs"]
    assert (pending["host_name"], pending["status"], pending["reason"]) == ("w1", "PLACING", "resubmitted")
    census(context, copy_of("a", attempt=1, status="RUNNING"))  # the lost one comes back
    (pending,) = context.send("summary")["pending_jobs"]
    assert pending["reason"] == "resubmitted"
    census(context, copy_of("a", agent_id="next-a", generation=2, status="RUNNING", reason=""))
    (pending,) = context.send("summary")["pending_jobs"]
    assert (pending["host_name"], pending["status"]) == ("w2", "RUNNING")


def test_a_newer_generation_in_a_census_is_the_newest() -> None:
    context = begun("a")
    census(context, copy_of("a", generation=2))
    assert failure(context, "a", generation=1)["verdict"] == "not_newest"


# Size.


def seconds_a_report(context: FakeCollectorContext, numbers: range) -> float:
    """Processor time of the results of these jobs, of which each costs a few rows."""
    begun_at = time.process_time()
    for n in numbers:
        reads, writes = context.storage.reads, context.storage.writes
        result(context, f"job-{n:06d}", {"n": n})
        assert context.storage.reads - reads <= 2
        assert context.storage.writes - writes <= 3
    return (time.process_time() - begun_at) / len(numbers)


def test_a_hundred_thousand_jobs_cost_a_few_rows_a_report() -> None:
    count = 100_000
    small, context = (begun(*(f"job-{n:06d}" for n in range(each))) for each in (500, count))
    of_few = seconds_a_report(small, range(500))
    assert seconds_a_report(context, range(0, count, count // 2000)) < 10 * of_few  # by the size of the group: 200
    summary = context.send("summary")
    assert (summary["completed_count"], summary["pending_count"]) == (2000, count - 2000)
    assert summary["truncated"] is True, "98,000 pending jobs are over their share"
    assert len(summary["results"]) == 2000


def test_a_summary_near_the_end_stops_at_the_last_pending_key() -> None:
    context = begun(*(f"job-{n:05d}" for n in range(5000)))
    for n in range(1, 5000):
        result(context, f"job-{n:05d}")
    reads = context.storage.reads
    assert [job["job_key"] for job in context.send("summary")["pending_jobs"]] == ["job-00000"]
    assert context.storage.reads - reads < 5000 + 2000


@pytest.mark.parametrize("decoded", [False, True])
def test_what_a_summary_lacks_is_had_page_by_page(decoded: bool) -> None:
    context = begun(*(f"job-{n:04d}" for n in range(1200)), decoded=decoded)
    for n in range(1100):
        result(context, f"job-{n:04d}", n)
    for n in range(1100, 1110):
        failure(context, f"job-{n:04d}", "oom")
    summary = context.send("summary", {"limit": 3})
    assert summary["left_out"] == {"pending_jobs": 87, "results": 1097, "failures": 7}

    def ask(message: Message) -> Any:
        return context.send(message.kind, dict(message.args))

    assert whole_summary(ask, summary) == context.send("summary")
    assert whole_summary(ask, summary, ("duplicate_reports",)) == summary


def test_a_job_that_ends_while_the_pages_come_is_in_one_list() -> None:
    context = begun("a", "b")

    def ask(message: Message) -> Any:
        reply = context.send(message.kind, dict(message.args))
        if message.kind == "listed":
            result(context, "a", 1)
        return reply

    whole = whole_summary(ask, context.send("summary", {"limit": 1}))
    assert ([*whole["results"]], [job["job_key"] for job in whole["pending_jobs"]]) == (["a"], ["b"])
    assert (whole["completed_count"], whole["pending_count"], whole["expected_count"]) == (1, 1, 2)


def test_lists_of_many_pending_jobs_and_other_reports_are_had_page_by_page() -> None:
    context = begun(*(f"job-{n:05d}" for n in range(1500)))
    result(context, "job-00000")
    for n in range(1100):
        result(context, "job-00000", n)
        result(context, f"strange-{n}")
    lacking = {"pending_jobs": 1, "duplicate_reports": 1, "unexpected_reports": 1}
    whole = whole_summary(
        lambda message: context.send(message.kind, dict(message.args)), context.send("summary") | {"left_out": lacking}
    )
    assert [job["job_key"] for job in whole["pending_jobs"]] == [f"job-{n:05d}" for n in range(1, 1500)]
    assert [entry["result"] for entry in whole["duplicate_reports"]] == [*range(1100)]
    assert len({entry["job_key"] for entry in whole["unexpected_reports"]}) == 1100
    with pytest.raises(Invalid, match=r"listed\.name is 'results'"):
        context.send("listed", {"name": "results"})


def test_metadata_of_many_jobs_is_bounded_in_a_summary_and_had_page_by_page() -> None:
    context = begun()
    for begin in (0, 1000):
        jobs = [{"job_key": f"{n:04d}", "note": "x" * 1000} for n in range(begin, begin + 1000)]
        context.send("register_jobs", {"jobs": jobs})
    context.send("register_jobs", {"jobs": [{"job_key": "0000", "note": "new"}, {"job_key": "none"}]})
    summary = context.send("summary")
    assert 1000 < len(summary["jobs"]) < 1100
    assert summary["left_out"] == {"jobs": 2000 - len(summary["jobs"])}
    whole = whole_summary(lambda message: context.send(message.kind, dict(message.args)), summary)
    assert len(whole["jobs"]) == 2000
    assert whole["jobs"]["0000"] == {"note": "new"}
    assert context.send("summary", {"job_key": "0001"})["jobs"] == {"0001": {"note": "x" * 1000}}


def test_results_over_a_gibibyte_in_all_are_refused_with_the_way_to_have_them() -> None:
    page = {"results": {"a": {}}, "failures": {}, "next": "a", "size_bytes": 300 << 20}
    with pytest.raises(TooLarge, match=r"the results of g1 exceed 1 GiB in all\nnext: .*as_completed\(\)"):
        all_records(lambda message: page, "g1")


def asked_counting(context: FakeCollectorContext) -> tuple[Counter[str], Callable[[Message], Any]]:
    """Return a function that asks the collector, and the number of storage rows it read, by message."""
    reads: Counter[str] = Counter()

    def ask(message: Message) -> Any:
        before = context.storage.reads
        reply = context.send(message.kind, dict(message.args))
        reads[message.kind] += context.storage.reads - before
        return reply

    return reads, ask


def test_pages_of_failures_read_no_results() -> None:
    context = begun(*(f"job-{n:04d}" for n in range(1200)))
    for n in range(1100):
        result(context, f"job-{n:04d}", n)
    for n in range(1100, 1110):
        failure(context, f"job-{n:04d}", "oom")
    reads, ask = asked_counting(context)
    results, failures = all_records(ask, "g1", "failure")
    assert (len(results), len(failures), reads["results"]) == (0, 10, 10)
    with pytest.raises(Invalid, match=r"results\.kind"):
        context.send("results", {"kind": "failures"})


def test_a_summary_fetches_only_the_lists_that_are_incomplete() -> None:
    context = begun(*(f"job-{n:04d}" for n in range(1200)))
    for n in range(1000):
        result(context, f"job-{n:04d}", n)
    failure(context, "job-1000", "oom")
    summary = context.send("summary")
    without = {**summary, "pending_jobs": summary["pending_jobs"][:1], "left_out": {"pending_jobs": 198}}
    reads, ask = asked_counting(context)
    assert whole_summary(ask, without) == summary
    assert reads.keys() == {"listed", "ended"}
    assert reads["ended"] == 0

    few = {"a": None}
    without = {**summary, "results": few, "failures": {}, "left_out": {"results": 999, "failures": 1}}
    reads.clear()
    whole = whole_summary(ask, without, ("failures",))
    assert (reads["results"], whole["results"], whole["failures"]) == (1, few, summary["failures"])
    assert (whole["left_out"], whole["truncated"]) == ({"results": 999}, True)
    counts = ("completed_count", "failed_count", "pending_count", "expected_count")
    assert [whole[name] for name in counts] == [summary[name] for name in counts]


def test_jobs_that_end_before_the_pending_jobs_are_fetched_are_in_the_summary() -> None:
    context = begun("a", "b", "c", "d")
    result(context, "a", 1)
    summary = context.send("summary", {"limit": 1})
    assert summary["left_out"] == {"pending_jobs": 2}
    result(context, "d", 4)
    failure(context, "c", "oom")
    whole = whole_summary(lambda message: context.send(message.kind, dict(message.args)), summary)
    assert whole == context.send("summary") | {"last_report_at": summary["last_report_at"]}


def test_a_summary_of_one_job_has_nothing_else_in_its_lists() -> None:
    context = begun("a", "b", "c")
    result(context, "a", 1)
    failure(context, "b")
    for key, name in (("a", "results"), ("b", "failures"), ("c", "pending_jobs"), ("d", "")):
        summary = context.send("summary", {"job_key": key})
        assert [each for each in ("results", "failures", "pending_jobs") if summary[each]] == ([name] if name else [])
        assert (summary["completed_count"], summary["failed_count"], summary["pending_count"]) == (1, 1, 1)
    assert len(context.send("summary", {"limit": 1})["results"]) == 1
    with pytest.raises(Invalid, match=r"summary\.limit is 0"):
        context.send("summary", {"limit": 0})


def test_pending_jobs_are_counted_by_status_and_failures_by_cause() -> None:
    context = begun("a", "b", "c", "d", "e")
    census(context, copy_of("b"), copy_of("c", status="RUNNING"))
    failure(context, "d", "oom")
    counts = context.send("counts")
    assert (counts["pending"], counts["failed"]) == (
        {"PLACING": 2, "WAITING_FOR_SLOT": 1, "RUNNING": 1},
        {"oom": 1},
    )
    assert (counts["expected_count"], counts["pending_count"], counts["last_report_at"]) == (5, 4, context.now)


@pytest.mark.parametrize("decoded", [False, True])
def test_jobs_are_counted_by_reason_with_the_first_key_of_each(decoded: bool) -> None:
    context = begun("a", "b", "c", "d", "e", "f", decoded=decoded)
    lacks = {"reason": "gpu_short", "reason_text": "1 GPU asked, 0 free"}
    census(context, copy_of("b", **lacks), copy_of("c", **lacks))
    failure(context, "d", "oom", message="killed", host_name="w2")
    context.send("cancel", {"job_keys": ["e"]})
    found = context.send("reasons")
    assert [(each["reason"], each["count"], each["job_key"]) for each in found["pending_reasons"]] == [
        ("no_copy_seen", 2, "a"),
        ("gpu_short", 2, "b"),
    ]
    assert found["pending_reasons"][0]["host_name"] == "laptop"
    assert [(each["cause"], each["message"], each["job_key"]) for each in found["failure_reasons"]] == [
        ("oom", "killed", "d"),
        ("cancelled", "cancelled", "e"),
    ]
    assert (found["cancelled_count"], found["left_out"], found["expected_count"]) == (1, {}, 6)
    assert not {"pending_jobs", "results", "failures"} & found.keys()


def test_a_reply_has_a_bounded_number_of_reasons_and_counts_the_other_jobs() -> None:
    keys = [f"k{number:03d}" for number in range(MOST_REASONS + 10)]
    context = begun(*keys)
    census(context, *(copy_of(key, reason_text=f"only {key}") for key in keys))
    found = context.send("reasons")
    assert len(found["pending_reasons"]) == MOST_REASONS
    assert found["left_out"] == {"pending_reasons": 10}


def test_brief_records_of_ends_have_no_values_and_no_tracebacks() -> None:
    context = begun("a", "b")
    result(context, "a", "x" * 1000, host_name="w2")
    failure(context, "b", "exception", message="bad", traceback="t" * 1000, stderr_tail="e" * 1000)
    page = context.send("ended", {"brief": True})
    done, failed = page["ended"]
    assert (done["result"]["host_name"], "result" in done["result"]) == ("w2", False)
    assert (failed["failure"]["message"], len(str(failed)) < 300) == ("bad", True)
    assert (page["expected_count"], page["pending_count"], page["created_at"]) == (2, 0, 5.0)
    assert page["completed_at"] is not None


def test_the_last_page_of_a_small_group_has_the_summary_if_asked() -> None:
    context = begun("a", "b")
    result(context, "a", "x")
    asked = {"brief": True, "with_summary": True}
    assert context.send("ended", asked)["summary"] is None
    result(context, "b", "y")
    assert context.send("ended", asked)["summary"] == context.send("drain")
    assert "summary" not in context.send("ended", {"brief": True})


@pytest.mark.parametrize(("jobs", "value"), [(SMALL_GROUP_JOBS + 1, "x"), (1, "x" * SMALL_SUMMARY_BYTES)])
def test_a_page_has_no_summary_that_may_come_too_slowly(jobs: int, value: str) -> None:
    keys = [f"k{n}" for n in range(jobs)]
    context = begun(*keys)
    for key in keys:
        result(context, key, value)
    assert context.send("ended", {"brief": True, "with_summary": True})["summary"] is None


# Any order of messages.


class AnyOrder(RuleBasedStateMachine):
    """Messages in any order lead to one record per key and correct counts."""

    keys = st.sampled_from(["a", "b", "c", "d"])

    def __init__(self) -> None:
        super().__init__()
        self.context = begun("a", "b", return_home_when_complete=True)
        self.records: dict[str, Any] = {}

    @rule(key=keys, generation=st.integers(0, 3), send=st.sampled_from([result, failure]))
    def report(self, key: str, generation: int, send: Callable[..., Any]) -> None:
        send(self.context, key, generation=generation)

    @rule(keys=st.none() | st.lists(keys, max_size=3, unique=True))
    def cancel(self, keys: list[str] | None) -> None:
        self.context.send("cancel", {"job_keys": keys})

    @rule(key=keys)
    def register(self, key: str) -> None:
        self.context.send("register_jobs", {"jobs": [{"job_key": key}]})

    @rule(key=keys)
    def lose_copy(self, key: str) -> None:
        lose(self.context, key)

    @rule(key=keys, generation=st.integers(1, 3), epoch=st.integers(1, 3))
    def census(self, key: str, generation: int, epoch: int) -> None:
        census(self.context, copy_of(key, generation=generation, epoch=epoch))

    @rule()
    def return_home(self) -> None:
        self.context.send("return_home")

    @rule(host=st.sampled_from([HOME, AWAY, THIRD]))
    def travel(self, host: HostRef) -> None:
        assert self.context.paglet is not None
        self.context.paglet.on_dispatching()
        tree = encode_state(state(self.context))
        self.context.host, self.context.intent = host, None
        fresh = decode_state(ResultCollectorState, tree)
        self.context.paglet = ResultCollectorPaglet(fresh, self.context)  # type: ignore[arg-type]
        self.context.paglet.on_arrival()

    @invariant()
    def records_stay_and_counts_are_true(self) -> None:
        summary = self.context.send("summary")
        ended = summary["results"] | summary["failures"]
        assert not summary["results"].keys() & summary["failures"].keys()
        assert self.records.items() <= ended.items(), "a record changed or went away"
        self.records = ended
        assert len(summary["results"]) == summary["completed_count"]
        assert len(summary["failures"]) == summary["failed_count"]
        assert len(summary["pending_jobs"]) == summary["pending_count"]
        assert len(summary["duplicate_reports"]) == state(self.context).duplicate_count
        assert len(summary["unexpected_reports"]) == state(self.context).unexpected_count
        pending = [job["job_key"] for job in summary["pending_jobs"]]
        assert not set(pending) & ended.keys()
        assert (summary["status"] == "ACTIVE") == bool(pending)
        assert (summary["completed_at"] is None) == bool(pending)
        assert (self.context.intent is not None) == (summary["status"] == "WAITING_FOR_HOME")
        numbered = [each["job_key"] for each in self.context.send("ended")["ended"]]
        assert sorted(numbered) == sorted(ended)


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase
