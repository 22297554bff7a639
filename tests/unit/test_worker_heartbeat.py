"""When a zygote that does not answer counts as silent, and when as hung."""

from __future__ import annotations

from paglets.worker.host.heartbeat import Heartbeat, HeartbeatTimeouts


def heartbeat() -> Heartbeat:
    """One that has started."""
    made = Heartbeat(HeartbeatTimeouts())
    made.answered()
    return made


def test_one_that_answers_is_asked_again_at_each_look_and_never_silent() -> None:
    one = heartbeat()
    signs = []
    for second in range(100):
        signs.append(one.look(float(second)))
        one.answered()
    assert signs == ["ask"] * 100


def test_one_that_does_not_answer_is_silent_after_five_seconds_and_hung_after_thirty() -> None:
    one = heartbeat()
    signs = [one.look(float(second)) for second in range(31)]
    assert signs == ["ask"] + [""] * 4 + ["silent"] * 25 + ["hung"]


def test_an_answer_ends_the_silence() -> None:
    one = heartbeat()
    for second in range(20):
        one.look(float(second))
    assert one.is_silent
    one.answered()
    assert not one.is_silent
    assert one.look(20.0) == "ask"


def test_a_gap_of_the_host_itself_counts_as_one_look() -> None:
    one = heartbeat()
    assert one.look(0.0) == "ask"
    assert [one.look(at) for at in (1000.0, 2000.0, 3000.0)] == [""] * 3


def test_looks_more_often_than_needed_count_nothing() -> None:
    one = heartbeat()
    one.look(0.0)
    assert {one.look(number / 1000) for number in range(1, 1000)} == {""}
    assert not one.is_silent


def test_time_without_work_does_not_count() -> None:
    one = heartbeat()
    one.look(0.0)
    one.rest()
    assert [one.look(at) for at in (50.0, 51.0)] == ["", ""]
    assert not one.is_silent


def test_one_that_starts_has_a_minute_more() -> None:
    one = Heartbeat(HeartbeatTimeouts())
    signs = [one.look(float(second)) for second in range(91)]
    assert signs.index("silent") == 65
    assert signs.index("hung") == 90
