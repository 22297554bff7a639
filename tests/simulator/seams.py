"""Replacements of threads, sockets, processes and files for a simulated host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef
from paglets.slots.eligibility import Reason
from paglets.slots.model import Resources
from paglets.store.files import Removal
from paglets.wire.request import Completion, Request, Response
from paglets.worker.logs import LogChunk
from tests.fakes.clock import FakeClock
from tests.simulator.folders import Scratch
from tests.simulator.fuse import AFTER_SEND, BEFORE_SEND, Fuse
from tests.simulator.network import Network
from tests.simulator.sources import SourceFiles


class Alive(Protocol):
    """A start of a host. All activity that it began ends with it."""

    @property
    def alive(self) -> bool: ...


class LocalClock:
    """The clocks of a machine. The monotonic clock starts at a random value, and the wall clock may be wrong."""

    def __init__(self, clock: FakeClock, monotonic_at_start: float, wall_error_seconds: Callable[[], float]) -> None:
        self._clock = clock
        self._offset = monotonic_at_start - clock.monotonic()
        self._wall_error = wall_error_seconds

    def monotonic(self) -> float:
        return self._clock.monotonic() + self._offset

    def boottime(self) -> float:
        return self._clock.boottime() + self._offset

    def wall(self) -> float:
        return self._clock.wall() + self._wall_error()


class HostTransport:
    """A `Transport` of one start of a host."""

    def __init__(
        self,
        network: Network,
        sender: HostRef,
        life: Alive,
        fuse: Fuse,
        deliver: Callable[[Callable[[], None]], None],
    ) -> None:
        self._network = network
        self._sender = sender
        self._life = life
        self._fuse = fuse
        self._deliver = deliver

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None:
        self._fuse.reach(BEFORE_SEND)

        def complete(outcome: Response | PagletsError) -> None:
            if self._life.alive:
                self._deliver(lambda: done(self._kept(request, outcome)))

        try:
            loaded = request.loaded()
        except PagletsError as error:
            complete(error)
            return
        self._network.send(self._sender.store_id, self._sender.name, host, loaded, complete, timeout_seconds)
        self._fuse.reach(AFTER_SEND)

    def _kept(self, request: Request, outcome: Response | PagletsError) -> Response | PagletsError:
        try:
            return outcome if isinstance(outcome, PagletsError) else request.kept(outcome)
        except PagletsError as error:
            return error


class ScratchDisk:
    """A store of scratch directories and files of users. They outlive the host, as on a real disk."""

    def __init__(self, there: Scratch, sources: SourceFiles) -> None:
        self._there = there
        self._sources = sources

    def prepare(self, agent_id: str, fresh: bool) -> str:
        if fresh or agent_id not in self._there:
            self._there[agent_id] = {}
        return f"/scratch/{agent_id}"

    def discard(self, agent_id: str) -> None:
        self._there.pop(agent_id, None)

    def log_path(self, agent_id: str, generation: int, attempt: int, stream: str) -> str:
        return f"/logs/{agent_id}/{generation}.{attempt}.{stream}"

    def logs(self, agent_id: str) -> tuple[tuple[int, int], ...]:
        return ()

    def read_log(
        self, agent_id: str, generation: int, attempt: int, stream: str, offset: int, most_bytes: int
    ) -> LogChunk:
        return LogChunk(offset=offset, data=b"", next=offset, size_bytes=0)

    def trim_logs(
        self, most_bytes: int, most_attempts: int, running: Callable[[], frozenset[tuple[str, int, int]]]
    ) -> None:
        """Do nothing: simulated processes print nothing."""

    def bound_scratch(
        self, newest_first: tuple[str, ...], share: float, drop: Callable[[tuple[str, ...]], None]
    ) -> None:
        """Do nothing: simulated scratch directories take no space."""

    def run_later(self, act: Callable[[], None]) -> None:
        act()

    def remove_source(self, removal: Removal) -> str:
        return self._sources.remove(removal)

    def blocked_reason(self) -> Reason | None:
        """Return None: the disk always has a place."""
        return None

    def scratch_ids(self) -> tuple[str, ...]:
        return tuple(self._there)


class SteadyMeter:
    """A meter of a machine that runs only the host's jobs."""

    def __init__(self, offered: Resources) -> None:
        self.offered = offered

    def available(self) -> Resources:
        return self.offered

    def memory_of(self, pids: Iterable[int]) -> int:
        return 0
