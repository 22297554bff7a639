"""The times at which a zygote is pinged, resumed and replaced."""

from __future__ import annotations

from paglets.worker.host.heartbeat import Heartbeat, HeartbeatTimeouts


def heartbeat() -> Heartbeat:
    """Return the heartbeat of a zygote that has started."""
    made = Heartbeat(HeartbeatTimeouts())
    made.answered()
    return made


def test_a_zygote_that_answers_is_pinged_at_each_check() -> None:
    one = heartbeat()
    actions = []
    for second in range(100):
        actions.append(one.check(float(second)))
        one.answered()
    assert actions == ["ping"] * 100


def test_a_zygote_without_answers_is_resumed_after_5_s_and_replaced_after_30_s() -> None:
    one = heartbeat()
    actions = [one.check(float(second)) for second in range(31)]
    assert actions == ["ping"] + [""] * 4 + ["resume"] * 25 + ["replace"]


def test_an_answer_resets_the_time_without_one() -> None:
    one = heartbeat()
    for second in range(20):
        one.check(float(second))
    assert one.is_unresponsive
    one.answered()
    assert not one.is_unresponsive
    assert one.check(20.0) == "ping"


def test_a_gap_of_the_host_itself_counts_as_one_interval() -> None:
    one = heartbeat()
    assert one.check(0.0) == "ping"
    assert [one.check(at) for at in (1000.0, 2000.0, 3000.0)] == [""] * 3


def test_checks_more_often_than_needed_count_nothing() -> None:
    one = heartbeat()
    one.check(0.0)
    assert {one.check(number / 1000) for number in range(1, 1000)} == {""}
    assert not one.is_unresponsive


def test_time_without_work_does_not_count() -> None:
    one = heartbeat()
    one.check(0.0)
    one.pause()
    assert [one.check(at) for at in (50.0, 51.0)] == ["", ""]
    assert not one.is_unresponsive


def test_a_zygote_that_starts_has_a_minute_more() -> None:
    one = Heartbeat(HeartbeatTimeouts())
    actions = [one.check(float(second)) for second in range(91)]
    assert actions.index("resume") == 65
    assert actions.index("replace") == 90
