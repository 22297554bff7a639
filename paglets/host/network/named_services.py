"""The services that the host itself offers and that are called like a paglet. The only one is `compute-slots`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from paglets.api.slots import PlacementPreview, Slots
from paglets.codec.envelope import WireMessage
from paglets.codec.tagged_json import encode
from paglets.core.errors import Invalid, NotHandled
from paglets.core.record import from_json, to_json
from paglets.core.text import with_article
from paglets.slots.model import SlotRequest, check_request
from paglets.slots.service import (
    SERVICE_NAME,
    CandidatesReply,
    CandidatesRequest,
    SlotsStatusReply,
    SlotsStatusRequest,
)


class SlotsSource(Protocol):
    """The part of a host that the service `compute-slots` needs."""

    def slots(self, limit: int) -> Slots: ...

    def verdicts(self, request: SlotRequest) -> PlacementPreview: ...


def table(host: SlotsSource) -> dict[str, Callable[[WireMessage], Any]]:
    """Return the handler of each service by name. Handlers take and return tagged JSON."""
    return {SERVICE_NAME: lambda message: _compute_slots(host, message)}


def _compute_slots(host: SlotsSource, message: WireMessage) -> Any:
    operations: dict[str, tuple[type, Callable[[Any], Any]]] = {
        "status": (SlotsStatusRequest, lambda request: _status(host, request)),
        "candidates": (CandidatesRequest, lambda request: _candidates(host, request)),
    }
    if message.kind not in operations:
        raise NotHandled(f"{SERVICE_NAME} has no operation {message.kind!r}; it has {', '.join(operations)}")
    cls, answer = operations[message.kind]
    return encode(answer(_request(cls, message)))


def _request(cls: type, message: WireMessage) -> Any:
    """Decode the request as `cls`. Do not import the class that its type tag names. Raises Invalid."""
    tree = message.args.get("request")
    tag = tree.get("$object") if isinstance(tree, dict) else None
    if not isinstance(tag, dict) or not str(tag.get("class", "")).endswith(f":{cls.__qualname__}"):
        raise Invalid(f"{SERVICE_NAME} {message.kind}: args.request must be {with_article(cls.__qualname__)}")
    return from_json(cls, tag.get("fields"), "request")


def _status(host: SlotsSource, request: SlotsStatusRequest) -> SlotsStatusReply:
    slots = host.slots(request.limit)
    return SlotsStatusReply(
        host_name=slots.host.name,
        host_url=slots.host.url,
        capacity=to_json(slots.capacity),
        free=to_json(slots.free),
        tags=list(slots.tags),
        queued_jobs=slots.queued_jobs,
        running_jobs=slots.running_jobs,
        jobs=[to_json(job) for job in slots.jobs],
    )


def _candidates(host: SlotsSource, request: CandidatesRequest) -> CandidatesReply:
    wanted = check_request(from_json(SlotRequest, request.request, "request"))
    return CandidatesReply(verdicts=[to_json(verdict) for verdict in host.verdicts(wanted).verdicts])
