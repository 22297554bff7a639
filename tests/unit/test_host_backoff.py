"""Lanes: busy while something is under way, later after each failure, at once when a host is heard of."""

from __future__ import annotations

import pytest

from paglets.host.runtime.backoff import FIRST_SECONDS, MOST_SECONDS, Lanes
from tests.fakes.clock import SeededEntropy


@pytest.fixture
def lanes() -> Lanes:
    return Lanes(SeededEntropy(1))


def pauses(lanes: Lanes, count: int) -> list[float]:
    found = []
    for _ in range(count):
        lanes.sent("w1")
        lanes.failed("w1", 100.0)
        due = lanes.next_due(["w1"], 100.0)
        assert due is not None
        found.append(due - 100.0)
    return found


def test_a_lane_is_open_until_something_is_under_way(lanes: Lanes) -> None:
    assert lanes.open("w1", 0.0)
    lanes.sent("w1")
    assert not lanes.open("w1", 1e9)
    assert lanes.open("w2", 0.0)
    assert lanes.next_due(["w1"], 0.0) is None
    lanes.succeeded("w1")
    assert lanes.open("w1", 0.0)


def test_each_failure_doubles_the_pause_up_to_its_bound_with_jitter(lanes: Lanes) -> None:
    found = pauses(lanes, 20)
    for failures, pause in enumerate(found):
        planned = min(MOST_SECONDS, FIRST_SECONDS * 2**failures)
        assert planned * 0.75 <= pause <= planned * 1.25
    assert len(set(found[10:])) == 10


def test_a_success_begins_anew(lanes: Lanes) -> None:
    pauses(lanes, 8)
    lanes.succeeded("w1")
    assert pauses(lanes, 1)[0] <= FIRST_SECONDS * 1.25


def test_a_host_that_was_heard_of_after_the_failure_is_tried_at_once(lanes: Lanes) -> None:
    pauses(lanes, 8)
    lanes.heard("w1", 99.0)
    assert not lanes.open("w1", 100.5)
    lanes.heard("w1", 100.1)
    assert lanes.open("w1", 100.5)


def test_hearing_of_a_host_does_not_end_what_is_under_way_and_counts_once(lanes: Lanes) -> None:
    pauses(lanes, 8)
    lanes.heard("w1", 100.1)
    lanes.sent("w1")
    lanes.heard("w1", 100.2)
    assert not lanes.open("w1", 200.0)
    lanes.failed("w1", 100.3)
    lanes.heard("w1", 100.2)
    assert not lanes.open("w1", 100.5)


def test_the_next_due_is_the_first_of_those_that_are_not_busy(lanes: Lanes) -> None:
    pauses(lanes, 8)
    lanes.sent("w2")
    assert lanes.next_due([], 100.0) is None
    assert lanes.next_due(["w2"], 100.0) is None
    due = lanes.next_due(["w1", "w2"], 100.0)
    assert due is not None
    assert due > 103.0
    assert lanes.next_due(["w1", "w3"], 100.0) == 100.0
