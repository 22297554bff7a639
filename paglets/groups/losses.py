"""The rules that decide whether a copy of a job is lost, based on the state of the hosts that may have the copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from paglets.core.refs import HostRef
from paglets.groups.records import Sighting

LOOKS = 3
"""Number of consecutive replies "no such copy" after which the collector's host believes the replying host."""

ResidenceStatus = Literal["here", "leaving", "gone", "refused", "disposed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLocation:
    """The newest residence row of a copy in the mesh.

    `peer`: the host that has the copy (`here`), to which it was sent (`leaving`, `gone`), or that sent it (`refused`).
    """

    status: ResidenceStatus
    peer: HostRef | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PossibleHost:
    """A host that may have a copy.

    `seconds_since_seen`: the time since its last direct contact with the collector's host, without the time that the
    latter did not run; infinite if a user removed it. `looks`: how often in a row it replied that it has no such copy.
    """

    host: HostRef
    seconds_since_seen: float
    looks: int = 0


def is_here(found: CopyLocation | None) -> bool:
    """Return True if the newest residence row of the copy shows that a host has it."""
    return found is not None and found.status == "here"


def possible_hosts(copy: Sighting, found: CopyLocation | None) -> tuple[HostRef, ...]:
    """Return the hosts that may have the copy. The copy is lost if each of these hosts is lost or lacks the copy."""
    if found is not None and found.peer is not None:
        return (found.peer,)
    if copy.target is not None and copy.residence == "leaving":
        return (copy.host, copy.target)
    return (copy.host,)


def seconds_until_lost(found: CopyLocation | None, places: Sequence[PossibleHost], host_lost_after: float) -> float:
    """Return the time until the copy counts as lost: 0 if it is lost, infinite if it was found.

    The copy is lost if each of `places` is lost or has replied LOOKS times that it has no such copy. A copy that is
    leaving for a host that answers is not lost, because the source host still has it.
    """
    if is_here(found):
        return float("inf")
    under_way = found is not None and found.status == "leaving"
    doubtful = (place for place in places if under_way or place.looks < LOOKS)
    return max((0.0, *(host_lost_after - place.seconds_since_seen for place in doubtful)))


def unreachable(places: Sequence[PossibleHost], host_lost_after: float) -> list[PossibleHost]:
    """Return the hosts that had no contact for `host_lost_after` seconds."""
    return [place for place in places if place.seconds_since_seen >= host_lost_after]


def why_lost(places: Sequence[PossibleHost], host_lost_after: float) -> str:
    """Return a text for users that says why the copy is lost."""
    absent = unreachable(places, host_lost_after)
    names = " and ".join(place.host.name for place in absent or places)
    if absent:
        return f"{names} was not seen for {host_lost_after:g} s"
    return f"{names} no longer has a copy"
