"""A short run of `python -m tests.fault.chaos`."""

from __future__ import annotations

import os

from tests.acceptance.rig import Mesh
from tests.fault import chaos

SECONDS = float(os.environ.get("PAGLETS_TEST_CHAOS_SECONDS", 10))
JOBS_A_SECOND = 4
"""The length of the test. The environment may ask for more than every run has time for."""


def test_nothing_is_lost_whoever_dies(mesh: Mesh) -> None:
    said: list[str] = []
    verdict = chaos.run(mesh, seconds=SECONDS, jobs=int(SECONDS * JOBS_A_SECOND), seed=1, say=said.append)
    print("\n".join(said))
    assert verdict.is_good, verdict
    assert min(verdict.waves, verdict.kills, verdict.restarts, verdict.harms) > 0, verdict
