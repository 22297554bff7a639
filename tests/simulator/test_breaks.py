"""The simulator finds every deliberate bug: a check that finds nothing is worthless."""

from __future__ import annotations

import pytest

from tests.simulator.breaks import BREAKS, Break
from tests.simulator.bytebreaks import BYTE_BREAKS
from tests.simulator.deliverybreaks import DELIVERY_BREAKS
from tests.simulator.processbreaks import PROCESS_BREAKS
from tests.simulator.workerbreaks import WORKER_BREAKS
from tests.simulator.world import run_seed

WITHIN_SEEDS = 25
"""The number of seeds, from 1 on, within which each bug must be found."""


ALL_BREAKS = BREAKS + BYTE_BREAKS + DELIVERY_BREAKS + PROCESS_BREAKS + WORKER_BREAKS


@pytest.mark.parametrize("broken", ALL_BREAKS, ids=lambda broken: broken.name.replace(" ", "-"))
def test_a_deliberate_break_is_found(broken: Break) -> None:
    runs = (
        run_seed(seed, profile=broken.profile, tampering=broken.make()).violations
        for seed in range(1, WITHIN_SEEDS + 1)
    )
    assert any(runs), f"{WITHIN_SEEDS} seeds do not notice that {broken.name}"
    assert not broken.unused(), "no statement matches these patterns"
