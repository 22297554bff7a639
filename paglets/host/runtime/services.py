"""What every part of a host is given: the seams to the world, and who this host is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from paglets.api.limits import MAX_PIECE_BYTES
from paglets.core.clock import Clock, Entropy
from paglets.core.refs import BlobRef, HostRef
from paglets.host.runtime.runner import Log, Runner
from paglets.slots.eligibility import Reason
from paglets.slots.model import Resources
from paglets.store.db import Store
from paglets.store.files import Removal
from paglets.wire.request import Transport
from paglets.worker.logs import LogChunk


class Disk(Protocol):
    """Scratch directories and logs. `discard` returns at once; the files go soon after."""

    def prepare(self, agent_id: str, fresh: bool) -> str:
        """The path of the paglet's scratch directory, made where missing, emptied where `fresh`."""
        ...

    def discard(self, agent_id: str) -> None: ...

    def blocked_reason(self) -> Reason | None:
        """Why no process can be given a scratch directory and a log just now; None where it can. Any thread."""
        ...

    def log_path(self, agent_id: str, generation: int, attempt: int, stream: str) -> str: ...

    def logs(self, agent_id: str) -> tuple[tuple[int, int], ...]:
        """(generation, attempt) of the logs of a paglet that are kept."""
        ...

    def read_log(
        self, agent_id: str, generation: int, attempt: int, stream: str, offset: int, most_bytes: int
    ) -> LogChunk:
        """A piece of a log; an empty one where there is none. Any thread."""
        ...

    def trim_logs(
        self, most_bytes: int, most_attempts: int, running: Callable[[], frozenset[tuple[str, int, int]]]
    ) -> None:
        """Soon, and elsewhere than on the runner, remove the oldest logs beyond either bound.

        `running` gives (id, generation, attempt) of those that must stay; it is called on that thread.
        """
        ...

    def bound_scratch(
        self, newest_first: tuple[str, ...], share: float, give_up: Callable[[tuple[str, ...]], None]
    ) -> None:
        """Soon, and elsewhere than on the runner, give up those scratch directories beyond this share of the disk."""
        ...

    def remove_source(self, removal: Removal) -> str:
        """Remove a file if it is still as it was registered; gives why it stays, "" where it is gone.

        It may take long, so it is not for the runner. Raises OSError for trouble that may pass.
        """
        ...

    def run_later(self, act: Callable[[], None]) -> None:
        """Do what takes time and has no hurry elsewhere than on the runner."""
        ...

    def scratch_ids(self) -> tuple[str, ...]:
        """Ids of paglets that have a scratch directory."""
        ...


class Blobs(Protocol):
    """Bytes by their SHA-256 on the disk of this host; any thread. What these give and take is a piece at most.

    Calls for one blob are made one after the other (`host.blobs` has a lock for each). All raise NoRoom where the
    disk is full, and OSError for its other troubles.
    """

    def run_in_background(self, act: Callable[[], None]) -> None:
        """Do what may wait for the disk on another thread; several go at a time. `act` raises nothing."""
        ...

    def size(self, sha256: str) -> int | None:
        """The size of a whole blob; None where there is none."""
        ...

    def partial(self, sha256: str) -> int:
        """How many bytes, from the beginning, are there of one that is not whole; 0 for none."""
        ...

    def append(self, sha256: str, offset: int, piece: bytes) -> int:
        """Add a piece at the end of a partial one; gives its new length. Raises Conflict for another offset."""
        ...

    def finish(self, blob: BlobRef) -> None:
        """A partial one of full length becomes whole: hashed, synced, renamed. FileChanged: the hash is another one,
        and what was there is gone."""
        ...

    def adopt(self, staged: str, blob: BlobRef) -> None:
        """A file of the staging folder becomes whole, by a rename; its writer has hashed and synced it.

        Raises Unknown where there is no such file, Invalid where it has another size.
        """
        ...

    def staged(self, name: str) -> int:
        """How many bytes of that staged file are there; 0 for none."""
        ...

    def put(self, data: bytes) -> BlobRef:
        """Bytes at hand, whole at once."""
        ...

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes of a whole blob. Raises Unknown."""
        ...

    def is_intact(self, blob: BlobRef) -> bool:
        """Whether there is a whole one with that size and hash; reads all of it."""
        ...

    def remove(self, sha256: str) -> None:
        """A whole one, if it is there."""
        ...

    def drop_partial(self, sha256: str) -> None: ...

    def path(self, sha256: str) -> str:
        """Where a whole one lies, for processes of paglets, which only read it."""
        ...

    def staging(self) -> str:
        """The folder where processes of paglets write what is to be adopted."""
        ...

    def code_folder(self) -> str:
        """The folder under which bundles are unpacked, each under its SHA-256."""
        ...

    def free(self) -> int:
        """Bytes that the disk has left."""
        ...

    def all_hashes(self) -> tuple[str, ...]:
        """Every SHA-256 of which there is a whole blob, a partial one or unpacked code. May take long."""
        ...

    def drop_code(self, sha256: str) -> None:
        """Unpacked code of a bundle, if there is any."""
        ...

    def drop_staged(self, before_seconds: float) -> None:
        """Staged files that were last written longer ago than that."""
        ...


class Meter(Protocol):
    """What the machine has free just now, whoever uses it; cpu_cores and gpus are not measured."""

    def available(self) -> Resources: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Who this host is and what it offers, for this start (`boot_id`).

    A host that was mute for `host_lost_after_seconds` is lost to the collectors here; the inputs of jobs that only such
    hosts have are waited for `input_wait_seconds`. A process has `report_grace_seconds` after its report to end. Of a
    blob `piece_bytes` go in one request; one that was promised stays for `blob_pin_seconds`. Bounds of bytes that are 0
    do not bound.
    """

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
    artifact_max_bytes: int = 0
    artifact_quota_bytes: int = 0
    piece_bytes: int = MAX_PIECE_BYTES
    blob_pin_seconds: float = 3600.0
    host_lost_after_seconds: float = 120.0
    input_wait_seconds: float = 7 * 86400.0
    report_grace_seconds: float = 600.0
    python: str = ""
    pid: int = 0
    program: str = ""
    build: str = ""

    @property
    def ref(self) -> HostRef:
        return HostRef(store_id=self.store_id, name=self.name, url=self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostServices:
    """The seams of one host. Parts keep it and take from it what they need."""

    settings: Settings
    store: Store
    clock: Clock
    entropy: Entropy
    runner: Runner
    transport: Transport
    disk: Disk
    blobs: Blobs
    meter: Meter
    log: Log

    @property
    def own(self) -> HostRef:
        return self.settings.ref
