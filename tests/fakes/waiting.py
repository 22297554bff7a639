"""Waits for a condition instead of a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, timeout_seconds: float = 20.0, what: str = "") -> T:
    """Return the first true value of `condition()`. Raises AssertionError that shows the last value.

    A slow condition, such as the run of a command, is checked for at most half of the time.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = 0.002
    while True:
        began = time.monotonic()
        seen = condition()
        took = time.monotonic() - began
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds:g} s for {what or condition.__name__}; last saw {seen!r}")
        time.sleep(max(pause, took))
        pause = min(pause * 1.5, 0.1)
