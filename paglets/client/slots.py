"""Requests for the schedulers of hosts: their resources, and the jobs that run and wait."""

from __future__ import annotations

from paglets.api.slots import Slots
from paglets.client.fan_out import ask_all, online_hosts, returning_errors, with_host_name
from paglets.client.mesh_client import MeshClient
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef


def slots_of(mesh: MeshClient, host: HostRef | None, limit: int, timeout: float) -> Slots:
    """Return the resources of `host`, or of the client's host, and at most `limit` of its jobs."""
    return mesh.ask("GET", f"/v1/slots?limit={limit}", None, Slots, host=host, timeout=timeout)


def mesh_slots(mesh: MeshClient, limit: int, timeout: float) -> tuple[tuple[Slots, ...], tuple[PagletsError, ...]]:
    """Return resources and up to `limit` jobs of each online host, and the errors of hosts that did not answer."""
    hosts = online_hosts(mesh)
    answers = ask_all(returning_errors(lambda host: slots_of(mesh, host, limit, timeout)), hosts)
    good = tuple(answer for answer in answers if isinstance(answer, Slots))
    pairs = zip(hosts, answers, strict=True)
    return good, tuple(with_host_name(host, answer) for host, answer in pairs if isinstance(answer, PagletsError))
