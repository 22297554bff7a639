"""The event loop: order, batches, wakes, due times, and isolation of faults."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from paglets.core.errors import Conflict, PagletsError, StoreFull
from paglets.host.runtime.runner import RETRY_AFTER_FAULT_SECONDS, Runner
from paglets.store.db import Store, Tx
from paglets.store.events import record_event
from tests.fakes.clock import FakeClock
from tests.fakes.logs import logger_to
from tests.fakes.store import memory_database


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.commits = 0
        self.log: list[str] = []
        self.said: list[object] = []
        self.store = Store(memory_database(), commit=self._commit)
        self.runner = Runner(self.store, self.clock, logger_to(self.log.append))
        self.store.on_commit = lambda wakes, touched: self.runner.wake(*wakes)

    def _commit(self, connection: sqlite3.Connection) -> None:
        self.commits += 1
        connection.execute("COMMIT")

    def say(self, what: object) -> None:
        self.said.append(what)

    def part(self, name: str, tick: Callable[[float], float | None] | None = None, pause: float = 0.0) -> None:
        self.runner.add(Ticker(name, tick or (lambda now: self.say(name))), pause)  # type: ignore[func-returns-value]

    def settle(self) -> float | None:
        for _ in range(100):
            pause = self.runner.step()
            if pause != 0.0:
                return pause
        raise AssertionError("it does not come to rest")


class Ticker:
    def __init__(self, name: str, tick: Callable[[float], float | None]) -> None:
        self.name = name
        self._tick = tick

    def tick(self, now: float) -> float | None:
        return self._tick(now)


class Joiner(Ticker):
    """A part that stores a row in the transaction that wakes it, and wakes `then`."""

    def __init__(self, name: str, say: Callable[[object], None], then: str = "") -> None:
        super().__init__(name, lambda now: say(f"tick {name}"))  # type: ignore[func-returns-value]
        self._say = say
        self._then = then
        self.error: Exception | None = None

    def join(self, tx: Tx) -> str:
        put(f"of {self.name}")(tx)
        if self.error is not None:
            raise self.error
        if self._then:
            tx.wake(self._then)
        return f"joined {self.name}"

    def joined(self, value: str) -> None:
        self._say(value)


@pytest.fixture
def joiners(rig: Rig) -> tuple[Joiner, Joiner]:
    """Two parts: the first wakes the second in the transaction that it joins."""
    first, second = Joiner("first", rig.say, "second"), Joiner("second", rig.say)
    rig.runner.add(first)
    rig.runner.add(second)
    rig.runner.let_join(first, second)
    rig.settle()
    rig.said.clear()
    return first, second


def waking(part: str) -> Callable[[Tx], int]:
    def change(tx: Tx) -> int:
        tx.wake(part)
        return put("a")(tx)

    return change


@pytest.fixture
def rig() -> Rig:
    return Rig()


def put(key: str) -> Callable[[Tx], int]:
    return lambda tx: tx.run("INSERT INTO meta VALUES (?, 'x')", key)


def test_events_then_changes_then_parts(rig: Rig) -> None:
    rig.part("part")
    rig.runner.change(put("a"), lambda rows: rig.say("changed"))
    rig.runner.call_soon(lambda: rig.say("event"))
    rig.settle()
    assert rig.said == ["event", "changed", "part"]


def test_events_run_in_the_order_in_which_they_came(rig: Rig) -> None:
    for number in range(5):
        rig.runner.call_soon(lambda number=number: rig.say(number))
    rig.settle()
    assert rig.said == [0, 1, 2, 3, 4]


def test_changes_that_wait_together_are_one_commit(rig: Rig) -> None:
    for number in range(10):
        rig.runner.change(put(f"k{number}"), rig.say)
    rig.settle()
    assert rig.commits == 1
    assert rig.said == [1] * 10


def test_what_an_event_changes_is_committed_in_the_same_step(rig: Rig) -> None:
    rig.runner.call_soon(lambda: rig.runner.change(put("a"), rig.say))
    rig.runner.step()
    assert rig.said == [1]


def test_a_change_that_fails_tells_only_its_own_caller(rig: Rig) -> None:
    def fails(tx: Tx) -> None:
        raise Conflict("no")

    rig.runner.change(put("a"), rig.say)
    rig.runner.change(fails, lambda result: rig.say(type(result)))
    rig.runner.change(put("b"), rig.say)
    rig.settle()
    assert rig.said == [1, Conflict, 1]
    assert rig.log == []


@pytest.mark.parametrize(("error", "faults"), [(StoreFull("disk"), 0), (Conflict("no"), 1)])
def test_an_error_that_nobody_deals_with_is_a_fault_but_for_one_that_passes(
    rig: Rig, error: PagletsError, faults: int
) -> None:
    def fails(tx: Tx) -> None:
        raise error

    rig.runner.change(fails)
    rig.settle()
    assert len(rig.log) == faults
    events = rig.store.read(lambda tx: [tuple(row) for row in tx.all("SELECT kind, text FROM events")])
    assert events == [("fault", repr(error))] * faults


def test_an_event_handed_in_during_a_step_is_run_in_the_next_one(rig: Rig) -> None:
    rig.runner.call_soon(lambda: rig.runner.call_soon(lambda: rig.say("second")))
    assert rig.runner.step() == 0.0
    assert rig.said == []
    rig.settle()
    assert rig.said == ["second"]


def test_a_part_is_due_at_once_then_when_it_says_and_when_it_is_woken(rig: Rig) -> None:
    rig.part("a", lambda now: rig.say(now) or now + 5.0)  # type: ignore[func-returns-value]
    start = rig.clock.monotonic()
    assert rig.settle() == 5.0
    rig.clock.advance(3.0)
    assert rig.settle() == 2.0
    rig.runner.wake("a")
    assert rig.settle() == 5.0
    rig.clock.advance(5.0)
    rig.settle()
    assert rig.said == [start, start + 3, start + 8]


def test_a_part_that_has_nothing_to_do_runs_only_when_woken(rig: Rig) -> None:
    rig.part("a")
    assert rig.settle() is None
    rig.clock.advance(1e6)
    assert rig.settle() is None
    assert rig.said == ["a"]
    rig.store.write(lambda tx: tx.wake("a"))
    rig.settle()
    assert rig.said == ["a", "a"]


def test_a_wake_during_its_own_tick_is_not_lost(rig: Rig) -> None:
    def tick(now: float) -> None:
        rig.say("tick")
        if len(rig.said) < 3:
            rig.runner.wake("a")

    rig.part("a", tick)
    assert rig.settle() is None
    assert rig.said == ["tick"] * 3


def test_a_wake_for_a_part_that_is_not_there_is_nothing(rig: Rig) -> None:
    rig.runner.wake("nobody")
    assert rig.settle() is None


def test_what_comes_in_from_outside_signals(rig: Rig) -> None:
    rig.runner.signal = lambda: rig.say("signal")
    rig.runner.wake("a")
    rig.runner.call_soon(lambda: None)
    rig.runner.change(put("a"))
    assert rig.said == ["signal"] * 3


def test_a_fault_in_one_part_stops_no_other_and_it_is_tried_again(rig: Rig) -> None:
    def breaks(now: float) -> None:
        rig.say("broken")
        raise RuntimeError("part broke")

    rig.part("a", breaks)
    rig.part("b")
    pause = rig.settle()
    assert pause == RETRY_AFTER_FAULT_SECONDS
    assert rig.said == ["broken", "b"]
    rig.clock.advance(RETRY_AFTER_FAULT_SECONDS)
    rig.settle()
    assert rig.said == ["broken", "b", "broken"]
    assert all("RuntimeError: part broke" in line and "Traceback" in line for line in rig.log)
    events = rig.store.read(lambda tx: [tuple(row) for row in tx.all("SELECT kind, subject, text FROM events")])
    assert events == [("fault", "part a", "RuntimeError('part broke')")] * 2


@pytest.mark.parametrize("where", ["event", "then"])
def test_a_fault_in_an_event_or_after_a_commit_stops_nothing(rig: Rig, where: str) -> None:
    def breaks(result: object = None) -> None:
        raise RuntimeError("it broke")

    if where == "event":
        rig.runner.call_soon(breaks)
    else:
        rig.runner.change(put("a"), breaks)
    rig.runner.call_soon(lambda: rig.say("event"))
    rig.runner.change(put("b"), rig.say)
    rig.settle()
    assert rig.said == ["event", 1]
    assert len(rig.log) == 1


# Parts that join a transaction.


def keys(rig: Rig) -> list[str]:
    return rig.store.read(lambda tx: [row["key"] for row in tx.all("SELECT key FROM meta ORDER BY key")])


def test_parts_that_a_change_wakes_work_in_its_commit_one_after_the_other(
    rig: Rig, joiners: tuple[Joiner, Joiner]
) -> None:
    rig.runner.change(waking("first"), rig.say)
    rig.settle()
    assert rig.commits == 1
    assert keys(rig) == ["a", "of first", "of second"]
    assert rig.said == [1, "joined first", "joined second", "tick first", "tick second"]


def test_a_part_that_nothing_wakes_does_not_join(rig: Rig, joiners: tuple[Joiner, Joiner]) -> None:
    rig.runner.change(waking("second"), rig.say)
    rig.settle()
    assert keys(rig) == ["a", "of second"]


def test_a_part_that_cannot_join_undoes_no_change_and_works_in_its_tick(
    rig: Rig, joiners: tuple[Joiner, Joiner]
) -> None:
    joiners[1].error = RuntimeError("it broke")
    rig.runner.change(waking("first"), rig.say)
    rig.settle()
    assert keys(rig) == ["a"]
    assert rig.said == [1, "tick first"]
    assert len(rig.log) == 1


def test_nothing_has_joined_a_commit_that_failed(rig: Rig, joiners: tuple[Joiner, Joiner]) -> None:
    joiners[1].error = StoreFull("disk")
    rig.runner.change(waking("first"), rig.say)
    rig.settle()
    assert keys(rig) == ["a"]
    assert rig.log == []


def test_a_change_of_another_thread_is_joined_and_its_error_is_raised(rig: Rig, joiners: tuple[Joiner, Joiner]) -> None:
    def fails(tx: Tx) -> None:
        raise Conflict("no")

    assert rig.runner.write(waking("second")) == 1
    assert keys(rig) == ["a", "of second"]
    with pytest.raises(Conflict):
        rig.runner.write(fails)
    first, second = rig.runner.write_all([put("b"), fails])
    assert (first, type(second)) == (1, Conflict)


def test_an_end_that_nothing_may_catch_goes_through(rig: Rig) -> None:
    def end() -> None:
        raise SystemExit

    rig.runner.call_soon(end)
    with pytest.raises(SystemExit):
        rig.runner.step()


def test_events_for_people_are_bounded(rig: Rig) -> None:
    for number in range(5):
        rig.store.write(lambda tx, number=number: record_event(tx, 1.0, "k", "s", f"{number}" * 3_000, keep=2))
    texts = rig.store.read(lambda tx: [row["text"] for row in tx.all("SELECT text FROM events ORDER BY id")])
    assert texts == ["3" * 2_000, "4" * 2_000]


def test_wakes_of_a_part_with_a_pause_share_a_tick_when_it_is_over(rig: Rig) -> None:
    rig.part("resting", pause=0.5)
    rig.part("other")
    rig.settle()
    rig.said.clear()
    for _ in range(3):
        rig.runner.wake("resting", "other")
        rig.settle()
    assert rig.said == ["other"] * 3
    assert rig.settle() == pytest.approx(0.5)
    rig.clock.advance(0.5)
    assert rig.settle() is None
    assert rig.said == ["other"] * 3 + ["resting"]
    rig.clock.advance(5.0)
    rig.runner.wake("resting")
    rig.settle()
    assert rig.said[4:] == ["resting"]
