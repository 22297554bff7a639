"""The simulator finds what is broken on purpose: a check that finds nothing is worth nothing."""

from __future__ import annotations

import pytest

from paglets.testing.simulation.breaks import BREAKS, Break
from paglets.testing.simulation.bytebreaks import BYTE_BREAKS
from paglets.testing.simulation.world import Simulation


@pytest.mark.parametrize("broken", BREAKS + BYTE_BREAKS, ids=lambda broken: broken.name.replace(" ", "-"))
def test_a_deliberate_break_is_found(broken: Break) -> None:
    for seed in range(1, broken.within_seeds + 1):
        simulation = Simulation(seed, profile=broken.profile, tampering=broken.make())
        violations = simulation.run().violations
        simulation.close()
        if violations:
            break
    else:
        pytest.fail(f"{broken.within_seeds} seeds do not notice that {broken.name}")
    unused = [rule.pattern for rule in broken.rules if not rule.hits]
    assert not unused, f"these statements are not made any more: {unused}"
