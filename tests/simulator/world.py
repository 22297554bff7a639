"""One run: machines, users and faults, then a quiet mesh and the checks."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from paglets.core.refs import HostRef
from paglets.store.db import Tx
from paglets.worker.protocol import Go
from tests.fakes.clock import FakeClock, SeededEntropy
from tests.invariants import is_settled, leases_of, residence_of, sanity_check, unsettled
from tests.simulator.athome import AtHome
from tests.simulator.byteverdict import judge_bytes, left_over, may_remove, to_fetch
from tests.simulator.client import Client
from tests.simulator.content import PIN_SECONDS, SHORT_PIN_SECONDS, blob_of
from tests.simulator.databases import give_back, new_database
from tests.simulator.faults import Faults
from tests.simulator.machine import PORT, Machine, Surroundings
from tests.simulator.network import Network
from tests.simulator.profile import MANY_HOSTS, Profile, profile_of
from tests.simulator.scripts import SimScripts
from tests.simulator.seen import Seen
from tests.simulator.story import Story
from tests.simulator.tampering import Tampering
from tests.simulator.traffic import Traffic
from tests.simulator.traits import Traits
from tests.simulator.verdict import LOSS_OF, judge, newest_generation
from tests.simulator.witness import Witness
from tests.simulator.workload import Workload

CHECK_ALL_EVERY_STEPS = 200
SETTLES_WITHIN_SECONDS = 600.0
FETCHED_WITHIN_SECONDS = 60.0
"""The time limit of all downloads. A reverse connection may still wait at an earlier start of the other host."""

REMOVED_WITHIN_SECONDS = 240.0
LOOK_EVERY_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a run. `violations` is empty if every guarantee held."""

    seed: int
    violations: tuple[str, ...]
    story: Story
    virtual_seconds: float
    events: int
    seen: Mapping[Seen, int]


def run_seed(seed: int, *, profile: Profile | None = None, tampering: Tampering | None = None) -> Result:
    """Run one seed and return its result."""
    simulation = Simulation(seed, profile=profile, tampering=tampering)
    try:
        return simulation.run()
    finally:
        simulation.close()


def _note_hash(hashes: dict[str, str], artifact_id: str, data: bytes) -> None:
    hashes[artifact_id] = blob_of(data).sha256


