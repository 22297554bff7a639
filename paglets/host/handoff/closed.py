"""Acknowledge closed hand-offs to their targets, so that the targets can delete their rows."""

from __future__ import annotations

from paglets.api.transfers import CloseTransfers, EnvelopeKey
from paglets.core.errors import PagletsError
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import residence
from paglets.store.residence import ClosedHandoff
from paglets.wire.request import Request, Response, dump_json

CLOSE_SECONDS = 60.0
ANSWER_SECONDS = 30.0
MAX_CLOSED = 2_000


class ClosedHandoffs:
    """The runner part `closed_handoffs`. It sends all acknowledgements of a minute to a target in one request.

    An unanswered request is repeated only after a minute, because nobody waits for it.
    """

    name = "closed_handoffs"

    def __init__(self, services: HostServices, gossip: Gossiper) -> None:
        self._services = services
        self._gossip = gossip
        self._due = services.clock.monotonic() + CLOSE_SECONDS

    def tick(self, now: float) -> float | None:
        if now >= self._due:
            self._due = now + CLOSE_SECONDS
            closed = self._services.store.read(lambda tx: residence.closed_handoffs(tx, MAX_CLOSED))
            for store_id in dict.fromkeys(handoff.target.store_id for handoff in closed):
                self._close_at_target([handoff for handoff in closed if handoff.target.store_id == store_id])
        return self._due

    def _close_at_target(self, closed: list[ClosedHandoff]) -> None:
        epochs = tuple(EnvelopeKey(agent_id=each.agent_id, epoch=each.epoch) for each in closed)
        body = dump_json(CloseTransfers(source=self._services.own, closed=epochs))
        request = Request(method="POST", target="/v1/transfers/close", body=body, repeatable=True)

        def answered(result: Response | PagletsError) -> None:
            if isinstance(result, Response) and result.status < 400:
                self._services.runner.change(lambda tx: residence.target_acknowledged(tx, closed))

        self._services.transport.send(
            self._gossip.address(closed[0].target), request, answered, timeout_seconds=ANSWER_SECONDS
        )
