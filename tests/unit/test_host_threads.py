"""Keyed locks, and the thread of the runner."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from paglets.core.errors import ShuttingDown
from paglets.host.runtime.runner import Runner
from paglets.host.runtime.threads import KeyedLocks, RunnerThread
from paglets.store.db import Store, Tx
from tests.fakes.clock import FakeClock
from tests.fakes.logs import logger_to
from tests.fakes.store import memory_database


def test_whoever_has_the_lock_of_one_key_holds_up_no_other_key() -> None:
    locks = KeyedLocks()

    def take_many() -> int:
        for number in range(1000):
            with locks.of(str(number)):
                pass
        return 1000

    with ThreadPoolExecutor(1) as pool, locks.of("one"):
        assert pool.submit(take_many).result(timeout=60) == 1000


def test_a_lock_is_held_by_one_at_a_time_and_given_back_whatever_happens() -> None:
    locks = KeyedLocks()
    inside: list[int] = []
    most = 0

    def enter(number: int) -> None:
        nonlocal most
        with locks.of("one"):
            inside.append(number)
            time.sleep(0)  # the others' turn
            most = max(most, len(inside))
            inside.remove(number)

    with pytest.raises(ValueError, match="mine"), locks.of("one"):
        raise ValueError("mine")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(1000)))
    assert most == 1


@pytest.fixture
def runner() -> Runner:
    return Runner(Store(memory_database()), FakeClock(), logger_to(lambda text: None))


@pytest.fixture
def thread(runner: Runner) -> Iterator[RunnerThread]:
    ended: list[BaseException] = []
    thread = RunnerThread(runner, ended.append)
    thread.start()
    yield thread
    thread.stop()
    assert ended == []


def test_the_change_of_another_thread_is_committed_by_the_runner(runner: Runner, thread: RunnerThread) -> None:
    def change(tx: Tx) -> str:
        return threading.current_thread().name

    assert runner.write(change) == "paglets-runner"
    assert runner.write_all([change, change]) == ["paglets-runner"] * 2
    assert runner.write_all([]) == []


def test_the_runner_does_not_wait_for_itself(runner: Runner, thread: RunnerThread) -> None:
    written: list[int] = []
    runner.call_soon(lambda: written.append(runner.write(lambda tx: 1)))
    runner.write(lambda tx: 2)
    assert written == [1]


def test_a_change_after_the_end_of_the_runner_raises(runner: Runner, thread: RunnerThread) -> None:
    thread.stop()
    with pytest.raises(ShuttingDown):
        runner.write(lambda tx: 1)
