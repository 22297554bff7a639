"""A machine that slept: only `boottime` shows it, since the monotonic clock stopped."""

from __future__ import annotations

import sys
import time

import pytest
from host_rig import Rig, job

from paglets.api.groups import JobStatusReply
from paglets.core import clock
from paglets.core.clock import SystemClock
from paglets.store import residence
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import wait_until

NIGHT = 8 * 3_600.0


def test_the_system_s_clock_that_counts_sleep_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", lambda number: (number, 77.0)[1], raising=False)
    for platform, name in clock.BOOT_CLOCKS.items():
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(time, name, 7, raising=False)
        assert SystemClock().boottime() == 77.0
        monkeypatch.delattr(time, name)
        assert clock.boot_clock() is time.monotonic
    monkeypatch.setattr(sys, "platform", "win32")
    assert clock.boot_clock() is time.monotonic


def test_it_goes_as_fast_as_the_monotonic_one() -> None:
    system = SystemClock()

    def look() -> tuple[float, float, float]:
        """Read one clock between two reads of the other, since this process may pause between any two reads."""
        return system.monotonic(), system.boottime(), system.monotonic()

    first = look()
    last = wait_until(lambda: seen if (seen := look())[0] > first[2] + 0.01 else None, what="the time to pass")
    passed = last[1] - first[1]
    assert last[0] - first[2] - 0.005 < passed < last[2] - first[0] + 0.005


def test_a_virtual_machine_may_sleep() -> None:
    virtual = FakeClock(at=10.0)
    wall = virtual.wall()
    virtual.suspend(NIGHT)
    assert (virtual.monotonic(), virtual.boottime(), virtual.wall()) == (10.0, 10.0 + NIGHT, wall + NIGHT)


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.run(11.0)
    return rig


def test_a_sleep_is_a_gap_at_the_wake_and_again_at_the_next_look(rig: Rig) -> None:
    before = rig.host.gossip.last_gap()
    rig.clock.suspend(NIGHT)
    assert rig.host.gossip.last_gap().seconds == pytest.approx(NIGHT)
    rig.run(3.0)
    gap = rig.host.gossip.last_gap()
    assert gap.seconds == pytest.approx(NIGHT, abs=3.0)
    assert gap.ended_at > before.ended_at
    rig.run(30.0)
    assert rig.host.gossip.last_gap() == gap


def test_a_nap_is_no_gap(rig: Rig) -> None:
    before = rig.host.gossip.last_gap()
    rig.clock.suspend(3.0)
    rig.run(3.0)
    assert rig.host.gossip.last_gap() == before


def test_after_a_sleep_nobody_is_silent_and_the_waits_begin_anew(rig: Rig) -> None:
    w1 = rig.peer("w1")
    rig.run(5.0)
    rig.network.leave(w1.ref.url)
    rig.run(4.0)
    rig.clock.suspend(NIGHT)
    rig.run(3.0)
    assert rig.host.gossip.seconds_since_contact("store-w1") < 3.0
    assert [view.host.name for view in rig.host.gossip.hosts() if view.online] == ["home", "w1"]


def test_after_a_sleep_a_job_of_a_group_waits_for_the_word_of_its_collector(rig: Rig) -> None:
    # It was granted at once: the monotonic clock saw no gap.
    asked: list[object] = []

    def census(body: object) -> JobStatusReply:
        asked.append(body)
        return JobStatusReply()

    rig.peer("w1", {"POST /v1/jobs/status": census})
    rig.clock.suspend(NIGHT)
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))
    for _ in range(3):
        rig.host.runner.step()
    assert rig.value("SELECT status FROM requests") == "WAITING_FOR_SLOT"
    rig.run(4.0)
    assert asked
    assert rig.value("SELECT status FROM requests") == "RUNNING"
