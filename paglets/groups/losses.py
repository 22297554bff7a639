"""Is a copy of a job lost? A pure decision, from what the collector's host has heard of the places where it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from paglets.core.refs import HostRef
from paglets.groups.records import Sighting

LOOKS = 3
"""So many times in a row a host must say that it has no such copy before it is believed."""

ResidenceStatus = Literal["here", "leaving", "gone", "refused", "disposed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLocation:
    """What the mesh answered when it was asked for a copy: the newest row of it. `peer`: where the copy is (`here`),
    goes or went, or came from (`refused`)."""

    status: ResidenceStatus
    peer: HostRef | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PossibleHost:
    """A host where a copy may be. `seconds_since_seen` since it last spoke to this host, by this host's clock and never
    through a gap of its own; infinite where a person said that it is gone for good. `looks`: so many times in a row it
    answered that it has no such copy."""

    host: HostRef
    seconds_since_seen: float
    looks: int = 0


def is_here(found: CopyLocation | None) -> bool:
    return found is not None and found.status == "here"


def possible_hosts(copy: Sighting, found: CopyLocation | None) -> tuple[HostRef, ...]:
    """The hosts where the copy may be, all of which must be lost before it is."""
    if found is not None and found.peer is not None:
        return (found.peer,)
    if copy.target is not None and copy.residence == "leaving":
        return (copy.host, copy.target)
    return (copy.host,)


def seconds_until_lost(found: CopyLocation | None, places: Sequence[PossibleHost], host_lost_after: float) -> float:
    """In how many seconds the copy is lost if nothing more is heard of it: when each of `places` is lost, or said often
    enough that it has no such copy. 0 where it is lost; infinite where it was found.

    What is leaving for a host that is there is not lost: its source still has it.
    """
    if is_here(found):
        return float("inf")
    under_way = found is not None and found.status == "leaving"
    doubtful = (place for place in places if under_way or place.looks < LOOKS)
    return max((0.0, *(host_lost_after - place.seconds_since_seen for place in doubtful)))


def unreachable(places: Sequence[PossibleHost], host_lost_after: float) -> list[PossibleHost]:
    """Those of which nothing was heard; the others said that they have no copy."""
    return [place for place in places if place.seconds_since_seen >= host_lost_after]


def why_lost(places: Sequence[PossibleHost], host_lost_after: float) -> str:
    """In words."""
    mute = unreachable(places, host_lost_after)
    names = " and ".join(place.host.name for place in mute or places)
    if mute:
        return f"{names} was not heard of for {host_lost_after:g} s"
    return f"{names} has no copy of it any more"
