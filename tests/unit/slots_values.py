"""Short ways to write values of slots in tests."""

from __future__ import annotations

from typing import Any

from paglets.core.refs import HostRef
from paglets.slots.model import Candidate, PlacementRules, Resources, SlotRequest
from paglets.slots.policy import UnplacedJob, WaitingJob

GIB = 1 << 30


def resources(cores: int = 1, memory: int = 0, disk: int = 0, gpus: int = 0) -> Resources:
    return Resources(cpu_cores=cores, memory_bytes=memory, temp_storage_bytes=disk, gpus=gpus)


def host(name: str) -> HostRef:
    return HostRef(store_id=f"store-{name}", name=name, url=f"http://{name}:8765")


def candidate(name: str, *, offered: Resources | None = None, free: Resources | None = None, **more: Any) -> Candidate:
    offered = offered or resources(4, 16 * GIB, 100 * GIB)
    fields: dict[str, Any] = {"mesh_version": "1", "online": True} | more
    return Candidate(host=host(name), offered=offered, free=offered if free is None else free, **fields)


def request(size: Resources | None = None, **rules: Any) -> SlotRequest:
    return SlotRequest(resources=size or resources(), rules=PlacementRules(**rules))


def to_place(agent_id: str, wish: SlotRequest | None = None, home: str = "home") -> UnplacedJob:
    return UnplacedJob(agent_id=agent_id, request=wish or request(), home_store_id=f"store-{home}")


def waiting(agent_id: str, size: Resources | None = None, waited: float = 1.0, **more: Any) -> WaitingJob:
    fields: dict[str, Any] = {
        "request": request(size),
        "home_store_id": "store-home",
        "waited_seconds": waited,
        "here_seconds": waited,
    }
    return WaitingJob(agent_id=agent_id, **(fields | more))
