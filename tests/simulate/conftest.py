"""How the simulator's tests run."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def garbage_is_collected_seldom() -> Iterator[None]:
    """As in `python -m tests.simulate`: little of a run is in cycles, and a run is soon over."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 50)
    yield
    gc.set_threshold(*before)
