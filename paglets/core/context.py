"""What a paglet's code can ask of the host it lives on.

Two implementations exist: `paglets.worker.context` in a child process, and `paglets.host.inline` for
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
from paglets.core.refs import HostRef, ProxyRef


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

    def create(self, cls: type, state: Any = None, *, name: str | None = None) -> Any:
        """A new paglet on this host; gives its PagletProxy after it is stored."""
        ...

    def proxy(self, target: ProxyRef | str) -> Any:
        """A PagletProxy for a ref, a paglet's id, or a name of a paglet on this host."""
        ...

    def call(self, target: ProxyRef, message: Message, timeout_seconds: float | None = None) -> Any: ...

    def post(self, target: ProxyRef, message: Message) -> None: ...

    def submit_group(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store a group (fields of `api.SubmitGroup`); gives `api.GroupView` as JSON."""
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

    def work_dir(self) -> Path: ...

    def checkpoint(self) -> None: ...

    def report(self, report: Mapping[str, Any]) -> bool:
        """Commit the outcome of this attempt; False where one was committed already.

        `report` is {"success": True, "result": VALUE} or {"success": False, "cause", "message", "traceback"}.
        VALUE is any value that a message carries; Invalid where it cannot travel.
        """
        ...

    def locked_state(self) -> AbstractContextManager[Any]: ...

    def wait_state(self, predicate: Callable[[Any], bool], timeout_seconds: float | None) -> bool: ...
