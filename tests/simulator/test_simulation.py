"""Enough seeds of the simulator for every commit. `python -m tests.simulator` runs more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.simulator.__main__ import good_run
from tests.simulator.content import PIECE_BYTES, blob_of
from tests.simulator.profile import calm
from tests.simulator.seen import Seen
from tests.simulator.world import Simulation, run_seed

ROOT = Path(__file__).resolve().parents[2]
RARE = {Seen.LATE}
"""Events that need hundreds of seeds. `python -m tests.simulator --seen` counts them."""
SEEDS = 80
"""The seeds of the test. Each event happens in at least two of them, so that a change elsewhere does not make it rare.
"""

DIGESTS = """
from tests.simulator.world import run_seed
for seed in (3, 8, 14):
    print(seed, run_seed(seed).story.digest())
"""


def test_a_group_comes_to_its_results_where_nothing_goes_wrong() -> None:
    result = run_seed(1, profile=calm(hosts=2, jobs=5))
    assert not result.violations, result.story.text()


def test_a_host_sends_what_jobs_share_once_to_each_host_where_nothing_goes_wrong() -> None:
    """Another host may send it once more: a host without jobs removes it, and may steal a job that needs it later."""
    base = calm(hosts=3)
    load = replace(base.load, groups=1, most_jobs=12, files=1.0, counters=0, plans=("success",))
    sent = 0
    for seed in range(1, 11):
        simulation = Simulation(seed, profile=replace(base, load=load))
        assert not simulation.run().violations
        simulation.close()
        pieces = {
            blob_of(data).sha256: max(1, -(-len(data) // PIECE_BYTES)) for data in simulation.workload.files.contents
        }
        arrived = simulation.traffic.pieces
        assert arrived == {way: pieces[way[2]] for way in arrived}
        sent += len(arrived)
    assert sent


def test_all_that_may_happen_happens_and_every_promise_holds() -> None:
    seen: Counter[Seen] = Counter()
    for seed in range(1, SEEDS + 1):
        seen.update(good_run(seed).seen)
    assert not set(Seen) - set(+seen) - RARE


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    stories = {_digests(hash_seed) for hash_seed in ("0", "1", "2")}
    assert len(stories) == 1


def _digests(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout
