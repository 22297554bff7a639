"""A machine: a database and scratch directories that persist, and one `Life` for each start of the host."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from paglets.core.errors import StoreFull
from paglets.host.host import Host
from paglets.host.http.router import Router
from paglets.host.http.routes import ROUTES
from paglets.host.records import recovery
from paglets.host.runtime.services import Environment, Settings
from paglets.store.db import Store, Tx
from paglets.wire.request import PendingResponse, Request, Response
from tests.fakes.blobs import MemoryDisk
from tests.fakes.clock import FakeClock, SeededEntropy
from tests.fakes.logs import logger_to
from tests.invariants import bytes_of
from tests.simulator.content import PIECE_BYTES
from tests.simulator.databases import begin, disk_full
from tests.simulator.folders import Folders, Scratch
from tests.simulator.fuse import AFTER_COMMIT, AT_DISK, BEFORE_COMMIT, Crash, Fuse
from tests.simulator.launcher import SimLauncher
from tests.simulator.network import Network
from tests.simulator.scripts import SimScripts
from tests.simulator.seams import HostTransport, LocalClock, ScratchDisk, SteadyMeter
from tests.simulator.seen import Seen
from tests.simulator.sources import SourceFiles
from tests.simulator.story import Story
from tests.simulator.tampering import Tampering
from tests.simulator.traits import Traits
from tests.simulator.witness import Witness

T = TypeVar("T")

STORE_PREFIX = "store-"
PORT = 8765

STEP_SECONDS = (0.0, 0.001)
"""Bounds of the delay before a host handles due work, so that other events can come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The environment that all machines share. `changed` is called after each step, `crashed` after each crash."""

    seed: str
    clock: FakeClock
    network: Network
    scripts: SimScripts
    story: Story
    witness: Witness
    changed: Callable[[tuple[str, ...]], None]
    crashed: Callable[[Machine], None]
    tampering: Tampering


class Machine:
    """A `Station` of the network."""

    def __init__(self, around: Surroundings, traits: Traits, database: sqlite3.Connection) -> None:
        self.around = around
        self.traits = traits
        self.name = traits.name
        self.reachable = traits.reachable
        self.url = f"http://{self.name}:{PORT}"
        self.store_id = STORE_PREFIX + self.name
        self.wall_error_seconds = traits.wall_error_seconds
        self.use(database)
        self.sources = SourceFiles()
        self.paused_until = 0.0
        self.boots = 0
        self.is_gone = False
        self.full_until = 0.0
        self.next_fuse: tuple[str, int] | None = None
        self.life: Life | None = None

    def use(self, database: sqlite3.Connection) -> None:
        """Replace the data directory by this database."""
        database.row_factory = sqlite3.Row
        self.database, self.connection = database, self.around.tampering.connect(database)
        self.rows = Tx(database)
        self.scratch: Scratch = {}
        self.bytes = MemoryDisk()
        self.survivors: list[str] = []

    def is_full(self) -> bool:
        return self.full_until > self.around.clock.monotonic()

    @property
    def is_idle(self) -> bool:
        """Return True if memory holds no request or answer of a reverse connection."""
        return self.life is None or self.life.is_idle

    @property
    def is_up(self) -> bool:
        return self.life is not None

    def start(self) -> None:
        """Start the host unless it is running or its machine is gone."""
        if self.life is None and not self.is_gone:
            self.boots += 1
            self.around.story.tell(self.name, f"starts, boot {self.boots}")
            self.around.network.traffic.restarted(self.store_id)
            self.life = life = Life(self)
            if self.next_fuse is not None:
                life.fuse.light(*self.next_fuse)
                self.next_fuse = None
            life.run(life.begin_or_end)

    def crash(self, why: str) -> None:
        """Lose power: uncommitted changes are lost and all processes end."""
        if self.life is not None:
            self.around.story.tell(self.name, f"crashes {why}")
            self._lose_bytes(self.life.entropy, why)
            self.survivors += self.life.end()
            self.life = None
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            self.check_bytes()
            self.around.crashed(self)

    def _lose_bytes(self, entropy: SeededEntropy, why: str) -> None:
        witness, before = self.around.witness, self.bytes.used()
        self.bytes.power_off(entropy)
        if why == AT_DISK:
            witness.saw(Seen.CRASHED)
        if self.bytes.used() < before:
            witness.saw(Seen.CUT_OFF)

    def pause(self, seconds: float) -> None:
        """Suspend the machine: nothing runs, and its clocks go on."""
        self.around.story.tell(self.name, f"sleeps for {seconds:.1f} s")
        self.paused_until = self.around.clock.monotonic() + seconds

    def readdress(self) -> None:
        """Give the machine another address for its next start."""
        old, self.url = self.url, f"http://{self.name}:{PORT + self.boots}"
        self.around.network.readdress(self, old, self.url)
        self.around.story.tell(self.name, f"gets the address {self.url}")

    def wipe(self, database: sqlite3.Connection) -> None:
        """Lose the data directory. The next start makes another store with the same name and address."""
        self.crash("and its data directory is lost")
        self.store_id += "-anew"
        self.use(database)

    def fill_disk(self, seconds: float) -> None:
        """Let every commit fail for this many seconds."""
        self.around.story.tell(self.name, f"has a full disk for {seconds:.1f} s")
        self.full_until = self.around.clock.monotonic() + seconds

    def step_wall_clock(self, seconds: float) -> None:
        self.around.story.tell(self.name, f"has its wall clock set by {seconds:.1f} s")
        self.wall_error_seconds += seconds

    def check_bytes(self) -> None:
        """Check that every blob with a row is whole on the disk."""
        for text in bytes_of(self.rows, self.bytes.whole):
            self.around.witness.violated(f"{self.name}: {text}")

    def mend(self) -> None:
        """Wake the machine and free its disk."""
        self.paused_until = self.full_until = 0.0
        self.next_fuse = None

    def take(self, request: Request, answer: Callable[[Response], None]) -> bool:
        return self.life is not None and self.life.take(request, answer)


class Life:
    """One start of the host, until it loses power."""

    def __init__(self, machine: Machine) -> None:
        around = machine.around
        self.alive = True
        self.machine = machine
        self.fuse = Fuse()
        self.entropy = SeededEntropy(f"{around.seed}/{machine.name}/{machine.boots}")
        base = self.entropy.uniform(0.0, 1e6)
        self.clock = LocalClock(around.clock, base, lambda: machine.wall_error_seconds)
        self.launcher: SimLauncher | None = None
        self._touched: dict[str, None] = {}
        self._disk_changed = False
        self._next: float | None = None
        self._soon = False
        self._host: Host | None = None
        self._router: Router | None = None

    @property
    def is_idle(self) -> bool:
        return self._host is None or (self._host.reverse_transport.is_idle and self._host.reverse_poller.is_idle)

    # Start and end.

    def begin_or_end(self) -> None:
        """Start the host. Raises Crash if the disk is full."""
        try:
            self._begin()
        except StoreFull as error:
            raise Crash("as it starts: the disk is full") from error

    def _begin(self) -> None:
        machine = self.machine
        store = Store(machine.connection, commit=self._commit)
        self._end_survivors(store)
        boots = store.write(partial(begin, store_id=machine.store_id))
        settings = self._settings(boots)
        blobs = machine.around.tampering.blobs(
            machine.bytes,
            full=machine.is_full,
            step=self._at_disk,
            now=machine.around.clock.monotonic,
        )

        def make_launcher(events: object) -> SimLauncher:
            self.launcher = SimLauncher(
                clock=machine.around.clock,
                entropy=self.entropy,
                life=self,
                fuse=self.fuse,
                events=events,  # type: ignore[arg-type]
                scripts=machine.around.scripts,
                folders=Folders(blobs=blobs, sources=machine.sources, scratch=machine.scratch),
                witness=machine.around.witness,
                tampering=machine.around.tampering,
                is_stored=self._is_stored,
            )
            return self.launcher

        environment = Environment(
            clock=self.clock,
            entropy=self.entropy,
            store=store,
            disk=ScratchDisk(machine.scratch, machine.sources),
            blobs=blobs,
            meter=SteadyMeter(machine.traits.offered),
            log=logger_to(self._log, f"simulator-{self.machine.name}"),
            make_transport=lambda deliver: HostTransport(
                machine.around.network, settings.ref, self, self.fuse, deliver
            ),
            make_launcher=make_launcher,
        )
        host = Host(settings, environment, peers=machine.traits.peers)
        host.start()
        machine.around.tampering.replace_parts(host.runner)
        self._host, self._router = host, Router(host, ROUTES)
        host.reverse_poller.handle = self._router.handle
        committed = store.on_commit
        store.on_commit = lambda wakes, touched: self._committed(committed, wakes, touched)
        host.runner.signal = self._signal
        self._signal()

    def _settings(self, boots: int) -> Settings:
        machine, traits = self.machine, self.machine.traits
        return Settings(
            store_id=machine.store_id,
            boot_id=f"{machine.store_id.removeprefix(STORE_PREFIX)}-{boots}",
            boot_count=boots,
            name=machine.name,
            url=machine.url,
            mesh_version="simulated",
            started_at=self.clock.wall(),
            offered=traits.offered,
            tags=traits.tags,
            reachable=traits.reachable,
            piece_bytes=PIECE_BYTES,
            blob_pin_seconds=traits.pin_seconds,
            host_lost_after_seconds=traits.lost_after_seconds,
        )

    def _end_survivors(self, store: Store) -> None:
        """Kill the templates and warm workers of earlier starts whose processes are stored, like `paglets.host.app`."""
        machine = self.machine
        stored = {token for _, _, token in store.read(recovery.survivors)}
        for token in machine.survivors:
            machine.around.witness.saw(Seen.WORKER_SURVIVED if token.startswith("worker-") else Seen.SURVIVED)
            if token not in stored:
                machine.around.witness.violated(f"{machine.name}: {token} of an earlier start is not killed")
        machine.survivors = []

    def _is_stored(self, token: str) -> bool:
        """Return True if the row of a template or a warm worker is committed."""
        row = self.machine.rows.value("SELECT 1 FROM templates WHERE token = ?", token)
        return row is not None and not self.machine.database.in_transaction

    def end(self) -> list[str]:
        """End all that this start began. Return the templates and workers that go on if only the host has ended."""
        self.alive = False
        return [] if self.launcher is None else self.launcher.power_off()

    def _commit(self, connection: sqlite3.Connection) -> None:
        self.fuse.reach(BEFORE_COMMIT)
        if self.machine.is_full():
            raise disk_full()
        self.machine.around.tampering.commit(connection)
        self.fuse.reach(AFTER_COMMIT)

    def _at_disk(self, step: str) -> None:
        self._disk_changed = True
        if step == "remove":
            self.machine.around.witness.saw(Seen.COLLECTED)
        self.fuse.reach(AT_DISK)

    def _log(self, text: str) -> None:
        self.machine.around.story.tell(self.machine.name, f"log: {text}")
        if text.startswith("internal error in") and StoreFull.__name__ not in text:
            self.machine.around.witness.violated(f"{self.machine.name}: {text}")

    # Steps.

    def run(self, act: Callable[[], T]) -> T | None:
        """Run an action on this machine. Return None if the machine crashes."""
        result = None
        try:
            result = act()
        except Crash as crash:
            self.machine.crash(str(crash))
        if self._disk_changed:
            self._disk_changed = False
            self.machine.check_bytes()
        touched = tuple(self._touched)
        self._touched.clear()
        self.machine.around.changed(touched)
        return result

    def _committed(
        self,
        inner: Callable[[tuple[str, ...], tuple[str, ...]], None],
        wakes: tuple[str, ...],
        touched: tuple[str, ...],
    ) -> None:
        self._touched.update(dict.fromkeys(touched))
        inner(self.machine.around.tampering.wakes(wakes), touched)

    def _signal(self) -> None:
        if self.alive and not self._soon:
            self._soon = True
            self._at(self.machine.around.clock.monotonic() + self.entropy.uniform(*STEP_SECONDS))

    def _at(self, at: float) -> None:
        if self._next is None or at < self._next:
            self._next = at
            self.machine.around.clock.call_at(at, lambda: self._step(at))

    def _step(self, at: float) -> None:
        if not self.alive or self._next != at:
            return
        self._next, self._soon = None, False
        if self._is_paused():
            self._at(self.machine.paused_until)
            return
        host = self._host
        assert host is not None
        pause = self.run(host.runner.step)
        if self.alive and pause is not None:
            now = self.machine.around.clock.monotonic()
            # Never zero: clocks add floats, so that work due in a moment may not be due yet.
            self._at(now + max(pause, STEP_SECONDS[1]))

    def _is_paused(self) -> bool:
        return self.machine.paused_until > self.machine.around.clock.monotonic()

    # Requests.

    def take(self, request: Request, answer: Callable[[Response], None]) -> bool:
        if self._is_paused():
            around = self.machine.around
            around.clock.call_at(self.machine.paused_until, lambda: self._take_late(request, answer))
            return True
        return self._handle(request, answer)

    def _take_late(self, request: Request, answer: Callable[[Response], None]) -> None:
        if self.alive:
            self.take(request, answer)

    def _handle(self, request: Request, answer: Callable[[Response], None]) -> bool:
        router = self._router
        if router is None:
            return False
        result = self.run(lambda: self._answer(router, request))
        if result is None:
            return False
        if isinstance(result, PendingResponse):
            result.on_complete(answer)
        else:
            answer(result)
        return True

    def _answer(self, router: Router, request: Request) -> Response | PendingResponse | None:
        try:
            return router.handle(request)
        except Exception:
            text = traceback.format_exc()
            self.machine.around.witness.violated(f"{self.machine.name}: {request.method} {request.target}: {text}")
            return None
