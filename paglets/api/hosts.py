"""Records of the routes about hosts and the mesh."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from paglets.core.refs import HostRef
from paglets.slots.model import Resources

NO_ROUTE = "nobody can connect to"
"""The beginning of `MeshHostView.problem` where two hosts need a third to speak, and none is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    """What a host says of itself to the mesh and to whoever asks."""

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
    """`GET /v1/host`: who this host is and what it offers. `wall_time`: its clock when it answered, epoch seconds.

    `long_hooks`: hooks that have been running for long, each with its paglet.
    """

    program: str
    python: str
    pid: int
    build: str = ""
    wall_time: float = 0.0
    long_hooks: tuple[str, ...] = ()
    host_lost_after_seconds: float | None = None

    @classmethod
    def of(
        cls, portrait: HostStatus, *, program: str, python: str, pid: int, build: str = "", wall_time: float = 0.0
    ) -> HostIdentity:
        """What the host of that portrait, such as its row, answers."""
        shared = {each.name: getattr(portrait, each.name) for each in fields(HostStatus)}
        return cls(**shared, program=program, python=python, pid=pid, build=build, wall_time=wall_time)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreachableHost:
    """A host to which another one cannot connect, and since when: epoch seconds by the clock of that other one."""

    store_id: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshHost(HostStatus):
    """One row of the membership table, as gossip carries it and `GET /v1/mesh/hosts` shows it.

    (`boot_count`, `heartbeat`) orders two rows of the same store: the higher is the newer. `addresses` are further URLs
    of the host. `joined` counts the hosts that joined the mesh up to this one (0: not joined). Of two hosts with one
    name, the one with the lower number keeps it. `unreachable_hosts` are online hosts to which this one cannot connect,
    at most eight.
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

    `seconds_since_seen`: time since the last sign of life, direct or reported by another host. While there was none
    (`was_seen` is false), the time counts from the start or resume of the answering host, or from the first report
    about that host. `offline_seconds`: time since the answering host marked it as offline, by the wall clock; 0 if it
    is online. It includes restarts and sleep of the answering host and is for display only.
    """

    host: MeshHost
    online: bool
    seconds_since_seen: float
    problem: str = ""
    was_seen: bool = True
    offline_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerProblem:
    """An address that was given to this host as a peer, and why no host of its mesh answered there yet."""

    url: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenLink:
    """The online host `source` cannot connect to the online host `target`, for so many seconds."""

    source: str
    target: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedHost:
    """An address from which a host with another mesh key spoke to this one; `seconds` since it last did."""

    address: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """`GET /v1/mesh/hosts`: this host first, the others by name; `peers`: those given by hand that it did not join.

    `broken_links`: pairs of hosts between which connections fail. `refused`: hosts with another key that sent a request
    to this one, the newest first.
    """

    hosts: tuple[MeshHostView, ...]
    peers: tuple[PeerProblem, ...] = ()
    broken_links: tuple[BrokenLink, ...] = ()
    refused: tuple[RefusedHost, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetHost:
    """`POST /v1/mesh/forget`: the host with that store is gone for good."""

    store_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What `host` did: whether that one was `known` to it as a member, how many paglets it took back that were on
    their way there, and how many moves there that had not begun it dropped. `files_kept`: by group, how many files of
    finished jobs that were to go there became artifacts of `host`; the 100 groups with most."""

    host: HostRef
    known: bool
    taken_back: int
    moves_dropped: int
    files_kept: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gossip:
    """`POST /v1/mesh/gossip`, both ways: the sender's own row first, then what else it knows.

    `offline` are the store ids of those `hosts` that are offline for the sender. A `push` carries only changed rows,
    and its reply is the receiver's own row. Without `push`, both sides send all their rows. `leaving`: the sender is
    about to stop. `unreachable_at`: the URL of the receiver if the sender gets its requests but cannot connect to it;
    else "".
    """

    mesh_version: str
    protocol: int
    hosts: tuple[MeshHost, ...]
    offline: tuple[str, ...] = ()
    push: bool = False
    leaving: bool = False
    unreachable_at: str = ""
