"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, timeout_seconds: float = 20.0, what: str = "") -> T:
    """The first true value of `condition()`. Raises AssertionError that shows what was last seen."""
    deadline = time.monotonic() + timeout_seconds
    pause = 0.002
    while True:
        seen = condition()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds:g} s for {what or condition.__name__}; last saw {seen!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