class Simulation:
    """A simulation of one seed. Call `run` once."""

    def __init__(self, seed: int, *, profile: Profile | None = None, tampering: Tampering | None = None) -> None:
        self.seed = seed
        self.profile = profile or profile_of(seed)
        tampering = tampering or Tampering()
        self.clock = FakeClock()
        self.story = Story(self.clock)
        self.witness = Witness(self.story)
        self._at_home = AtHome(self.witness)
        self.traffic = Traffic(self.clock, self.witness)
        self.network = Network(self.clock, SeededEntropy(f"{seed}/network"), self.story, self.traffic, tampering)
        scripts = SimScripts(SeededEntropy(f"{seed}/scripts"), self.witness, self.profile.handler_trouble)
        self._around = Surroundings(
            seed=str(seed),
            clock=self.clock,
            network=self.network,
            scripts=scripts,
            story=self.story,
            witness=self.witness,
            changed=self._changed,
            crashed=lambda machine: self.faults.crashed(machine),
            tampering=tampering,
        )
        self._databases: list[sqlite3.Connection] = []
        self.machines = tuple(self._machine(number) for number in range(self.profile.hosts))
        self.network.stations = {machine.url: machine for machine in self.machines}
        self.hosts = {machine.name: machine.rows for machine in self.machines}
        self.offered = {machine.name: machine.traits.offered for machine in self.machines}
        self.faults = Faults(
            trouble=self.profile.trouble,
            entropy=SeededEntropy(f"{seed}/faults"),
            clock=self.clock,
            network=self.network,
            machines=self.machines,
            story=self.story,
            gone=self._gone,
            wiped=self._wiped,
        )
        self.client = Client(self.network, self.machines)
        self.workload = Workload(
            load=self.profile.load,
            entropy=SeededEntropy(f"{seed}/workload"),
            clock=self.clock,
            machines=self.machines,
            client=self.client,
            witness=self.witness,
        )
        self.witness.is_noted = self._is_noted
        self._lost: dict[str, Tx] = {}
        self._steps = 0
        self._events = 0

    def _machine(self, number: int) -> Machine:
        entropy = SeededEntropy(f"{self.seed}/machine/{number}")
        traits = Traits(
            name=f"h{number}",
            offered=self.profile.offered[number],
            tags=(f"tag{number % 2}",),
            peers=() if number == 0 else (f"http://h0:{PORT}",),
            wall_error_seconds=entropy.uniform(-3600.0, 3600.0) if entropy.pick(3) == 0 else 0.0,
            pin_seconds=SHORT_PIN_SECONDS if self.profile.short_pins and entropy.pick(2) else PIN_SECONDS,
            lost_after_seconds=self.profile.lost_after,
            reachable=number not in self.profile.unreachable,
        )
        machine = Machine(self._around, traits, self._new_database())
        machine.sources.on_removed = lambda path: self._source_removed(machine, path)
        return machine

    def run(self) -> Result:
        """Run the whole seed. Stop at the first violation."""
        start = self.clock.monotonic()
        if self.profile.hosts >= MANY_HOSTS:
            self.witness.saw(Seen.MANY)
        self.begin()
        self.workload.plan()
        self.faults.plan()
        self.advance(max(self.profile.trouble.seconds, self.profile.load.seconds))
        self.come_to_rest()
        return Result(
            seed=self.seed,
            violations=tuple(self.witness.violations),
            story=self.story,
            virtual_seconds=self.clock.monotonic() - start,
            events=self._events,
            seen=self.witness.seen,
        )

    # The steps of a run, for tests that trigger their own events.

    def begin(self) -> None:
        """Start all hosts, the first one ahead of the others in some runs."""
        self.story.tell("world", f"seed {self.seed}: {self.profile}")
        first, *others = self.machines
        first.start()
        for machine in others:
            if self.profile.alone_seconds:
                self.clock.call_at(self.clock.monotonic() + self.profile.alone_seconds, machine.start)
            else:
                machine.start()

    def advance(self, seconds: float) -> None:
        """Let time pass, or stop at the first violation."""
        self._go_on(self.clock.monotonic() + seconds)

    def come_to_rest(self) -> None:
        """End all faults, wait until nothing is under way, and check the result."""
        if not self.witness.violations:
            self.faults.heal()
            self._wait_for_rest()
        if not self.witness.violations:
            self._violated(sanity_check(self.hosts, self.offered, self._lost))
            self._violated(judge(self.hosts, self.witness, self.workload.groups))
            self._violated(judge_bytes(self.machines, self.witness, self._lost))
            for machine in self.machines:
                machine.check_bytes()
        if not self.witness.violations:
            self._fetch_all()
        if not self.witness.violations:
            self._wait_for_removals()

    def close(self) -> None:
        for database in self._databases:
            give_back(database)

    def _go_on(self, until: float) -> None:
        while not self.witness.violations:
            due = self.clock.next_due()
            if due is None or due > until:
                return
            self._events += 1
            if self._events > self.profile.most_events:
                self.witness.violated(f"after {self._events} events it does not come to rest")
                return
            self.clock.step()

    def _wait_for_rest(self) -> None:
        look_at = self.clock.monotonic()
        deadline = look_at + SETTLES_WITHIN_SECONDS
        while not self.witness.violations:
            look_at += LOOK_EVERY_SECONDS
            self._go_on(look_at)
            idle = self.network.is_empty and all(machine.is_idle for machine in self.machines)
            if idle and is_settled(self.hosts):
                return
            if look_at > deadline:
                self._violated(["I6 it does not come to rest:", *unsettled(self.hosts)])

    def _fetch_all(self) -> None:
        """Check that every required artifact can be fetched from the hosts."""
        wanted = to_fetch(self.machines, self.witness)
        fetched: dict[str, str] = {}
        for number, artifact_id in enumerate(wanted):
            machine = self.machines[number % len(self.machines)]
            self.client.download(machine, artifact_id, partial(_note_hash, fetched, artifact_id))
        look_at = self.clock.monotonic()
        deadline = look_at + FETCHED_WITHIN_SECONDS
        while len(fetched) < len(wanted) and look_at < deadline:
            look_at += LOOK_EVERY_SECONDS
            self._go_on(look_at)
        for artifact_id, sha256 in wanted.items():
            if fetched.get(artifact_id) != sha256:
                self.witness.violated(f"artifact {artifact_id} of {sha256} was fetched as {fetched.get(artifact_id)}")

    def _wait_for_removals(self) -> None:
        """Wait until pins expire, and check that no unneeded bytes remain."""
        deadline = self.clock.monotonic() + REMOVED_WITHIN_SECONDS
        while not self.witness.violations:
            left = [text for machine in self.machines for text in left_over(machine)]
            if not left:
                return
            if self.clock.monotonic() > deadline:
                self._violated(left)
            self.advance(PIN_SECONDS / 2)

    def _source_removed(self, machine: Machine, path: str) -> None:
        source = self.witness.sources.get(path)
        self.witness.saw(Seen.REMOVED)
        if not may_remove(self.machines, machine.name, source):
            self.witness.violated(f"{machine.name}: {path} was removed, and no other host has it: {source}")

    def _gone(self, machine: Machine) -> None:
        """Remove a machine that is lost for good, with everything that only it had."""
        self.witness.saw(Seen.GONE)
        self.machines = tuple(each for each in self.machines if each is not machine)
        self._lose(machine, self.hosts.pop(machine.name))
        del self.offered[machine.name]

    def _wiped(self, machine: Machine) -> None:
        """Restart a machine with an empty data directory."""
        self.witness.saw(Seen.WIPED)
        self._lose(machine, machine.rows)
        machine.wipe(self._new_database())
        self.hosts[machine.name] = machine.rows

    def _lose(self, machine: Machine, rows: Tx) -> None:
        self._lost[machine.store_id] = rows
        self.witness.disk_gone(machine.name)
        if self.profile.trouble.forgotten:
            gone = HostRef(store_id=machine.store_id, name=machine.name, url=machine.url)
            self.workload.forget(gone, self.machines)

    def _is_noted(self, go: Go) -> bool:
        """Return True if a host recorded the loss of the previous copy, and the collector knows of this generation."""
        key, generation = go.state["key"], go.stamp.generation
        collector = "" if go.collector is None else go.collector.agent_id
        noted = any(tx.value(LOSS_OF, f"{key} (*") for tx in self.hosts.values())
        return noted and generation <= max(newest_generation(tx, collector, key) for tx in self.hosts.values())

    def _new_database(self) -> sqlite3.Connection:
        self._databases.append(new_database())
        return self._databases[-1]

    def _changed(self, agent_ids: tuple[str, ...]) -> None:
        self._steps += 1
        if agent_ids:
            self._violated(residence_of(self.hosts, agent_ids, self._lost))
            self._violated(leases_of(self.hosts, agent_ids))
            for machine in self.machines:
                self._at_home.look(machine, agent_ids)
        if self._steps % CHECK_ALL_EVERY_STEPS == 0:
            self._violated(sanity_check(self.hosts, self.offered, self._lost))
            for machine in self.machines:
                machine.check_bytes()

    def _violated(self, texts: list[str]) -> None:
        for text in texts:
            self.witness.violated(text)
