"""The values that placement works with: the requests of jobs, and the hosts with their resources."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from paglets.core.errors import Invalid
from paglets.core.refs import HostRef
from paglets.slots.addresses import addresses_of

Isolation = Literal["process", "worker"]
"""The separation of attempts (see `SlotRequest`)."""

ISOLATIONS: tuple[Isolation, ...] = get_args(Isolation)

MAX_TAGS = 64
MAX_TAG_CHARACTERS = 100
MAX_PROPERTIES = 64
MAX_PROPERTY_CHARACTERS = 500
"""Maximum length of a property, name and value together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """An amount of each of the four resources. It may be a requested, offered, leased or free amount."""

    cpu_cores: int = 0
    memory_bytes: int = 0
    temp_storage_bytes: int = 0
    gpus: int = 0

    def fits(self, free: Resources) -> bool:
        """Return True if this request fits into the `free` resources."""
        return not self.lacking(free)

    def lacking(self, free: Resources) -> tuple[str, ...]:
        """Return the names of the resources of which `free` has less than requested."""
        return tuple(name for name in FIELDS if getattr(self, name) > getattr(free, name))

    def __add__(self, other: Resources) -> Resources:
        return Resources(**{name: getattr(self, name) + getattr(other, name) for name in FIELDS})

    def __sub__(self, other: Resources) -> Resources:
        """Return the differences. Negative ones become 0, because an overcommitted resource has nothing free."""
        return Resources(**{name: max(0, getattr(self, name) - getattr(other, name)) for name in FIELDS})

    def smallest(self, other: Resources) -> Resources:
        """Return the smaller amount of each resource."""
        return Resources(**{name: min(getattr(self, name), getattr(other, name)) for name in FIELDS})


FIELDS = ("cpu_cores", "memory_bytes", "temp_storage_bytes", "gpus")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRules:
    """The rules of a job for the hosts on which it may run, and the tags of hosts that it prefers."""

    required_tags: tuple[str, ...] = ()
    excluded_tags: tuple[str, ...] = ()
    preferred_tags: tuple[str, ...] = ()
    excluded_names: tuple[str, ...] = ()
    excluded_urls: tuple[str, ...] = ()
    allow_home: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRequest:
    """The request of a job: resources, rules for hosts, and limits.

    `estimated_runtime_seconds`: 0 means no estimate. For `placement_timeout_seconds` and `timeout_seconds`, 0 means no
    limit. `preload`: True if a host may import the job's module once for several attempts. `isolation`: `process` to
    run each attempt in a process of its own, `worker` to let a warm worker run jobs with the same code and resources
    one after the other.
    """

    resources: Resources
    rules: PlacementRules = field(default_factory=PlacementRules)
    estimated_runtime_seconds: float = 0.0
    placement_timeout_seconds: float = 0.0
    timeout_seconds: float = 0.0
    max_attempts: int = 1
    max_losses: int = 10
    preload: bool = True
    isolation: Isolation = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A host of the mesh as placement sees it.

    `no_route`: the reason why no host can connect to it now, although it may be running. `is_only`: True if no other
    host is known, so that its jobs run on it. `awaited_peers`: the URLs (`--peer`) where another host is expected, if
    no other host is known.
    """

    host: HostRef
    addresses: tuple[str, ...] = ()
    mesh_version: str
    online: bool
    tags: tuple[str, ...] = ()
    offered: Resources
    free: Resources
    queued_jobs: int = 0
    running_jobs: int = 0
    no_route: str = ""
    is_only: bool = False
    awaited_peers: tuple[str, ...] = ()


def check_request(request: SlotRequest) -> SlotRequest:
    """Return `request` if its numbers and URLs are valid. Raises Invalid, which names the field."""
    amounts = {name: getattr(request.resources, name) for name in FIELDS}
    amounts |= {
        name: getattr(request, name)
        for name in ("estimated_runtime_seconds", "placement_timeout_seconds", "timeout_seconds", "max_losses")
    }
    for name, amount in amounts.items():
        if amount < 0:
            raise Invalid(f"{name} is {amount}: it cannot be negative")
    for name, least in (("cpu_cores", request.resources.cpu_cores), ("max_attempts", request.max_attempts)):
        if least < 1:
            raise Invalid(f"{name} is {least}: it must be at least 1")
    for url in request.rules.excluded_urls:
        if not addresses_of(url):
            raise Invalid(f"excluded_urls has {url[:200]!r}, which is not the URL of a host such as http://name:8765")
    return request
