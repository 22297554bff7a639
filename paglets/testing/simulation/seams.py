"""The seams that a simulated host is given in place of threads, sockets, processes and files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from paglets.core.refs import HostRef
from paglets.remote.exchange import Completion, Request
from paglets.slots.model import Resources
from paglets.testing.clock import FakeClock
from paglets.testing.simulation.fuse import AFTER_SEND, BEFORE_SEND, Fuse
from paglets.testing.simulation.network import Network


class Alive(Protocol):
    """One start of a host; all that it set going ends with it."""

    @property
    def alive(self) -> bool: ...


class LocalClock:
    """A machine's clocks: the monotonic one begins anywhere at each start, the wall one may be wrong."""

    def __init__(self, clock: FakeClock, monotonic_at_start: float, wall_error_seconds: Callable[[], float]) -> None:
        self._clock = clock
        self._offset = monotonic_at_start - clock.monotonic()
        self._wall_error = wall_error_seconds

    def monotonic(self) -> float:
        return self._clock.monotonic() + self._offset

    def wall(self) -> float:
        return self._clock.wall() + self._wall_error()


class HostTransport:
    """`Transport` of one start of a host."""

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

        def complete(outcome: object) -> None:
            if self._life.alive:
                self._deliver(lambda: done(outcome))  # type: ignore[arg-type]

        self._network.send(self._sender.store_id, self._sender.name, host, request, complete, timeout_seconds)
        self._fuse.reach(AFTER_SEND)


class ScratchDisk:
    """Names of scratch directories; they outlive the host, as on a real disk."""

    def __init__(self, there: dict[str, None]) -> None:
        self._there = there

    def prepare(self, agent_id: str, fresh: bool) -> str:
        self._there[agent_id] = None
        return f"/scratch/{agent_id}"

    def discard(self, agent_id: str) -> None:
        self._there.pop(agent_id, None)

    def log_path(self, agent_id: str, generation: int, attempt: int, stream: str) -> str:
        return f"/logs/{agent_id}/{generation}.{attempt}.{stream}"

    def left_over(self) -> tuple[str, ...]:
        return tuple(self._there)


class SteadyMeter:
    """A machine on which nothing but the host's jobs runs."""

    def __init__(self, offered: Resources) -> None:
        self._offered = offered

    def available(self) -> Resources:
        return self._offered
