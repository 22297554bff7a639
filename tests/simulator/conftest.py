"""Configuration of the simulator's tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.simulator.__main__ import collect_garbage_rarely


@pytest.fixture(autouse=True, scope="session")
def rare_garbage_collection() -> Iterator[None]:
    before = gc.get_threshold()
    collect_garbage_rarely()
    yield
    gc.set_threshold(*before)
