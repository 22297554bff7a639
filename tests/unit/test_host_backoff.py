"""Back-off: one request in flight, a longer delay after each failure, none after a new contact."""

from __future__ import annotations

import pytest

from paglets.host.runtime.backoff import FIRST_SECONDS, MOST_SECONDS, Backoff
from tests.fakes.clock import SeededEntropy


@pytest.fixture
def backoff() -> Backoff:
    return Backoff(SeededEntropy(1))


def pauses(backoff: Backoff, count: int) -> list[float]:
    found = []
    for _ in range(count):
        backoff.sent("w1")
        backoff.failed("w1", 100.0)
        due = backoff.next_due(["w1"], 100.0)
        assert due is not None
        found.append(due - 100.0)
    return found


def test_a_lane_is_open_until_something_is_under_way(backoff: Backoff) -> None:
    assert backoff.may_send("w1", 0.0)
    backoff.sent("w1")
    assert not backoff.may_send("w1", 1e9)
    assert backoff.may_send("w2", 0.0)
    assert backoff.next_due(["w1"], 0.0) is None
    backoff.succeeded("w1")
    assert backoff.may_send("w1", 0.0)


def test_each_failure_doubles_the_pause_up_to_its_bound_with_jitter(backoff: Backoff) -> None:
    found = pauses(backoff, 20)
    for failures, pause in enumerate(found):
        planned = min(MOST_SECONDS, FIRST_SECONDS * 2**failures)
        assert planned * 0.75 <= pause <= planned * 1.25
    assert len(set(found[10:])) == 10


def test_a_success_begins_anew(backoff: Backoff) -> None:
    pauses(backoff, 8)
    backoff.succeeded("w1")
    assert pauses(backoff, 1)[0] <= FIRST_SECONDS * 1.25


def test_a_host_that_was_heard_of_after_the_failure_is_tried_at_once(backoff: Backoff) -> None:
    pauses(backoff, 8)
    backoff.contacted("w1", 99.0)
    assert not backoff.may_send("w1", 100.5)
    backoff.contacted("w1", 100.1)
    assert backoff.may_send("w1", 100.5)


def test_hearing_of_a_host_does_not_end_what_is_under_way_and_counts_once(backoff: Backoff) -> None:
    pauses(backoff, 8)
    backoff.contacted("w1", 100.1)
    backoff.sent("w1")
    backoff.contacted("w1", 100.2)
    assert not backoff.may_send("w1", 200.0)
    backoff.failed("w1", 100.3)
    backoff.contacted("w1", 100.2)
    assert not backoff.may_send("w1", 100.5)


def test_the_next_due_is_the_first_of_those_that_are_not_busy(backoff: Backoff) -> None:
    pauses(backoff, 8)
    backoff.sent("w2")
    assert backoff.next_due([], 100.0) is None
    assert backoff.next_due(["w2"], 100.0) is None
    due = backoff.next_due(["w1", "w2"], 100.0)
    assert due is not None
    assert due > 103.0
    assert backoff.next_due(["w1", "w3"], 100.0) == 100.0
