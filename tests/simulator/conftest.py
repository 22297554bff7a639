"""How the simulator's tests run."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.simulator.__main__ import collect_garbage_seldom


@pytest.fixture(autouse=True, scope="session")
def garbage_is_collected_seldom() -> Iterator[None]:
    before = gc.get_threshold()
    collect_garbage_seldom()
    yield
    gc.set_threshold(*before)
