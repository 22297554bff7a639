"""Connect a client to the mesh: choose a host, and find the mesh key."""

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
    """Return a client of the host `at`, and a message for the user if one of several local hosts was chosen, else "".

    `at`: a URL, or the name of a host on this machine or in its mesh; None: a host on this machine. Raises Unreachable,
    Unknown.
    """
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
            f"no host runs on this machine, so the name {at!r} cannot be looked up",
            hint=[
                f"give the URL of that host, such as http://{at}:8765",
                "or start a host here: `paglets host --background`",
            ],
        )
    through, _ = local_host(home)
    mesh = client_of(through.ref)
    return mesh.to(mesh.host_named(at)), ""


def open_mesh_client(
    at: str | None, transport: BlockingTransport, environ: Mapping[str, str]
) -> tuple[MeshClient, str]:
    """Return a client and a message like `find_host`. `at` defaults to the environment variable `PAGLETS_AT`."""

    def client_of(base: HostRef) -> MeshClient:
        return MeshClient(base, transport, clock=SystemClock(), entropy=SystemEntropy(), pause=system_pause)

    return find_host(at or environ.get("PAGLETS_AT") or None, paglets_home(environ), client_of)


def connect(key: str | None, environ: Mapping[str, str]) -> BlockingTransport:
    """Return a transport that signs with `key`, by default this user's mesh key. Raises NotAllowed, StartFailed."""
    mesh_key = client_key(environ) if key is None else parse_key(key, "the key given to HostClient")
    return PooledClient(mesh_key, clock=SystemClock(), entropy=SystemEntropy())
