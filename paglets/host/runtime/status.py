"""The status that a host reports to others: its gossip row, and its reply to identity requests."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.api.hosts import HostIdentity, MeshHost
from paglets.host.runtime.services import Settings
from paglets.program import PROTOCOL
from paglets.slots.model import MAX_PROPERTY_CHARACTERS, Candidate, Resources

BLOCKED = "blocked"
"""The host property that tells other hosts why this one starts no process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """The free resources and job counts of a host.

    `blocked_reason` says why the host starts no processes, and is "" if it starts them.
    """

    free: Resources
    queued_jobs: int = 0
    running_jobs: int = 0
    blocked_reason: str = ""


def gossip_row(settings: Settings, load: HostLoad) -> MeshHost:
    """Return the gossip row of this host. Its heartbeat is 0, because `Gossiper` counts the heartbeats."""
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


def idle_gossip_row(settings: Settings) -> MeshHost:
    """Return the gossip row of a host that has just started."""
    return gossip_row(settings, HostLoad(free=settings.offered))


def identity(settings: Settings, load: HostLoad, wall_time: float) -> HostIdentity:
    return HostIdentity.of(
        gossip_row(settings, load),
        program=settings.program,
        python=settings.python,
        pid=settings.pid,
        build=settings.build,
        wall_time=wall_time,
    )


def _properties(settings: Settings, load: HostLoad) -> dict[str, str]:
    """Return the properties of this host, with the reason why it is blocked, if any.

    The reason is cut to the length limit of `check_member`, because other hosts ignore a row that exceeds it.
    """
    reason = load.blocked_reason[: MAX_PROPERTY_CHARACTERS - len(BLOCKED)]
    return {**dict(settings.properties), **({BLOCKED: reason} if reason else {})}


def candidate(settings: Settings) -> Candidate:
    """Return this host as a candidate with all its resources free, to check if a job can ever start on it."""
    return Candidate(
        host=settings.ref,
        addresses=settings.addresses,
        mesh_version=settings.mesh_version,
        online=True,
        tags=settings.tags,
        offered=settings.offered,
        free=settings.offered,
    )
