"""The properties of a simulated machine."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.slots.model import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """The properties of a machine and the settings of its host. `peers` are the initial URLs of other hosts.

    The host keeps unneeded bytes for `pin_seconds` and takes a host for lost after `lost_after_seconds` without
    contact. `wall_error_seconds` is the initial error of its wall clock.
    """

    name: str
    offered: Resources
    tags: tuple[str, ...]
    peers: tuple[str, ...]
    reachable: bool
    pin_seconds: float
    lost_after_seconds: float
    wall_error_seconds: float
