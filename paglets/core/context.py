"""What a paglet's code can ask of the host it lives on.

Two implementations exist: `paglets.worker.child.context` in a child process, and `paglets.host.records.in_host` for
the collector, whose handlers run inside the store's transaction.
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
    """One host of the mesh as another sees it."""

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
    """A paglet's durable map. Keys are strings of 1 to 512 characters, in the order of their bytes."""

    @abstractmethod
    def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Any]]:
        """Up to `limit` entries whose key begins with `prefix` and is greater than `after`, in order."""
        ...

    @abstractmethod
    def discard(self, key: str) -> None:
        """Drop the entry of that key if there is one. Its value is not read: code that it needs may be absent here."""
        ...


class Context(Protocol):
    """The host seen from inside a paglet."""

    @property
    def name(self) -> str:
        """Name of the host where this code runs."""
        ...

    @property
    def address(self) -> str:
        """URL of that host."""
        ...

    @property
    def ref(self) -> ProxyRef:
        """This paglet itself."""
        ...

    @property
    def storage(self) -> Storage: ...

    def wall_time(self) -> float:
        """Seconds since the epoch, for people to read."""
        ...

    def hosts(self) -> tuple[HostInfo, ...]: ...

    def create(
        self, cls: type, state: Any = None, *, name: str | None = None, inputs: Mapping[str, str | Path] | None = None
    ) -> Any:
        """A new paglet on this host, with copies of the files `inputs`; gives its PagletProxy after it is stored."""
        ...

    def proxy(self, target: ProxyRef | str) -> Any:
        """A PagletProxy for a ref, a paglet's id, or a name of a paglet on this host."""
        ...

    def find(self, name: str) -> Any:
        """PagletProxys of the paglets of that name on all online hosts of the mesh, this host's first.

        A name is of one host: two hosts may each have a paglet of that name. A host that does not answer in time
        is left out, and so is a paglet that is just moving.
        """
        ...

    def lookup(self, service_name: str) -> Any:
        """The same of the paglets that offer the service of that name (`Paglet.service_name`)."""
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
        """The same as `call`."""
        ...

    def post(self, target: ProxyRef, message: Message) -> None: ...

    def submit_group(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store a group (fields of `api.SubmitGroup`); gives `api.GroupView` as JSON."""
        ...

    def publish_bytes(self, data: bytes) -> BlobRef:
        """Bytes that this host then keeps for an hour, and for as long as something refers to them."""
        ...

    def publish_file(self, path: str | Path) -> BlobRef:
        """The same of a copy of a file. Raises Invalid, FileChanged, NoRoom."""
        ...

    # Files and artifacts: as the methods of `core.agent.Paglet` of the same names.

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
        """As `core.agent.Paglet.clone`; with a `target` the clone moves there."""
        ...

    def resolve_host(self, target: str) -> HostRef:
        """The member of that name or URL; Unknown where there is none."""
        ...

    def intend_move(self, target: HostRef) -> None:
        """Move there when the present hook, handler or run has returned; the last intent wins."""
        ...

    def intend_stay(self) -> None:
        """Take back an intent to move, of this handler or of an earlier one whose target is still away."""
        ...

    def intend_dispose(self) -> None: ...

    def intend_sleep(self, seconds: float | None) -> None:
        """Be inactive when the present hook, handler or run has returned, for `seconds` (None: without a bound)."""
        ...

    def work_dir(self) -> Path: ...

    def checkpoint(self) -> None: ...

    def report(self, report: Mapping[str, Any]) -> bool:
        """Commit the outcome of this attempt; False where one was committed already.

        `report` is {"success": True, "result": VALUE} or {"success": False, "cause", "message", "traceback"}.
        VALUE is any value that a message carries; Invalid where it cannot be sent. With {"file": {"path", "name",
        "move"}} beside them a file goes along as an artifact, and VALUE, a mapping, gets its ref as `artifact`.
        """
        ...

    def warn(self, text: str) -> None:
        """Add a warning to the record of this attempt, where the job has a collector that keeps one."""
        ...

    def keep_unsent(self, path: str | Path) -> None:
        """Keep the scratch directory of this attempt for a while if this file, which is not sent, is in it."""
        ...

    def locked_state(self) -> AbstractContextManager[Any]: ...

    def wait_state(self, predicate: Callable[[Any], bool], timeout_seconds: float | None) -> bool: ...
