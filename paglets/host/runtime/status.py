"""What a host says of itself: to the mesh, and to whoever asks who it is."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.api.hosts import HostIdentity, MeshHost
from paglets.host.runtime.services import Settings
from paglets.program import PROTOCOL
from paglets.slots.model import MAX_PROPERTY_CHARACTERS, Candidate, Resources

BLOCKED = "blocked"
"""The property by which others see why a host starts nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """The free resources and job counts of a host. `blocked_reason` says why it starts no process, or is ""."""

    free: Resources
    queued_jobs: int = 0
    running_jobs: int = 0
    blocked_reason: str = ""


def member(settings: Settings, load: HostLoad) -> MeshHost:
    """Its row in the table of members, of which `mesh.board` counts the heartbeats."""
    return MeshHost(
        store_id=settings.store_id,
        name=settings.name,
        url=settings.url,
        addresses=settings.addresses,
        mesh_version=settings.mesh_version,
        protocol=PROTOCOL,
        boot_id=settings.boot_id,
        boot_count=settings.boot_count,
        heartbeat=0,
        tags=settings.tags,
        properties=_properties(settings, load),
        reachable=settings.reachable,
        capacity=settings.offered,
        free=load.free,
        queued_jobs=load.queued_jobs,
        running_jobs=load.running_jobs,
        started_at=settings.started_at,
    )


def idle_member(settings: Settings) -> MeshHost:
    """Its row as it starts."""
    return member(settings, HostLoad(free=settings.offered))


def identity(settings: Settings, load: HostLoad, wall_time: float) -> HostIdentity:
    return HostIdentity.of(
        member(settings, load),
        program=settings.program,
        python=settings.python,
        pid=settings.pid,
        build=settings.build,
        wall_time=wall_time,
    )


def _properties(settings: Settings, load: HostLoad) -> dict[str, str]:
    """Within the bounds of `check_member`: others refuse a row beyond them, as if the host were away."""
    told = {BLOCKED: load.blocked_reason[: MAX_PROPERTY_CHARACTERS - len(BLOCKED)]} if load.blocked_reason else {}
    return {**dict(settings.properties), **told}


def candidate(settings: Settings) -> Candidate:
    """As a place for a job that may have all that is offered: could it ever start here?"""
    return Candidate(
        host=settings.ref,
        addresses=settings.addresses,
        mesh_version=settings.mesh_version,
        online=True,
        tags=settings.tags,
        offered=settings.offered,
        free=settings.offered,
    )
