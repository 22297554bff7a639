"""Keyed locks."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from paglets.host.runtime.threads import KeyedLocks


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
