"""A machine that nobody can connect to, on good and bad networks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulator.profile import calm, profile_of
from tests.simulator.world import Result, run_seed


def run(seed: int, unreachable: tuple[int, ...] = (1,)) -> Result:
    """Run a profile. Seed 0 adds no other faults."""
    return run_seed(seed, profile=replace(profile_of(seed) if seed else calm(3), unreachable=unreachable))


@pytest.mark.parametrize("seed", range(12))
def test_with_a_machine_that_nobody_can_connect_to_all_promises_hold(seed: int) -> None:
    result = run(seed)
    assert result.violations == (), result.story.text()[-3000:]


@pytest.mark.parametrize("seed", [seed for seed in range(20) if profile_of(seed).hosts > 2])
def test_with_two_such_machines_all_promises_hold(seed: int) -> None:
    result = run(seed, unreachable=(1, 2))
    assert result.violations == (), result.story.text()[-3000:]


def test_two_such_machines_speak_through_the_third() -> None:
    story = run(0, unreachable=(1, 2)).story.text()
    assert "h1       POST /v1/via/" in story


def test_it_is_handed_work_and_answers() -> None:
    story = run(0).story.text()
    assert "h1       POST /v1/outbox/answer -> h0: arrives" in story
    assert "-> h1: arrives" not in "".join(line for line in story.splitlines() if " client " not in line)


def test_the_same_seed_tells_the_same_story() -> None:
    assert run(3).story.text() == run(3).story.text()
