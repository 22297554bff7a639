"""The schedulers of the mesh, as a client sees them: what runs and waits on each host."""

from __future__ import annotations

from paglets.api.slots import Slots
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef
from paglets.remote.asking import ask_each, attempt, of_host, online_hosts
from paglets.remote.link import Link


def slots_of(link: Link, host: HostRef | None, limit: int, timeout: float) -> Slots:
    """The scheduler of a member, or of the link's own host; `limit` bounds its jobs."""
    return link.ask("GET", f"/v1/slots?limit={limit}", None, Slots, host=host, timeout=timeout)


def mesh_slots(link: Link, limit: int, timeout: float) -> tuple[tuple[Slots, ...], tuple[PagletsError, ...]]:
    """The schedulers of all online hosts by name, and an error for each host that did not answer."""
    hosts = online_hosts(link)
    answers = ask_each(attempt(lambda host: slots_of(link, host, limit, timeout)), hosts)
    good = tuple(answer for answer in answers if isinstance(answer, Slots))
    pairs = zip(hosts, answers, strict=True)
    return good, tuple(of_host(host, answer) for host, answer in pairs if isinstance(answer, PagletsError))
