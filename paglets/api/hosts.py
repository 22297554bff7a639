"""Requests and replies of the routes for hosts and the mesh."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from paglets.core.refs import HostRef
from paglets.slots.model import Resources

NO_ROUTE = "nobody can connect to"
"""Start of `MeshHostView.problem` if two hosts need a relay, and no host can relay for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    """The status that a host announces to the mesh. `reachable`: True if other hosts can connect to it."""

    store_id: str
    boot_id: str
    name: str
    url: str
    mesh_version: str
    protocol: int
    started_at: float
    tags: tuple[str, ...]
    properties: dict[str, str]
    reachable: bool
    capacity: Resources
    free: Resources
    queued_jobs: int
    running_jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentity(HostStatus):
    """The identity and status of the answering host: `GET /v1/host`.

    `wall_time`: the clock of the host, in epoch seconds. `long_hooks`: texts about hooks that have run for a long time.
    `templates`: the number of templates, which are processes that have imported the module of jobs and fork their
    attempts. `template_bytes`: the memory of these processes. They share a part of it with each other and with
    attempts.
    """

    program: str
    python: str
    pid: int
    build: str = ""
    wall_time: float = 0.0
    long_hooks: tuple[str, ...] = ()
    host_lost_after_seconds: float | None = None
    templates: int = 0
    template_bytes: int = 0

    @classmethod
    def of(
        cls, status: HostStatus, *, program: str, python: str, pid: int, build: str = "", wall_time: float = 0.0
    ) -> HostIdentity:
        """Return the identity of the host with the status `status`, such as its row in the membership table."""
        shared = {each.name: getattr(status, each.name) for each in fields(HostStatus)}
        return cls(**shared, program=program, python=python, pid=pid, build=build, wall_time=wall_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreachableHost:
    """A host to which another host cannot connect. `since`: epoch seconds by the clock of that other host."""

    store_id: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshHost(HostStatus):
    """One row of the membership table, as gossip carries it and `GET /v1/mesh/hosts` shows it.

    Of two rows of a store, the one with the higher (`boot_count`, `heartbeat`) is newer. `addresses`: further URLs of
    the host. `joined`: 1 for the first host of the mesh, 2 for the second, and so on; 0: not joined. Of two hosts with
    the same name, the one with the lower number keeps the name. `unreachable_hosts`: at most eight online hosts to
    which this host cannot connect.
    """

    addresses: tuple[str, ...]
    boot_count: int
    heartbeat: int
    joined: int = 0
    unreachable_hosts: tuple[UnreachableHost, ...] = ()

    @property
    def ref(self) -> HostRef:
        return HostRef(store_id=self.store_id, name=self.name, url=self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshHostView:
    """A host of the mesh as the answering host sees it.

    `seconds_since_seen`: time since the last contact, direct or reported by another host. If there was no contact
    (`was_seen` is false), the time since the answering host started, resumed, or first heard of the host.
    `offline_seconds`: time by the wall clock since the answering host marked the host as offline; 0 if it is online.
    This time includes restarts and sleep of the answering host and is for display only. `problem`: why the host has not
    joined or cannot be reached; else "".
    """

    host: MeshHost
    online: bool
    seconds_since_seen: float
    problem: str = ""
    was_seen: bool = True
    offline_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerProblem:
    """A configured peer address at which no host of this mesh has answered yet, and the reason."""

    url: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenLink:
    """A failing connection between two online hosts: `source` has not reached `target` for this many seconds."""

    source: str
    target: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedHost:
    """An address from which a host with another mesh key sent requests. `seconds`: time since the last one."""

    address: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The hosts of the mesh: `GET /v1/mesh/hosts`. First the answering host, then the others by name, then old stores.

    `peers`: configured peers that have not joined. `broken_links`: pairs of hosts between which connections fail.
    `refused`: hosts with another key that sent a request to this one, newest first.
    """

    hosts: tuple[MeshHostView, ...]
    peers: tuple[PeerProblem, ...] = ()
    broken_links: tuple[BrokenLink, ...] = ()
    refused: tuple[RefusedHost, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetHost:
    """A request to remove the host with the store id `store_id` permanently: `POST /v1/mesh/forget`."""

    store_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """The reply of `host` to `ForgetHost`.

    `known`: `host` had the removed host in its table. `taken_back`: the number of paglets in transit to the removed
    host that returned to `host`. `moves_dropped`: the number of moves to the removed host that had not started.
    `files_kept`: by group, the number of files that were to move to the removed host and became artifacts of `host`;
    only the 100 groups with most files.
    """

    host: HostRef
    known: bool
    taken_back: int
    moves_dropped: int
    files_kept: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gossip:
    """Rows of the membership table, as request and as reply: `POST /v1/mesh/gossip`. The sender's own row is first.

    `offline`: store ids of those `hosts` that the sender sees as offline. `push`: the request carries only changed
    rows, and the reply is the receiver's own row. Without `push`, both sides send the rows of all online
    hosts and of some offline hosts. `leaving`: the sender is about to stop. `unreachable_at`: the URL of the receiver
    if the sender gets requests from it but cannot connect to it; else "".
    """

    mesh_version: str
    protocol: int
    hosts: tuple[MeshHost, ...]
    offline: tuple[str, ...] = ()
    push: bool = False
    leaving: bool = False
    unreachable_at: str = ""
