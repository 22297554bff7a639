"""What a seed of the chaos decides: who submits what and when, and what is done to whom."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import tests.acceptance.rig  # noqa: F401  the folder of the jobs is on the path since then
from paglets.core.failpoints import POINTS

from byte_jobs import BytesState  # isort: skip

HOME, COLLECTOR = "laptop", "keeper"
NAMES = (HOME, COLLECTOR, "linux-a", "linux-b", "linux-c")
MANY = 1_000_000

WAVE_SECONDS = 2.5
"""Between two submissions, so that there is work as long as there are faults."""

FAULTS_A_WAVE, LONG_FAULTS_A_WAVE = 3, 1
AFTER_WAVE_SECONDS = 0.6
"""On average, from a submission to a fault: most hit work, and hosts are up again, mostly, for the next one."""

FAULT_SECONDS, LONGEST_FAULT_SECONDS = 1.0, 8.0
"""On average, and at most."""

LONG_FAULTS, ARMED = 0.2, 0.4
"""Of all."""

ARTIFACT_SHARE = 0.75
"""Of the jobs."""

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
    """`at` seconds since the begin; `seconds`: how long until it is undone; `pick` in [0, 1) chooses a process.

    `point`: the failpoint that a host which comes back is started with, perhaps; it dies there.
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
    """A group: its jobs' keys are those of the group and a number."""

    group_id: str
    at: float
    states: tuple[BytesState, ...]
    collector_host: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a seed decides."""

    faults: tuple[Fault, ...]
    waves: tuple[Wave, ...]


def plan(seconds: float, jobs: int, seed: int, weights: dict[str, int], lost_after: float | None = None) -> Plan:
    """`weights`: how often each act comes, compared with the others. With `lost_after` there are fewer faults, and some
    last up to twice that long, so that hosts are lost."""
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
        # With home away for long nothing would be submitted.
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
            # A report without bytes is sent before one knows whether anybody is there to take it.
            size_bytes=int(2 ** chance.uniform(11, 20)) if chance.random() < ARTIFACT_SHARE else 0,
            allow_home_compute=True,
            max_losses=MANY,
        )
        for job in range(count)
    )
    return Wave(
        group_id=group_id,
        at=n * WAVE_SECONDS,
        states=states,
        collector_host=COLLECTOR if chance.random() < 0.7 else None,
    )
