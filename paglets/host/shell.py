"""What every part of a host is given: the seams to the world, and who this host is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from paglets.core.clock import Clock, Entropy
from paglets.core.refs import HostRef
from paglets.host.runner import Log, Runner
from paglets.remote.exchange import Transport
from paglets.slots.model import Resources
from paglets.store.db import Store


class Disk(Protocol):
    """Scratch directories. `discard` returns at once; the files go soon after."""

    def prepare(self, agent_id: str, fresh: bool) -> str:
        """The path of the paglet's scratch directory, made where missing, emptied where `fresh`."""
        ...

    def discard(self, agent_id: str) -> None: ...

    def log_path(self, agent_id: str, generation: int, attempt: int, stream: str) -> str: ...

    def left_over(self) -> tuple[str, ...]:
        """Ids of paglets that have a scratch directory."""
        ...


class Meter(Protocol):
    """What the machine has free just now, whoever uses it; cpu_cores and gpus are not measured."""

    def available(self) -> Resources: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Who this host is and what it offers, for this start (`boot_id`)."""

    store_id: str
    boot_id: str
    boot_count: int
    name: str
    url: str
    mesh_version: str
    started_at: float
    offered: Resources
    addresses: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()
    reachable: bool = True
    code_paths: tuple[str, ...] = ()
    pin_cpus: bool = False
    python: str = ""
    pid: int = 0
    program: str = ""
    build: str = ""

    @property
    def ref(self) -> HostRef:
        return HostRef(store_id=self.store_id, name=self.name, url=self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """The seams of one host. Parts keep it and take from it what they need."""

    settings: Settings
    store: Store
    clock: Clock
    entropy: Entropy
    runner: Runner
    transport: Transport
    disk: Disk
    meter: Meter
    log: Log

    @property
    def own(self) -> HostRef:
        return self.settings.ref
