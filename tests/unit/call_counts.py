"""Counts of calls, for tests of what an operation does not do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

T = TypeVar("T")


def calls_of(function: Callable[..., Any], act: Callable[[], T]) -> tuple[T, int]:
    """Return the result of `act`, and how often this thread called `function` meanwhile."""
    assert isinstance(function, FunctionType)
    calls = 0

    def look(frame: Any, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code is function.__code__

    sys.setprofile(look)
    try:
        return act(), calls
    finally:
        sys.setprofile(None)
