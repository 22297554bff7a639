"""Seeds of the simulator, few enough for every commit; `python -m tests.simulate` runs as many as wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paglets.testing.simulation.profile import calm
from paglets.testing.simulation.world import Simulation

ROOT = Path(__file__).resolve().parents[2]
SEEDS_AT_ONCE = 20
SEEDS = 200

DIGESTS = """
from paglets.testing.simulation.world import Simulation
for seed in (3, 8, 14):
    print(seed, Simulation(seed).run().story.digest())
"""


def test_a_group_comes_to_its_results_where_nothing_goes_wrong() -> None:
    simulation = Simulation(1, profile=calm(hosts=2, jobs=5))
    result = simulation.run()
    assert not result.violations, result.story.text()


@pytest.mark.parametrize("first", range(1, SEEDS + 1, SEEDS_AT_ONCE))
def test_every_promise_holds_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, first + SEEDS_AT_ONCE):
        simulation = Simulation(seed)
        result = simulation.run()
        simulation.close()
        assert not result.violations, f"seed {seed}: {result.violations}\n{result.story.text()}"


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    stories = {_digests(hash_seed) for hash_seed in ("0", "1", "2")}
    assert len(stories) == 1


def _digests(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout
