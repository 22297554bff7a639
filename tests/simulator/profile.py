"""The kind of run of a seed: number of hosts, amount of work, faults.

Each run has only some of the faults. If all happened at once, rare combinations of two would be hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from paglets.slots.model import Resources
from tests.fakes.clock import SeededEntropy
from tests.simulator.faults import Trouble
from tests.simulator.network import Weather
from tests.simulator.scripts import LEAVES
from tests.simulator.workload import ALL_PLANS, Load

GIB = 1 << 30
MANY_HOSTS = 9
MOST_HOSTS = 30
MANY_HOSTS_SECONDS = 11.0
"""The length of a run with many hosts, and the time until they take a host for lost. Each second is expensive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A kind of run. A run fails if it needs more than `most_events`.

    No other machine can connect to a machine whose number is in `unreachable`. The initial peer h0 is never among them.
    All others start `alone_seconds` after h0.
    """

    hosts: int
    offered: tuple[Resources, ...]
    load: Load
    trouble: Trouble
    handler_trouble: float = 0.0
    short_pins: bool = False
    lost_after: float = 120.0
    unreachable: tuple[int, ...] = ()
    alone_seconds: float = 0.0
    most_events: int = 80_000


def calm(hosts: int = 2, jobs: int = 5) -> Profile:
    """Return a run without faults."""
    return Profile(
        hosts=hosts,
        offered=(Resources(cpu_cores=2, memory_bytes=8 * GIB),) * hosts,
        load=Load(most_jobs=jobs, moves=0, doomed=0, cancels=0),
        trouble=Trouble(seconds=5.0),
    )


def profile_of(seed: int) -> Profile:
    """Return the kind of run of a seed."""
    entropy = SeededEntropy(f"{seed}/profile")
    hosts = 2 + entropy.pick(3) if entropy.pick(8) else 5 + entropy.pick(4)
    offered = tuple(
        Resources(cpu_cores=2 + entropy.pick(3), memory_bytes=(4 + entropy.pick(5)) * GIB, gpus=entropy.pick(2))
        for _ in range(hosts)
    )
    seconds = entropy.uniform(10.0, 30.0)
    lost_after, departs = _losses(SeededEntropy(f"{seed}/losses"), hosts)
    wiped, forgotten, holes = _more_trouble(SeededEntropy(f"{seed}/more"), hosts, departs)
    load, trouble = _load(entropy, seconds), _trouble(entropy, seconds)
    profile = Profile(
        hosts=hosts,
        offered=offered,
        load=replace(load, stays=hosts - (departs or wiped)),
        trouble=replace(trouble, departs=departs, wiped=wiped, forgotten=forgotten, holes=holes),
        handler_trouble=0.2 * entropy.pick(2),
        short_pins=entropy.pick(3) != 0,
        lost_after=lost_after,
        unreachable=_unreachable(entropy, hosts),
    )
    hooks = SeededEntropy(f"{seed}/hooks")
    if hooks.pick(3) == 0:
        plans = (*profile.load.plans, *(LEAVES,) * (1 + hooks.pick(2)))
        profile = replace(
            profile, load=replace(profile.load, plans=plans, reruns=2 + hooks.pick(8), lost_home=forgotten)
        )
    templates = SeededEntropy(f"{seed}/templates")
    if profile.load.files and templates.pick(2):
        profile = replace(profile, trouble=replace(profile.trouble, templates=1 + templates.pick(6)))
    workers = SeededEntropy(f"{seed}/workers")
    if profile.load.files and workers.pick(3):
        profile = _with_workers(profile, workers)
    alone = SeededEntropy(f"{seed}/first")
    if alone.pick(4) == 0:
        seconds = alone.uniform(2.0, 8.0)
        profile = replace(profile, alone_seconds=seconds, load=replace(profile.load, alone_seconds=seconds))
    many = SeededEntropy(f"{seed}/many")
    if many.pick(40):
        return profile
    most = MOST_HOSTS + 1 - MANY_HOSTS
    return _with_many_hosts(profile, MANY_HOSTS + min(many.pick(most), many.pick(most)))


def _with_workers(profile: Profile, entropy: SeededEntropy) -> Profile:
    """Return the same profile with jobs for warm workers: more of them than slots, so that workers run several."""
    load, trouble = profile.load, profile.trouble
    return replace(
        profile,
        load=replace(
            load,
            workers=0.5 + 0.5 * entropy.pick(2),
            short=0.5 * entropy.pick(3),
            groups=2 + entropy.pick(2),
            most_jobs=8 + entropy.pick(9),
            files=1.0,
            plans=(*load.plans, *("success",) * 6),
        ),
        trouble=replace(trouble, workers=5 * entropy.pick(4), crashes=max(trouble.crashes, entropy.pick(5))),
    )


def _more_trouble(entropy: SeededEntropy, hosts: int, departs: bool) -> tuple[bool, bool, int]:
    """Return whether a machine loses its data directory, whether users remove a lost store, and the number of holes.

    During a hole a machine answers no request.
    """
    wiped = hosts > 2 and not departs and entropy.pick(5) == 0
    return wiped, (departs or wiped) and entropy.pick(2) == 0, 1 + entropy.pick(3) if entropy.pick(3) == 0 else 0


def _with_many_hosts(profile: Profile, hosts: int) -> Profile:
    """Return the same profile with more hosts, less work and a shorter time."""
    load, trouble = profile.load, profile.trouble
    seconds = min(load.seconds, MANY_HOSTS_SECONDS)
    goes = profile.hosts - load.stays
    return replace(
        profile,
        hosts=hosts,
        offered=tuple(profile.offered[number % profile.hosts] for number in range(hosts)),
        load=replace(load, groups=1, stays=hosts - goes, seconds=seconds),
        trouble=replace(trouble, seconds=seconds),
        lost_after=min(profile.lost_after, MANY_HOSTS_SECONDS),
        most_events=4 * profile.most_events,
    )


def _losses(entropy: SeededEntropy, hosts: int) -> tuple[float, bool]:
    """Return the time after which hosts take a host for lost, and True if one is lost.

    In half of the runs the time is so short that sleeping or partitioned hosts are taken for lost.
    """
    lost_after = entropy.uniform(11.0, 25.0) if entropy.pick(2) else 120.0
    return lost_after, hosts > 2 and entropy.pick(4) == 0


def _unreachable(entropy: SeededEntropy, hosts: int) -> tuple[int, ...]:
    """Return the unreachable hosts: none in two of three runs, else one or two.

    Two of them can only communicate through other hosts.
    """
    if entropy.pick(3):
        return ()
    first, second = 1 + entropy.pick(hosts - 1), 1 + entropy.pick(hosts - 1)
    return (first, second) if first != second and entropy.pick(2) else (first,)


def _load(entropy: SeededEntropy, seconds: float) -> Load:
    plans = tuple(plan for plan in ALL_PLANS if entropy.pick(3) == 0) or ("success",)
    return Load(
        groups=1 + entropy.pick(3),
        most_jobs=2 + entropy.pick(6),
        counters=1 + entropy.pick(3),
        posts=entropy.pick(12),
        moves=entropy.pick(8),
        cancels=entropy.pick(3),
        calls=entropy.pick(4),
        job_moves=entropy.pick(6) if entropy.pick(2) else 0,
        doomed=entropy.pick(2),
        twins=2 * entropy.pick(2),
        plans=plans,
        **_files(entropy),
        seconds=seconds,
    )


def _files(entropy: SeededEntropy) -> dict[str, Any]:
    """Return the file operations of a run. Two of five runs have none but those of jobs."""
    if entropy.pick(5) > 2:
        return {}
    return {
        "files": 0.2 + 0.4 * entropy.pick(3),
        "couriers": entropy.pick(3),
        "file_posts": entropy.pick(4),
        "kept": 1 + entropy.pick(3),
        "spoils": entropy.pick(4),
    }


def _trouble(entropy: SeededEntropy, seconds: float) -> Trouble:
    def some(most: int) -> int:
        return entropy.pick(most + 1) if entropy.pick(2) else 0

    def share(most: float) -> float:
        rough = 4.0 if entropy.pick(6) == 0 else 1.0
        return entropy.uniform(0.0, most * rough) if entropy.pick(3) == 0 else 0.0

    return Trouble(
        crashes=some(6),
        partings=some(3),
        one_way=some(3),
        sleeps=some(2),
        zygotes=some(2),
        full_disks=some(4) if entropy.pick(2) else 0,
        clock_steps=some(2),
        new_addresses=share(0.5),
        weather=Weather(lost=share(0.1), cut=share(0.15), refused=share(0.15), doubled=share(0.2), slow=share(0.2)),
        seconds=seconds,
    )
