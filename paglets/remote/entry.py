"""Where a client enters the mesh: which host it speaks to, and with which key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from paglets.core.clock import SystemClock, SystemEntropy, system_pause
from paglets.core.errors import Unreachable
from paglets.core.refs import HostRef
from paglets.remote.keys import client_key, paglets_home, parse_key
from paglets.remote.link import Exchange, Link
from paglets.remote.local import local_host, running_hosts
from paglets.remote.transport import Connections


def find_host(at: str | None, home: Path, link_to: Callable[[HostRef], Link]) -> tuple[Link, str]:
    """A link to the host that `at` names (a URL, or a name here or in the mesh), and a note on the choice."""
    if at and ":" in at:
        url = at if "://" in at else f"http://{at}"
        return link_to(HostRef(store_id="", name="", url=url.rstrip("/"))), ""
    try:
        here, note = local_host(home, at)
        return link_to(here.ref), note
    except Unreachable:
        if at is None:
            raise
    if not running_hosts(home):
        raise Unreachable(
            f"no host runs on this computer that could look up {at!r} in its mesh",
            hint=[f"give its URL, such as http://{at}:8765", "paglets host --background"],
        )
    through, _ = local_host(home)
    link = link_to(through.ref)
    return link.to(link.member_named(at)), ""


def open_link(at: str | None, line: Exchange, environ: Mapping[str, str]) -> tuple[Link, str]:
    """As `find_host`; by default the host that `PAGLETS_AT` names, else the one that runs here."""

    def link_to(base: HostRef) -> Link:
        return Link(base, line, clock=SystemClock(), entropy=SystemEntropy(), pause=system_pause)

    return find_host(at or environ.get("PAGLETS_AT") or None, paglets_home(environ), link_to)


def connect(key: str | None, environ: Mapping[str, str]) -> Exchange:
    """Connections with `key`, by default the key that is found where hosts find it. Raises NotAllowed, Invalid."""
    mesh_key = client_key(environ) if key is None else parse_key(key, "the key given to HostClient")
    return Connections(mesh_key, clock=SystemClock(), entropy=SystemEntropy())
