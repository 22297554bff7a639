"""The simulator finds what is broken on purpose: a check that finds nothing is worth nothing."""

from __future__ import annotations

import pytest

from tests.simulator.breaks import BREAKS, Break
from tests.simulator.bytebreaks import BYTE_BREAKS
from tests.simulator.world import run_seed

WITHIN_SEEDS = 25
"""So many, from 1 on, find each break at the latest."""


@pytest.mark.parametrize("broken", BREAKS + BYTE_BREAKS, ids=lambda broken: broken.name.replace(" ", "-"))
def test_a_deliberate_break_is_found(broken: Break) -> None:
    runs = (
        run_seed(seed, profile=broken.profile, tampering=broken.make()).violations
        for seed in range(1, WITHIN_SEEDS + 1)
    )
    assert any(runs), f"{WITHIN_SEEDS} seeds do not notice that {broken.name}"
    assert not broken.unused(), "these statements are not made any more"
