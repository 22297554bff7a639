"""Faults of a run: crashes at seams, network partitions, a bad network, sleeping machines, lost zygotes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from paglets.core.clock import Entropy
from tests.fakes.clock import FakeClock
from tests.simulator.fuse import AT_DISK, SEAMS
from tests.simulator.machine import Machine
from tests.simulator.network import Network, Weather
from tests.simulator.processes import Death
from tests.simulator.story import Story

MOST_PASSES = 40
BURNS_WITHIN_SECONDS = 5.0
MOST_DISK_PASSES = 8
DISK_BURNS_WITHIN_SECONDS = 20.0
"""The time until a machine with a fuse at its disk crashes anyway.

Blobs change less often than other state, and most byte faults happen at their steps.
"""

WHERE = (*SEAMS, AT_DISK, AT_DISK)
DOWN_SECONDS = (0.02, 12.0)
PARTED_SECONDS = (0.5, 20.0)
ASLEEP_SECONDS = (0.5, 25.0)
HOLE_SECONDS = (0.5, 20.0)
FULL_SECONDS = (0.01, 8.0)
LOOK_SECONDS = 0.2
CLOCK_STEP_SECONDS = (-4000.0, 4000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """The number of faults of each kind in a run of `seconds`. `weather` holds for the whole run.

    `new_addresses` is the share of restarts with a new URL. If `departs`, the last machine is lost for good. If
    `wiped`, it loses its data directory and restarts. If `forgotten`, users remove its old store from all other hosts.
    """

    crashes: int = 0
    partings: int = 0
    one_way: int = 0
    sleeps: int = 0
    zygotes: int = 0
    templates: int = 0
    workers: int = 0
    full_disks: int = 0
    clock_steps: int = 0
    holes: int = 0
    departs: bool = False
    wiped: bool = False
    forgotten: bool = False
    new_addresses: float = 0.0
    weather: Weather = field(default_factory=Weather)
    seconds: float = 30.0


@dataclass(slots=True, kw_only=True)
class Faults:
    """A plan of all faults of a run. `heal` ends them.

    `gone` is called with a machine that is lost for good, `wiped` with a machine that is to lose its data directory.
    """

    trouble: Trouble
    entropy: Entropy
    clock: FakeClock
    network: Network
    machines: tuple[Machine, ...]
    story: Story
    gone: Callable[[Machine], None]
    wiped: Callable[[Machine], None]
    healed: bool = False

    def plan(self) -> None:
        trouble, last = self.trouble, self.machines[-1]
        self.network.weather = trouble.weather
        kinds: tuple[tuple[Callable[[], None], int], ...] = (
            (self._crash, trouble.crashes),
            (self._part, trouble.partings),
            (self._part_one_way, trouble.one_way),
            (self._sleep, trouble.sleeps),
            (self._lose_zygote, trouble.zygotes),
            (self._lose_template, trouble.templates),
            (self._lose_worker, trouble.workers),
            (self._fill_disk, trouble.full_disks),
            (self._step_clock, trouble.clock_steps),
            (self._open_hole, trouble.holes),
        )
        if trouble.departs:
            self._later(self.entropy.uniform(trouble.seconds / 4, trouble.seconds), partial(self.depart, last))
        if trouble.wiped:
            self._later(self.entropy.uniform(trouble.seconds / 4, trouble.seconds), partial(self.wiped, last))
        for act, count in kinds:
            for _ in range(count):
                self._later(self.entropy.uniform(0.0, trouble.seconds), act)

    def depart(self, machine: Machine) -> None:
        """Lose a machine for good."""
        machine.is_gone = True
        self.gone(machine)
        machine.crash("for good")

    def heal(self) -> None:
        """End all faults and start every host."""
        self.healed = True
        self.story.tell("world", "all faults end")
        self.network.heal()
        for machine in self.machines:
            if machine.is_gone:
                continue
            machine.mend()
            if machine.life is not None:
                machine.life.fuse.put_out()
            machine.start()

    def crashed(self, machine: Machine) -> None:
        """Restart a crashed machine later. It may crash again during the start."""
        if machine.is_gone:
            return
        if not self.healed and self.entropy.uniform(0, 1) < 0.15:
            machine.next_fuse = (SEAMS[self.entropy.pick(2)], 1 + self.entropy.pick(4))
        # The first machine keeps its address, because it is the initial peer of all others.
        if machine is not self.machines[0] and self.entropy.uniform(0, 1) < self.trouble.new_addresses:
            machine.readdress()
        self._later(self.entropy.uniform(*DOWN_SECONDS), machine.start)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        def unless_healed() -> None:
            if not self.healed:
                act()

        self.clock.call_at(self.clock.monotonic() + seconds, unless_healed)

    def _any(self) -> Machine:
        return self.machines[self.entropy.pick(len(self.machines))]

    def _crash(self) -> None:
        machine = self._any()
        life = machine.life
        if life is None:
            return
        seam = WHERE[self.entropy.pick(len(WHERE))]
        life.fuse.light(seam, 1 + self.entropy.pick(MOST_DISK_PASSES if seam == AT_DISK else MOST_PASSES))

        def too_late() -> None:
            if machine.life is life:
                machine.crash("between two steps")

        most = DISK_BURNS_WITHIN_SECONDS if seam == AT_DISK else BURNS_WITHIN_SECONDS
        self._later(self.entropy.uniform(0.0, most), too_late)

    def _open_hole(self) -> None:
        machine, seconds = self._any(), self.entropy.uniform(*HOLE_SECONDS)
        store_id = machine.store_id
        self.story.tell(machine.name, f"answers nobody for {seconds:.1f} s")
        self.network.open_hole(store_id)
        self._later(seconds, lambda: self.network.close_hole(store_id))

    def _part(self) -> None:
        side = [machine.store_id for machine in self.machines if self.entropy.pick(2)]
        others = [machine.store_id for machine in self.machines if machine.store_id not in side]
        self._block([(a, b) for a in side for b in others] + [(b, a) for a in side for b in others])

    def _part_one_way(self) -> None:
        one, other = self._any(), self._any()
        if one is not other:
            self._block([(one.store_id, other.store_id)])

    def _block(self, pairs: list[tuple[str, str]]) -> None:
        seconds = self.entropy.uniform(*PARTED_SECONDS)
        self.story.tell("world", f"parted for {seconds:.1f} s: {', '.join(f'{a} to {b}' for a, b in pairs)}")
        for pair in pairs:
            self.network.block(*pair)

        def end() -> None:
            for pair in pairs:
                self.network.unblock(*pair)

        self._later(seconds, end)

    def _sleep(self) -> None:
        self._any().pause(self.entropy.uniform(*ASLEEP_SECONDS))

    def _fill_disk(self) -> None:
        self._any().fill_disk(self.entropy.uniform(*FULL_SECONDS))

    def _step_clock(self) -> None:
        self._any().step_wall_clock(self.entropy.uniform(*CLOCK_STEP_SECONDS))

    def _lose_zygote(self) -> None:
        machine = self._any()
        if machine.life is not None and machine.life.launcher is not None:
            self.story.tell(machine.name, "loses its zygote")
            machine.life.launcher.lose_zygote()

    def _lose_template(self) -> None:
        machine = self._any()
        if machine.life is not None and machine.life.launcher is not None:
            self.story.tell(machine.name, "loses a template")
            machine.life.launcher.templates.lose_any()

    def _lose_worker(self) -> None:
        """Kill a warm worker, as soon as there is one."""
        machine, at = self._any(), tuple(Death)[self.entropy.pick(len(Death))]
        launcher = None if machine.life is None else machine.life.launcher
        if launcher is not None and launcher.lose_worker(at):
            self.story.tell(machine.name, "loses a warm worker")
        else:
            self._later(LOOK_SECONDS, self._lose_worker)
