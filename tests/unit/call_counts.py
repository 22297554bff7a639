"""Counts of calls, for tests of what an operation does not do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, TypeVar

T = TypeVar("T")


def calls_of(functions: Sequence[Callable[..., Any]], act: Callable[[], T]) -> tuple[T, int]:
    """Return the result of `act`, and how often this thread called one of `functions` meanwhile."""
    codes = {function.__code__ for function in functions if isinstance(function, FunctionType)}
    assert len(codes) == len(functions)
    calls = 0

    def look(frame: Any, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code in codes

    sys.setprofile(look)
    try:
        return act(), calls
    finally:
        sys.setprofile(None)
