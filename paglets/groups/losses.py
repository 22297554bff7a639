"""Is a copy of a job lost? A pure decision, from what the collector's host has heard of the places where it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from paglets.core.refs import HostRef
from paglets.groups.records import Sighting

LOOKS = 3
"""So many times in a row a host must say that it has no such copy before it is believed."""

Standing = Literal["here", "leaving", "gone", "refused", "disposed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the mesh answered when it was asked for a copy: the newest row of it. `peer`: where the copy is (`here`),
    goes or went, or came from (`refused`)."""

    standing: Standing
    peer: HostRef | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A host where a copy may be. `silent_seconds` since it last spoke to this host, by this host's clock and never
    through a gap of its own; infinite where a person said that it is gone for good. `looks`: so many times in a row it
    answered that it has no such copy."""

    host: HostRef
    silent_seconds: float
    looks: int = 0


def is_here(found: Found | None) -> bool:
    return found is not None and found.standing == "here"


def where(copy: Sighting, found: Found | None) -> tuple[HostRef, ...]:
    """The hosts where the copy may be, all of which must be lost before it is."""
    if found is not None and found.peer is not None:
        return (found.peer,)
    if copy.target is not None and copy.residence == "leaving":
        return (copy.host, copy.target)
    return (copy.host,)


def lost_in(found: Found | None, places: Sequence[Place], host_lost_after: float) -> float:
    """In how many seconds the copy is lost if nothing more is heard of it: when each of `places` is lost, or said often
    enough that it has no such copy. 0 where it is lost; infinite where it was found.

    What is leaving for a host that is there is not lost: its source still has it.
    """
    if is_here(found):
        return float("inf")
    under_way = found is not None and found.standing == "leaving"
    doubtful = (place for place in places if under_way or place.looks < LOOKS)
    return max((0.0, *(host_lost_after - place.silent_seconds for place in doubtful)))


def silent(places: Sequence[Place], host_lost_after: float) -> list[Place]:
    """Those of which nothing was heard; the others said that they have no copy."""
    return [place for place in places if place.silent_seconds >= host_lost_after]


def why_lost(places: Sequence[Place], host_lost_after: float) -> str:
    """In words."""
    mute = silent(places, host_lost_after)
    names = " and ".join(place.host.name for place in mute or places)
    if mute:
        return f"{names} was not heard of for {host_lost_after:g} s"
    return f"{names} has no copy of it any more"
