"""The services that each part of a host gets: the settings, and interfaces to store, clock, network and disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from paglets.api.hosts import RefusedHost
from paglets.api.limits import MAX_PIECE_BYTES
from paglets.core.clock import Clock, Entropy
from paglets.core.refs import BlobRef, HostRef
from paglets.host.runtime.runner import Runner
from paglets.slots.eligibility import Reason
from paglets.slots.model import Resources
from paglets.store.db import Store
from paglets.store.files import Removal
from paglets.wire.request import Transport
from paglets.worker.launch import Launcher, LaunchEvents
from paglets.worker.logs import LogChunk


class Disk(Protocol):
    """The scratch directories and logs of paglets. `discard` returns at once; the files are removed later."""

    def prepare(self, agent_id: str, fresh: bool) -> str:
        """Create the paglet's scratch directory if it is missing, empty it if `fresh`, and return its path."""
        ...

    def discard(self, agent_id: str) -> None: ...

    def blocked_reason(self) -> Reason | None:
        """Return the reason why no process can get a scratch directory and a log now, or None.

        May be called from any thread.
        """
        ...

    def log_path(self, agent_id: str, generation: int, attempt: int, stream: str) -> str: ...

    def logs(self, agent_id: str) -> tuple[tuple[int, int], ...]:
        """Return (generation, attempt) of each kept log of a paglet."""
        ...

    def read_log(
        self, agent_id: str, generation: int, attempt: int, stream: str, offset: int, most_bytes: int
    ) -> LogChunk:
        """Return a piece of a log, empty if there is no such log. May be called from any thread."""
        ...

    def trim_logs(
        self, most_bytes: int, most_attempts: int, running: Callable[[], frozenset[tuple[str, int, int]]]
    ) -> None:
        """Remove the oldest logs beyond either limit, on a background thread.

        `running` is called on that thread. It returns (id, generation, attempt) of the logs to keep.
        """
        ...

    def bound_scratch(
        self, newest_first: tuple[str, ...], share: float, drop: Callable[[tuple[str, ...]], None]
    ) -> None:
        """Keep only the newest scratch directories that fit in this fraction of the disk.

        A background thread measures the directories, and calls `drop` with the ids of the directories that do not fit.
        """
        ...

    def remove_source(self, removal: Removal) -> str:
        """Remove a file if it is unchanged since its registration. Return why it was kept, or "" if it is gone.

        The removal may take long, so do not call it on the runner. Raises OSError if the removal may succeed later.
        """
        ...

    def run_later(self, act: Callable[[], None]) -> None:
        """Run a slow, non-urgent task on a background thread."""
        ...

    def scratch_ids(self) -> tuple[str, ...]:
        """Return the ids of all paglets that have a scratch directory."""
        ...


class Blobs(Protocol):
    """The blobs on the disk of this host, by SHA-256. Methods may be called from any thread.

    Calls for the same blob never overlap, because `paglets.host.blobs` holds a lock for each blob. `append` and `read`
    handle at most one piece of a blob. All methods raise NoRoom if the disk is full, and OSError for other disk errors.
    """

    def run_in_background(self, act: Callable[[], None]) -> None:
        """Run a task that may wait for the disk on one of several background threads. `act` must not raise."""
        ...

    def size(self, sha256: str) -> int | None:
        """Return the size of a complete blob, or None if there is none."""
        ...

    def partial(self, sha256: str) -> int:
        """Return the number of bytes received so far of an incomplete blob, 0 if there is none."""
        ...

    def append(self, sha256: str, offset: int, piece: bytes) -> int:
        """Append a piece to a partial blob, and return the blob's new length.

        Raises Conflict if `offset` is not the end of the partial blob.
        """
        ...

    def finish(self, blob: BlobRef) -> None:
        """Check the hash of a partial blob that has its full length, sync it, and rename it to a complete blob.

        If the hash differs, remove the partial blob and raise FileChanged.
        """
        ...

    def adopt(self, staged: str, blob: BlobRef) -> None:
        """Rename a staged file to a complete blob. The writer of the file has already hashed and synced it.

        Raises Unknown if there is no such file, Invalid if its size differs.
        """
        ...

    def staged(self, name: str) -> int:
        """Return the size of a staged file, 0 if there is none."""
        ...

    def put(self, data: bytes) -> BlobRef:
        """Store bytes as a complete blob."""
        ...

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes of a complete blob. Raises Unknown."""
        ...

    def is_intact(self, blob: BlobRef) -> bool:
        """Return True if a complete blob has this size and hash. The call reads the complete file."""
        ...

    def remove(self, sha256: str) -> None:
        """Remove a complete blob, if it exists."""
        ...

    def drop_partial(self, sha256: str) -> None: ...

    def path(self, sha256: str) -> str:
        """Return the path of a complete blob. Processes of paglets open it for reading only."""
        ...

    def staging(self) -> str:
        """Return the folder in which processes of paglets write files for `adopt`."""
        ...

    def code_folder(self) -> str:
        """Return the folder that holds unpacked bundles, each named by its SHA-256."""
        ...

    def free(self) -> int:
        """Return the free bytes of the disk."""
        ...

    def all_hashes(self) -> tuple[str, ...]:
        """Return each SHA-256 with a complete blob, a partial blob or unpacked code. The call may take long."""
        ...

    def drop_code(self, sha256: str) -> None:
        """Remove the unpacked code of a bundle, if there is any."""
        ...

    def drop_staged(self, before_seconds: float) -> None:
        """Remove staged files that were last written more than this many seconds ago."""
        ...


class Meter(Protocol):
    """The measurement of free memory and disk space. Other programs of the machine use them, too."""

    def available(self) -> Resources: ...

    def memory_of(self, pids: Iterable[int]) -> int:
        """Return the total memory of these processes in bytes. Processes that have ended count as 0."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The identity, the offered resources and the options of a host. They do not change while the host runs.

    Collectors on this host treat another host as lost after `host_lost_after_seconds` without contact. A job waits up
    to `input_wait_seconds` for inputs that only lost hosts have. The process of a job must end at most
    `report_grace_seconds` after its report. A request contains up to `piece_bytes` of a blob. A pin protects a blob for
    `blob_pin_seconds`. In the two artifact limits, 0 means no limit.
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
    """The settings and interfaces of one host. Each part of the host keeps a reference to this object."""

    settings: Settings
    store: Store
    clock: Clock
    entropy: Entropy
    runner: Runner
    transport: Transport
    disk: Disk
    blobs: Blobs
    meter: Meter
    log: logging.Logger

    @property
    def own(self) -> HostRef:
        return self.settings.ref

    def logger(self, part: str) -> logging.Logger:
        """Return the logger of a part of the host."""
        return self.log.getChild(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The interfaces of a host to its environment.

    `make_transport` gets a function that runs a callback on the runner. The transport must pass completions to it.
    `announce` receives messages for the user; without it, they only go to the log. `url` returns the URL for other
    hosts, which may change. `refused` returns hosts with another mesh key that sent requests to this host.
    """

    clock: Clock
    entropy: Entropy
    store: Store
    disk: Disk
    blobs: Blobs
    meter: Meter
    log: logging.Logger
    make_transport: Callable[[Callable[[Callable[[], None]], None]], Transport]
    make_launcher: Callable[[LaunchEvents], Launcher]
    announce: Callable[[str], None] | None = None
    url: Callable[[], str] | None = None
    refused: Callable[[], tuple[RefusedHost, ...]] = tuple
