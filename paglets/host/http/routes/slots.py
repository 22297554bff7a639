"""Routes about slots and the queue of this host."""

from __future__ import annotations

from paglets.api.slots import PlacementPreview, PreviewPlacement, Slots, Steal, Stolen
from paglets.core.record import from_json
from paglets.host.host import Host
from paglets.host.http.router import ParsedRequest, Route
from paglets.slots.model import SlotRequest, check_request

MAX_JOBS = 10_000


def slots(host: Host, asked: ParsedRequest) -> Slots:
    return host.slots(asked.number("limit", 100, MAX_JOBS))


def candidates(host: Host, asked: ParsedRequest) -> PlacementPreview:
    body: PreviewPlacement = asked.body
    request = check_request(from_json(SlotRequest, body.request, "request"))
    return host.verdicts(request)


def steal(host: Host, asked: ParsedRequest) -> Stolen:
    body: Steal = asked.body
    asked.require_sender([body.thief.store_id])
    return host.services.store.write(lambda tx: host.stealing.hand_over(tx, body))


ROUTES = (
    Route(
        method="GET",
        path="/v1/slots",
        takes=None,
        gives=Slots,
        about="queue, leases and running jobs of this host",
        answer=slots,
    ),
    Route(
        method="POST",
        path="/v1/slots/candidates",
        takes=PreviewPlacement,
        gives=PlacementPreview,
        about="which hosts could run a job with this request, if it is submitted on this host",
        answer=candidates,
    ),
    Route(
        method="POST",
        path="/v1/slots/steal",
        takes=Steal,
        gives=Stolen,
        about="hand off waiting jobs to an idle host that asks for some",
        answer=steal,
    ),
)
