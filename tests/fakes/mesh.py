"""Hosts that only gossip and locate, on a `LoopNetwork`: the membership service under virtual time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from paglets.api import hosts as api_hosts
from paglets.api.hosts import HostIdentity, MeshHost
from paglets.api.paglets import Located
from paglets.codec.strict_json import loads
from paglets.core.errors import NoSuchRoute, NotAllowed, PagletsError
from paglets.core.record import from_json
from paglets.core.refs import HostRef
from paglets.mesh.gossip import Gossiper
from paglets.mesh.locator import Locator
from paglets.program import PROTOCOL
from paglets.slots.model import Resources
from paglets.wire.request import Request, Response, reply, reply_error
from tests.fakes.clock import FakeClock, SeededEntropy
from tests.fakes.network import LoopNetwork, LoopTransport, VirtualRunner
from tests.fakes.store import memory_database, store_on

T = TypeVar("T")
CAPACITY = Resources(cpu_cores=4, memory_bytes=8 << 30)


def member(name: str, **changes: object) -> MeshHost:
    """Return a row of a host with sensible values. The store id is `store-NAME`."""
    row = MeshHost(
        store_id=f"store-{name}",
        name=name,
        url=f"http://{name}:8765",
        addresses=(),
        mesh_version="test",
        protocol=PROTOCOL,
        boot_id=f"{name}-1",
        boot_count=1,
        heartbeat=1,
        tags=(),
        properties={},
        reachable=True,
        capacity=CAPACITY,
        free=CAPACITY,
        queued_jobs=0,
        running_jobs=0,
        started_at=0.0,
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def identity(name: str, **changes: object) -> HostIdentity:
    """Return the identity that the host of `member(name)` announces."""
    told = HostIdentity.of(member(name), program="paglets 0", python="3", pid=1)
    return replace(told, **changes)  # type: ignore[arg-type]


class VirtualHost:
    """A host. `row` is its own row and may be replaced. `residence` is its answer to `locate`."""

    def __init__(self, mesh: VirtualMesh, row: MeshHost, peers: Iterable[str], database: sqlite3.Connection) -> None:
        self.row = row
        self.database = database
        self.key = "the key"
        self.residence = Located()
        self.woken: list[float] = []
        self._mesh = mesh
        self.store = store_on(database)
        self.transport: LoopTransport = mesh.network.transport(row.store_id)
        self.driver = VirtualRunner(self.store, mesh.clock)
        self.gossip = Gossiper(
            self.store,
            mesh.clock,
            SeededEntropy(f"{mesh.seed} {row.boot_id}"),
            self.transport,
            row,
            lambda: self.row,
            peers=peers,
            on_change=("watcher",),
        )
        self.locator = Locator(mesh.clock, self.transport, self.gossip.online, self.driver.runner)
        mesh.network.join(row.url, row.store_id, self.handle)
        self.driver.add(self.gossip, self.locator, _Watcher(self.woken))

    @property
    def ref(self) -> HostRef:
        return HostRef(store_id=self.row.store_id, name=self.row.name, url=self.row.url)

    def handle(self, request: Request) -> Response:
        routes: Mapping[str, Callable[[Request], object]] = {
            "/v1/mesh/gossip": lambda r: self.gossip.receive(_body(api_hosts.Gossip, r), r.sender),
            "/v1/paglets/locate": lambda r: self.residence,
        }
        try:
            if self._mesh.key_of(request.sender) != self.key:
                raise NotAllowed("the signature does not fit this host's key")
            self.gossip.record_contact(request.sender)
            if request.target not in routes:
                raise NoSuchRoute(request.target)
            return reply(routes[request.target](request))
        except PagletsError as error:
            return reply_error(error)

    def online_names(self) -> list[str]:
        return [other.name for other in self.gossip.online()]

    def problem_of(self, name: str) -> str:
        """Return the problem that the table records for the host of this name."""
        return "; ".join(v.problem for v in self.gossip.hosts() if v.host.name == name and v.problem)

    def kill(self) -> None:
        """Kill the host as SIGKILL does: it sends nothing, and its database stays."""
        self._mesh.network.leave(self.row.url)
        self.transport.close()
        self.driver.stop()

    def leave(self) -> None:
        """Stop the host. It sends its last messages first."""
        self.gossip.leave()
        self._mesh.clock.advance(0.1)
        self.kill()


class _Watcher:
    """A component that only records its wakes."""

    name = "watcher"

    def __init__(self, woken: list[float]) -> None:
        self._woken = woken

    def tick(self, now: float) -> float | None:
        self._woken.append(now)
        return None


class VirtualMesh:
    """A mesh of hosts by name (their latest start). One seed decides everything."""

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self.clock = FakeClock()
        self.network = LoopNetwork(self.clock, SeededEntropy(f"{seed} network"))
        self.hosts: dict[str, VirtualHost] = {}

    def start(self, row: MeshHost, *, peers: Iterable[str] = ()) -> VirtualHost:
        """Start a host with an empty store."""
        return self._started(VirtualHost(self, row, peers, memory_database()))

    def restart(self, host: VirtualHost, *, peers: Iterable[str] = (), **changes: object) -> VirtualHost:
        """Restart a killed host on its database, as a new boot."""
        boots = host.row.boot_count + 1
        boot = {"boot_count": boots, "boot_id": f"{host.row.name}-{boots}"}
        row = replace(host.row, **{**boot, **changes})  # type: ignore[arg-type]
        return self._started(VirtualHost(self, row, peers, host.database))

    def _started(self, host: VirtualHost) -> VirtualHost:
        self.hosts[host.row.name] = host
        return host

    def start_many(self, count: int) -> list[VirtualHost]:
        """Start `h00`, the peer of all others, and those at once."""
        first = self.start(member("h00"))
        others = [self.start(member(f"h{n:02}"), peers=[first.row.url]) for n in range(1, count)]
        return [first, *others]

    def key_of(self, store_id: str) -> str:
        return next((host.key for host in self.hosts.values() if host.row.store_id == store_id), "")

    def all_see_all(self) -> bool:
        """Return True if every host sees every other one online, and no other host."""
        names = sorted(self.hosts)
        return all(host.online_names() == [n for n in names if n != host.row.name] for host in self.hosts.values())


def _body(cls: type[T], request: Request) -> T:
    return from_json(cls, loads(request.body))
