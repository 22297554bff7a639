"""The plan that a seed gives: submissions and faults with their times."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import tests.acceptance.rig  # noqa: F401  the folder of the jobs is on the path since then
from paglets.core.failpoints import POINTS
from paglets.slots.model import ISOLATIONS

from byte_jobs import BytesState  # isort: skip

HOME, COLLECTOR = "laptop", "keeper"
NAMES = (HOME, COLLECTOR, "linux-a", "linux-b", "linux-c")
MANY = 1_000_000

WAVE_SECONDS = 2.5
"""The time between two submissions, so that there is work as long as there are faults."""

FAULTS_A_WAVE, LONG_FAULTS_A_WAVE = 3, 1
AFTER_WAVE_SECONDS = 0.6
"""The mean time from a submission to a fault. Most faults hit work, and hosts are mostly up again for the next one."""

FAULT_SECONDS, LONGEST_FAULT_SECONDS = 1.0, 8.0
"""The mean and the maximum."""

LONG_FAULTS, ARMED = 0.2, 0.4
"""The share of all faults."""

ARTIFACT_SHARE = 0.75
"""The share of the jobs."""

HARMS: dict[str, dict[str, Any]] = {
    "refuses": {"refuses": True},
    "swallows": {"swallows": True},
    "drops replies": {"drops_replies": True},
    "delays": {"delay_seconds": 0.3},
    "resets": {"resets": 0.05},
    "throttles": {"bytes_a_second": 200_000.0},
}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Fault:
    """A fault `at` seconds after the start, undone after `seconds`. `pick` in [0, 1) chooses a process.

    `point` is the failpoint at which a restarted host dies, if any.
    """

    at: float
    act: str
    host: str
    seconds: float
    pick: float
    harm: str
    point: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """A group. The keys of its jobs are the group's key and a number."""

    group_id: str
    at: float
    states: tuple[BytesState, ...]
    collector_host: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan of submissions and faults."""

    faults: tuple[Fault, ...]
    waves: tuple[Wave, ...]


def plan(seconds: float, jobs: int, seed: int, weights: dict[str, int], lost_after: float | None = None) -> Plan:
    """Return a plan. `weights` are the relative frequencies of faults.

    With `lost_after` there are fewer faults. Some last up to twice that long, so that hosts are lost.
    """
    chance = random.Random(seed)
    count = max(1, round(seconds / WAVE_SECONDS))
    each = FAULTS_A_WAVE if lost_after is None else LONG_FAULTS_A_WAVE
    faults = [_fault(chance, n, weights, lost_after) for n in range(count) for _ in range(each)]
    shares = [jobs * (n + 1) // count - jobs * n // count for n in range(count)]
    waves = [_wave(chance, n, share) for n, share in enumerate(shares)]
    return Plan(faults=tuple(sorted(faults)), waves=tuple(waves))


def _fault(chance: random.Random, n: int, weights: dict[str, int], lost_after: float | None) -> Fault:
    lasts, hosts = min(chance.expovariate(1 / FAULT_SECONDS), LONGEST_FAULT_SECONDS), NAMES
    if lost_after is not None and chance.random() < LONG_FAULTS:
        # If home were away for long, nothing would be submitted.
        lasts, hosts = lost_after * (1 + chance.random()), NAMES[1:]
    return Fault(
        at=round(n * WAVE_SECONDS + chance.expovariate(1 / AFTER_WAVE_SECONDS), 3),
        act=chance.choices(list(weights), list(weights.values()))[0],
        host=chance.choice(hosts),
        seconds=round(lasts, 3),
        pick=chance.random(),
        harm=chance.choice(list(HARMS)),
        point=f"{chance.choice(list(POINTS))}:kill@{chance.randint(1, 4)}" if chance.random() < ARMED else "",
    )


def _wave(chance: random.Random, n: int, count: int) -> Wave:
    group_id = f"wave-{n:02d}"
    states = tuple(
        BytesState(
            job_key=f"{group_id}-{job:03d}",
            seconds=chance.uniform(0.05, 0.5),
            # A report without bytes is sent before its receiver is known to be there.
            size_bytes=int(2 ** chance.uniform(11, 20)) if chance.random() < ARTIFACT_SHARE else 0,
            allow_home_compute=True,
            max_losses=MANY,
            isolation=ISOLATIONS[job % len(ISOLATIONS)],
        )
        for job in range(count)
    )
    return Wave(
        group_id=group_id,
        at=n * WAVE_SECONDS,
        states=states,
        collector_host=COLLECTOR if chance.random() < 0.7 else None,
    )
