"""Rules of groups: names, statuses, which report counts, and the bounded summary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.codec.tagged_json import encode
from paglets.codec.unreadable import Unreadable
from paglets.core.errors import IllegalTransition, ImportFailed, Invalid
from paglets.core.refs import HostRef, check_group_id, check_job_key
from paglets.groups import acceptance, copies, losses
from paglets.groups.keys import complete_job_keys, group_digest, new_group_id
from paglets.groups.records import (
    MAX_TRACEBACK_CHARACTERS,
    ExpectedJob,
    FailureReport,
    Report,
    ResultReport,
    Sighting,
    duplicate_entry,
    failure_report,
    report_row,
    result_report,
    row_report,
)
from paglets.groups.status import GROUP_TRANSITIONS, diagram, move
from paglets.groups.summary import Facts, Lists, Location, json_bytes, page, summarise

# Names.


def test_a_group_id_is_ten_base32_characters() -> None:
    assert new_group_id("00" * 16) == "group-aaaaaaaaaa"
    assert new_group_id("ff" * 7) == "group-7777777777"
    assert check_group_id(new_group_id("0123456789abcdef")) == "group-aerukz4jvp"


@pytest.mark.parametrize("token", ["", "00" * 6, "xyz"])
def test_a_group_id_needs_enough_random_digits(token: str) -> None:
    with pytest.raises(Invalid):
        new_group_id(token)


def test_empty_keys_are_named_by_position() -> None:
    assert complete_job_keys(["", "b", ""]) == ("job-00001", "b", "job-00003")
    assert complete_job_keys([]) == ()


@pytest.mark.parametrize("keys", [["a", "b", "a"], ["job-00002", ""]])
def test_two_equal_keys_are_a_value_error(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="1 job key occurs more than once"):
        complete_job_keys(keys)


@pytest.mark.parametrize("key", ["a\nb", "x" * 201, "$bytes", "\x00"])
def test_a_malformed_key_is_refused(key: str) -> None:
    with pytest.raises(Invalid):
        check_job_key(key)
    with pytest.raises(Invalid):
        complete_job_keys([key])


def test_the_digest_tells_class_keys_and_states_apart_but_not_their_order() -> None:
    jobs: list[tuple[str, Any]] = [("a", {"x": 1, "y": "é"}), ("b", {"x": 2})]
    same = group_digest("m:C", jobs)
    assert same == group_digest("m:C", [jobs[1], ("a", {"y": "é", "x": 1})])
    others = [
        group_digest("m:D", jobs),
        group_digest("m:C", jobs[:1]),
        group_digest("m:C", [("a", {"x": 2}), ("b", {"x": 1, "y": "é"})]),
        group_digest("m:C", [("a", {"x": 1.0, "y": "é"}), ("b", {"x": 2})]),
        group_digest("m:C", [*jobs, jobs[0]]),
    ]
    assert len({same, *others}) == 6


# Statuses.

LEGAL = {
    ("ACTIVE", "ended"): "COMPLETE",
    ("ACTIVE", "ended_away"): "WAITING_FOR_HOME",
    ("WAITING_FOR_HOME", "departing"): "RETURNING_HOME",
    ("WAITING_FOR_HOME", "arrived_home"): "COMPLETE",
    ("RETURNING_HOME", "arrived_home"): "COMPLETE",
    ("RETURNING_HOME", "turned_back"): "WAITING_FOR_HOME",
    ("WAITING_FOR_HOME", "turned_back"): "WAITING_FOR_HOME",
    ("COMPLETE", "sent_home"): "WAITING_FOR_HOME",
    ("WAITING_FOR_HOME", "sent_home"): "WAITING_FOR_HOME",
    ("RETURNING_HOME", "sent_home"): "WAITING_FOR_HOME",
    ("ACTIVE", "registered"): "ACTIVE",
    ("WAITING_FOR_HOME", "registered"): "ACTIVE",
    ("RETURNING_HOME", "registered"): "ACTIVE",
    ("COMPLETE", "registered"): "ACTIVE",
}


@pytest.mark.parametrize("status", GROUP_TRANSITIONS.statuses())
@pytest.mark.parametrize("event", GROUP_TRANSITIONS.events())
def test_the_table_of_statuses_allows_this_and_no_more(status: str, event: str) -> None:
    if (status, event) in LEGAL:
        assert move(status, event) == LEGAL[status, event]
    else:
        with pytest.raises(IllegalTransition):
            move(status, event)


def test_no_status_of_a_group_is_final() -> None:
    assert GROUP_TRANSITIONS.final() == ()
    assert "    RETURNING_HOME --> COMPLETE: arrived home" in diagram().splitlines()


# Acceptance.


def success(generation: int = 0) -> ResultReport:
    return ResultReport(job_key="a", result=generation, generation=generation)


def failure(generation: int = 0) -> FailureReport:
    return FailureReport(job_key="a", cause="exception", generation=generation)


@pytest.mark.parametrize(
    ("newest", "floor", "report", "verdict"),
    [
        (1, 1, success(), "accepted"),
        (1, 1, failure(), "accepted"),
        (3, 1, success(1), "accepted"),
        (3, 2, success(1), "below_floor"),
        (3, 2, success(2), "accepted"),
        (3, 1, success(4), "accepted"),
        (3, 1, failure(2), "not_newest"),
        (3, 3, failure(2), "below_floor"),
        (3, 1, failure(3), "accepted"),
        (3, 1, failure(4), "accepted"),
        (3, 1, failure(0), "accepted"),
    ],
)
def test_the_first_good_success_or_the_newest_failure_is_taken(
    newest: int, floor: int, report: Report, verdict: str
) -> None:
    job = ExpectedJob(generation=newest, floor=floor, since=0.0)
    assert acceptance.judge_report(job, report) == verdict


@pytest.mark.parametrize("report", [success(), success(9), failure()])
def test_a_record_that_is_there_wins(report: Report) -> None:
    job = ExpectedJob(ended=True, since=0.0)
    assert acceptance.judge_report(job, report) == "already_recorded"


def test_a_cancel_puts_the_floor_over_all_generations() -> None:
    job = acceptance.cancelled(ExpectedJob(generation=3, since=0.0))
    assert (job.ended, job.floor) == (True, 4)
    assert [acceptance.cancel_cause(job, generation) for generation in (1, 3)] == ["cancelled", "cancelled"]


def test_a_loss_raises_the_generation_and_not_the_floor() -> None:
    job = acceptance.next_generation(ExpectedJob(since=0.0), 5.0)
    assert (job.generation, job.floor, job.since) == (2, 1, 5.0)
    assert acceptance.cancel_cause(job, 1) is None


def test_lost_copies_are_remembered_until_the_key_ends_or_they_are_gone() -> None:
    job = ExpectedJob(since=0.0)
    here = HostRef(store_id="s9", name="w9")
    for number in range(1, 12):
        copy = sighting(agent_id=f"copy-{number}", generation=number)
        lost = copies.older_copies(copy, (copy.host,))
        job = copies.resubmitted(job, f"copy-{number + 1}", here, "why", 1.0, lost)
    assert [older.generation for older in job.older] == list(range(12 - copies.MAX_OLDER, 12))
    assert acceptance.cancelled(job).older == job.older
    assert acceptance.gone(acceptance.cancelled(job)).older == ()
    assert acceptance.ended(job, 3).older == ()


def place(seconds_since_seen: float, looks: int) -> losses.PossibleHost:
    return losses.PossibleHost(
        host=HostRef(store_id="s1", name="w1"), seconds_since_seen=seconds_since_seen, looks=looks
    )


@pytest.mark.parametrize(
    ("places", "seconds"),
    [
        ([place(121.0, 0)], 0.0),
        ([place(119.0, 2)], 1.0),
        ([place(1.0, 3)], 0.0),
        ([place(120.0, 0), place(1.0, 2)], 119.0),
        ([place(120.0, 0), place(1.0, 3)], 0.0),
    ],
)
def test_a_copy_is_lost_if_each_host_is_unreachable_or_denied_it_three_times(
    places: list[losses.PossibleHost], seconds: float
) -> None:
    assert losses.seconds_until_lost(None, places, 120.0) == seconds
    leaving = losses.CopyLocation(status="leaving", peer=places[-1].host)
    assert losses.seconds_until_lost(leaving, places, 120.0) == max(
        0.0, *(120.0 - each.seconds_since_seen for each in places), 0.0
    )
    assert losses.seconds_until_lost(losses.CopyLocation(status="here", peer=places[0].host), places, 120.0) == float(
        "inf"
    )


def test_copies_of_a_recorded_key_are_unwanted() -> None:
    job = acceptance.ended(ExpectedJob(generation=1, since=0.0), 2)
    assert (job.generation, acceptance.cancel_cause(job, 2)) == (2, "recorded")


_REPORTS = st.lists(st.builds(lambda good, g: success(g) if good else failure(g), st.booleans(), st.integers(0, 3)))


@given(_REPORTS, st.integers(1, 3))
def test_one_record_comes_of_any_reports_and_a_success_of_a_good_generation_ends_it(
    reports: list[Report], floor: int
) -> None:
    job = ExpectedJob(generation=3, floor=floor, since=0.0)
    accepted = []
    for report in reports:
        if acceptance.judge_report(job, report) == "accepted":
            accepted.append(report)
            job = acceptance.ended(job, acceptance.effective_generation(job, report.generation))
    assert len(accepted) <= 1
    could = any(isinstance(each, ResultReport) and (each.generation or 3) >= floor for each in reports)
    assert bool(accepted) or not could


# Sightings.


def sighting(**more: Any) -> Sighting:
    fields: dict[str, Any] = {
        "agent_id": "job-1",
        "host": HostRef(store_id="s1", name="w1"),
        "generation": 1,
        "attempt": 1,
        "epoch": 1,
        "residence": "here",
        "status": "RUNNING",
        "reason": "",
        "reason_text": "",
        "never": False,
        "since": 10.0,
    }
    return Sighting(**(fields | more))


def test_the_same_news_twice_changes_nothing() -> None:
    job = acceptance.with_sighting(ExpectedJob(since=0.0), sighting())
    assert acceptance.with_sighting(job, sighting(since=20.0)) is job


def test_since_is_kept_while_only_the_numbers_of_a_reason_change() -> None:
    job = acceptance.with_sighting(ExpectedJob(since=0.0), sighting(reason="slots_busy", reason_text="4 asked, 1 free"))
    later = acceptance.with_sighting(
        job, sighting(reason="slots_busy", reason_text="4 asked, 2 free", since=20.0)
    ).sighting
    assert later is not None
    assert (later.reason_text, later.since) == ("4 asked, 2 free", 10.0)
    other = acceptance.with_sighting(job, sighting(reason="gpu_short", since=20.0)).sighting
    assert other is not None
    assert other.since == 20.0


def test_the_newest_place_of_a_copy_wins_in_any_order_of_news() -> None:
    news = [
        sighting(epoch=1, residence="leaving"),
        sighting(epoch=2, residence="leaving"),
        sighting(epoch=2, residence="here", host=HostRef(store_id="s2", name="w2")),
        sighting(epoch=1, generation=2, host=HostRef(store_id="s3", name="w3")),
    ]
    for order in permutations(news):
        job = ExpectedJob(since=0.0)
        for each in order:
            job = acceptance.with_sighting(job, each)
        assert job.sighting is not None
        assert job.sighting.host.name == "w3"
        assert job.generation == 2


def test_why_a_copy_does_not_get_away_from_where_it_was_is_news() -> None:
    news = [
        sighting(epoch=1, residence="here", reason="placing"),
        sighting(epoch=1, residence="leaving", reason="moving", reason_text="its files cannot be sent to w2"),
        sighting(epoch=2, residence="here", host=HostRef(store_id="s2", name="w2")),
    ]
    for most in range(2, len(news) + 1):
        for order in permutations(news[:most]):
            job = ExpectedJob(since=0.0)
            for each in order:
                job = acceptance.with_sighting(job, each)
            assert job.sighting == news[most - 1]


# Reports.


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({}, "job_key"),
        ({"job_key": 1}, "job_key"),
        ({"job_key": ""}, "job key"),
        ({"job_key": "a", "generation": -1}, "generation"),
        ({"job_key": "a", "generation": True}, "generation"),
        ({"job_key": "a", "attempt": 1.5}, "attempt"),
        ({"job_key": "a", "runtime_seconds": -0.1}, "runtime_seconds"),
        ({"job_key": "a", "resultt": 1}, "resultt"),
    ],
)
def test_a_wrong_report_names_the_field(args: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid, match=field):
        result_report(args)


def test_a_failure_needs_a_cause_and_long_texts_are_cut() -> None:
    with pytest.raises(Invalid, match="cause"):
        failure_report({"job_key": "a", "cause": ""})
    cut = failure_report({"job_key": "a", "cause": "exception", "traceback": "x" * 10**6 + "end"})
    assert len(cut.traceback) == MAX_TRACEBACK_CHARACTERS
    assert cut.traceback.endswith("end")


@pytest.mark.parametrize("report", [success(2), failure(2)])
def test_a_report_survives_its_row(report: Report) -> None:
    assert row_report(json.loads(json.dumps(report_row(report)))) == report


def test_a_duplicate_is_kept_without_its_artifact() -> None:
    report = ResultReport(job_key="a", result={"bundle": 1, "artifact": {"artifact_id": "x"}})
    entry = duplicate_entry(report, 1, 5.0, "already_recorded")
    assert entry["result"] == {"bundle": 1}
    assert (entry["job_key"], entry["kind"], entry["why"]) == ("a", "result", "already_recorded")


# Summaries.

SUMMARY_FIELDS = [
    "group_id",
    "status",
    "collector",
    "home",
    "return_home_when_complete",
    "waiting_for_home",
    "expected_count",
    "completed_count",
    "failed_count",
    "pending_count",
    "pending_jobs",
    "results",
    "failures",
    "duplicate_reports",
    "unexpected_reports",
    "jobs",
    "created_at",
    "completed_at",
    "last_report_at",
    "truncated",
    "left_out",
]


def facts(**more: Any) -> Facts:
    fields: dict[str, Any] = {
        "group_id": "g",
        "status": "ACTIVE",
        "collector": Location(host_name="w1", host_url="http://w1:8765", agent_id="c"),
        "home": Location(host_name="laptop", host_url="http://laptop:8765"),
        "return_home_when_complete": False,
        "waiting_for_home": False,
        "expected_count": 9,
        "completed_count": 4,
        "failed_count": 2,
        "created_at": 1.0,
        "completed_at": None,
        "last_report_at": None,
    }
    return Facts(**(fields | more))


def lists(**more: Any) -> Lists:
    names = ("pending_jobs", "results", "failures", "duplicate_reports", "unexpected_reports")
    return Lists(**(dict.fromkeys(names, ()) | more))


def test_a_summary_has_exactly_these_fields() -> None:
    summary = summarise(
        facts(expected_count=4, completed_count=1, failed_count=0), lists(results=[("a", {"result": 1})])
    )
    assert list(summary) == SUMMARY_FIELDS
    assert summary["pending_count"] == 3
    assert summary["results"] == {"a": {"result": 1}}
    assert summary["home"] == {"host_name": "laptop", "host_url": "http://laptop:8765", "agent_id": None}
    assert (summary["truncated"], summary["left_out"]) == (True, {"pending_jobs": 3})


def test_the_summary_of_a_huge_group_fits_its_limit_with_entries_of_each_list() -> None:
    limit = 1 << 20
    entry = {"message": "é\n" * 50}
    endless = lists(
        pending_jobs=({"job_key": f"p{n}"} | entry for n in count()),
        results=((f"r{n}", entry) for n in count()),
        failures=((f"f{n}", entry) for n in count()),
        duplicate_reports=(entry for _ in count()),
        unexpected_reports=(entry for _ in count()),
    )
    summary = summarise(facts(), endless, limit_bytes=limit)
    size = len(json.dumps(summary, ensure_ascii=False, separators=(",", ":")).encode())
    assert 0.9 * limit < size <= limit
    assert summary["truncated"] is True
    assert summary["left_out"] == {}, "the counts of these facts are lower than what is shown"
    for name in ("pending_jobs", "results", "failures", "duplicate_reports", "unexpected_reports"):
        assert len(summary[name]) > 100, name


def test_what_other_lists_leave_goes_to_results() -> None:
    summary = summarise(facts(), lists(results=((f"r{n}", "x" * 100) for n in count())), limit_bytes=1 << 20)
    assert len(summary["results"]) > 0.9 * (1 << 20) / 115


def test_of_a_list_that_is_cut_it_is_told_how_many_entries_it_lacks() -> None:
    results = [(f"r{n}", "x" * 1000) for n in range(3000)]
    summary = summarise(facts(expected_count=3003, completed_count=3000), lists(results=results), limit_bytes=1 << 20)
    assert summary["left_out"] == {"results": 3000 - len(summary["results"]), "failures": 2, "pending_jobs": 1}


def test_one_huge_result_does_not_hide_the_others() -> None:
    results = [("a", "x" * (2 << 20)), *((f"r{n}", n) for n in range(5))]
    summary = summarise(facts(completed_count=6), lists(results=results), limit_bytes=1 << 20)
    assert (sorted(summary["results"]), summary["truncated"]) == ([f"r{n}" for n in range(5)], True)
    assert summary["left_out"]["results"] == 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_the_size_of_json_is_exact(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert json_bytes(value) == len(text.encode("utf-8", "surrogatepass")) + 1


def test_the_size_of_other_values_is_no_smaller_than_their_content() -> None:
    assert json_bytes({"data": b"x" * 3000}) > 4000
    assert json_bytes(({1, 2}, {(1, 2): 3})) > 0


@dataclass
class _Held:
    array: Any
    name: str = "x"


def test_an_array_is_counted_with_all_its_bytes_however_deep_it_is() -> None:
    array = np.zeros(3000)

    assert json_bytes({"a": [array]}) > 32_000
    assert json_bytes(_Held(array)) > 32_000
    assert json_bytes(Unreadable(encode(array), ImportFailed("x"))) > 32_000


def test_a_page_holds_at_least_one_entry_however_large() -> None:
    assert page(iter(["x" * 100, "y"]), 10, 50) == (["x" * 100], True)
    assert page(iter("abc"), 2) == (["a", "b"], True)
    assert page(iter("ab"), 2) == (["a", "b"], False)
    assert page(iter(""), 2) == ([], False)
