"""Where a client enters the mesh: which host it speaks to, and with which key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from paglets.client.mesh_client import BlockingTransport, MeshClient
from paglets.core.clock import SystemClock, SystemEntropy, system_pause
from paglets.core.errors import Unreachable
from paglets.core.refs import HostRef
from paglets.wire.keys import client_key, paglets_home, parse_key
from paglets.wire.local_hosts import local_host, running_hosts
from paglets.wire.pooled_client import PooledClient


def find_host(at: str | None, home: Path, client_of: Callable[[HostRef], MeshClient]) -> tuple[MeshClient, str]:
    """A link to the host that `at` names (a URL, or a name here or in the mesh), and a note on the choice."""
    if at and ":" in at:
        url = at if "://" in at else f"http://{at}"
        return client_of(HostRef(store_id="", name="", url=url.rstrip("/"))), ""
    try:
        here, note = local_host(home, at)
        return client_of(here.ref), note
    except Unreachable:
        if at is None:
            raise
    if not running_hosts(home):
        raise Unreachable(
            f"no host runs on this machine that could look up {at!r} in its mesh",
            hint=[f"give its URL, such as http://{at}:8765", "paglets host --background"],
        )
    through, _ = local_host(home)
    mesh = client_of(through.ref)
    return mesh.to(mesh.member_named(at)), ""


def open_mesh_client(at: str | None, line: BlockingTransport, environ: Mapping[str, str]) -> tuple[MeshClient, str]:
    """As `find_host`; by default the host that `PAGLETS_AT` names, else the one that runs here."""

    def client_of(base: HostRef) -> MeshClient:
        return MeshClient(base, line, clock=SystemClock(), entropy=SystemEntropy(), pause=system_pause)

    return find_host(at or environ.get("PAGLETS_AT") or None, paglets_home(environ), client_of)


def connect(key: str | None, environ: Mapping[str, str]) -> BlockingTransport:
    """Connections with `key`, by default the key that is found where hosts find it. Raises NotAllowed, Invalid."""
    mesh_key = client_key(environ) if key is None else parse_key(key, "the key given to HostClient")
    return PooledClient(mesh_key, clock=SystemClock(), entropy=SystemEntropy())
