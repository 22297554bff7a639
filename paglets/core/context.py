"""The interface between the code of a paglet and its host.

Two implementations exist: `paglets.worker.child.context` for a child process, and `paglets.host.records.in_host` for
collectors of the default class, whose handlers run in the host, inside a transaction of the store.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from paglets.core.messages import Message
from paglets.core.refs import ArtifactRef, BlobRef, FileRef, HostRef, ProxyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInfo:
    """A host of the mesh, with its last known status, which may be outdated."""

    store_id: str
    name: str
    url: str
    online: bool
    tags: tuple[str, ...] = ()
    properties: dict[str, str]
    mesh_version: str
    cpu_cores: int = 0
    memory_bytes: int = 0
    temp_storage_bytes: int = 0
    gpus: int = 0
    free_cpu_cores: int = 0
    queued_jobs: int = 0
    running_jobs: int = 0


class Storage(MutableMapping[str, Any]):
    """A durable map of a paglet. Keys are strings of 1 to 512 characters, sorted by their bytes."""

    @abstractmethod
    def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Any]]:
        """Return up to `limit` entries, sorted by key, whose key starts with `prefix` and is greater than `after`."""
        ...

    @abstractmethod
    def discard(self, key: str) -> None:
        """Remove the entry of `key`, if any, without decoding its value, whose class may be missing."""
        ...


class Context(Protocol):
    """The interface through which the code of a paglet uses its host."""

    @property
    def name(self) -> str:
        """The name of the host where this code runs."""
        ...

    @property
    def address(self) -> str:
        """The URL of the host where this code runs."""
        ...

    @property
    def ref(self) -> ProxyRef:
        """A reference to this paglet."""
        ...

    @property
    def storage(self) -> Storage: ...

    def wall_time(self) -> float:
        """Return the wall-clock time in seconds since the epoch."""
        ...

    def hosts(self) -> tuple[HostInfo, ...]: ...

    def create(
        self, cls: type, state: Any = None, *, name: str | None = None, inputs: Mapping[str, str | Path] | None = None
    ) -> Any:
        """Create a paglet on this host with copies of the files `inputs`, and return its PagletProxy.

        The paglet is stored on the host when this returns.
        """
        ...

    def proxy(self, target: ProxyRef | str) -> Any:
        """Return a PagletProxy for a reference, a paglet's id, or the name of a paglet on this host."""
        ...

    def find(self, name: str) -> Any:
        """Return a PagletProxy for each paglet with that name on the online hosts, this host's first.

        A name is unique on one host only. Hosts that do not answer in time and paglets that are moving are left out.
        """
        ...

    def lookup(self, service_name: str) -> Any:
        """Return a PagletProxy for each paglet whose `Paglet.service_name` is this name, in the order of `find`."""
        ...

    def call(
        self,
        target: ProxyRef,
        message: Message,
        timeout_seconds: float | None = None,
        *,
        timeout: float | None = None,
    ) -> Any: ...

    def send(
        self,
        target: ProxyRef,
        message: Message,
        timeout_seconds: float | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Send a message and return the reply, like `call`."""
        ...

    def post(self, target: ProxyRef, message: Message) -> None: ...

    def submit_group(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Submit a group of jobs. `request` has the fields of `api.SubmitGroup`. Return `api.GroupView` as JSON."""
        ...

    def publish_bytes(self, data: bytes) -> BlobRef:
        """Store bytes as a blob on this host, for an hour and then for as long as something refers to the blob."""
        ...

    def publish_file(self, path: str | Path) -> BlobRef:
        """Store a copy of a file as a blob, like `publish_bytes`. Raises Invalid, FileChanged, NoRoom."""
        ...

    # Methods without a docstring are documented in `core.agent.Paglet`, under the same names.

    def register_file(self, path: str | Path, name: str | None, mode: str) -> FileRef: ...

    def registered_files(self) -> tuple[FileRef, ...]: ...

    def file_path(self, name: str) -> Path: ...

    def upload_artifact(
        self, path: str | Path, name: str | None, move: bool, expires_in_seconds: float | None
    ) -> ArtifactRef: ...

    def download_artifact(self, artifact: ArtifactRef | str, target: str | Path, move: bool, replace: bool) -> Path: ...

    def delete_artifact(self, artifact: ArtifactRef | str) -> None: ...

    def send_artifact(
        self, target: ProxyRef, path: str | Path, message: Message, name: str | None, move: bool
    ) -> ArtifactRef: ...

    def notify_user(self, text: str, level: str) -> None: ...

    def clone(self, name: str | None, target: HostRef | None) -> Any:
        """Clone this paglet like `core.agent.Paglet.clone`. If `target` is given, the clone moves to that host."""
        ...

    def resolve_host(self, target: str) -> HostRef:
        """Return the host with that name or URL. Raises Unknown if the mesh has none."""
        ...

    def intend_move(self, target: HostRef) -> None:
        """Move to `target` when the current hook, handler or `run` returns. The last request wins."""
        ...

    def intend_stay(self) -> None:
        """Cancel a move that this handler or an earlier one requested and that has not started yet."""
        ...

    def intend_dispose(self) -> None:
        """End the paglet when the current hook, handler or `run` returns, after `on_disposing`."""
        ...

    def intend_sleep(self, seconds: float | None) -> None:
        """Deactivate for `seconds` when the current hook, handler or `run` returns. None means no limit."""
        ...

    def work_dir(self) -> Path: ...

    def checkpoint(self) -> None: ...

    def report(self, report: Mapping[str, Any]) -> bool:
        """Commit the outcome of this attempt. Return False if one was committed already.

        `report` is {"success": True, "result": VALUE} or {"success": False, "cause", "message", "traceback"}.
        VALUE is any value that a message can carry; raises Invalid for any other. The optional key "file" with
        {"path", "name", "move"} sends a file as an artifact. VALUE is then a mapping, and the reference to the artifact
        is added to it under the key `artifact`. If the optional key "is_last" is True, no code of the job runs after
        this call, and the outcome may be committed later.
        """
        ...

    def warn(self, text: str) -> None:
        """Add a warning to the record of this attempt, if the job has a collector that keeps warnings."""
        ...

    def keep_unsent(self, path: str | Path) -> None:
        """Keep the scratch directory of this attempt for some days if it contains `path`, a file that was not sent."""
        ...

    def locked_state(self) -> AbstractContextManager[Any]: ...

    def wait_state(self, predicate: Callable[[Any], bool], timeout_seconds: float | None) -> bool: ...
