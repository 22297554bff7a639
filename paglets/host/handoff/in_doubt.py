"""In-doubt resolution: ask a target if it accepted a hand-off. A target that answers no never accepts it later."""

from __future__ import annotations

from collections.abc import Callable

from paglets.api.transfers import Settle, TransferAnswer
from paglets.core.errors import PagletsError
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store.rollbacks import Fence
from paglets.wire.request import Request, Response, dump_json, parsed

ANSWER_SECONDS = 10.0
AGAIN_SECONDS = 5.0

Resolved = Callable[[TransferAnswer | PagletsError], None]


class InDoubtResolver:
    """The in-doubt resolution for one part of the host.

    It has at most one request in progress for each paglet, and repeats a failed request after a pause.
    """

    def __init__(self, services: HostServices, gossip: Gossiper, part: str) -> None:
        self._services = services
        self._gossip = gossip
        self._part = part
        self._asking: set[str] = set()
        self._again: dict[str, float] = {}

    def waiting(self, now: float) -> set[str]:
        """Return the paglets that have a request in progress or a pause after a failed one."""
        self._again = {agent_id: at for agent_id, at in self._again.items() if at > now}
        return {*self._asking, *self._again}

    def due(self) -> list[float]:
        """Return the monotonic times at which failed requests may be repeated."""
        return list(self._again.values())

    def later(self, agent_id: str) -> None:
        self._again[agent_id] = self._services.clock.monotonic() + AGAIN_SECONDS

    def ask(self, asked: Fence, resolved: Resolved) -> None:
        """Ask a target if it has accepted a paglet with this epoch. Call `resolved` with the answer or the error."""
        body = Settle(source=self._services.own, agent_id=asked.agent_id, epoch=asked.epoch)
        request = Request(method="POST", target="/v1/transfers/settle", body=dump_json(body), repeatable=True)

        def answered(result: Response | PagletsError) -> None:
            self._asking.discard(asked.agent_id)
            resolved(_answer(result))
            self._services.runner.wake(self._part)

        self._asking.add(asked.agent_id)
        address = self._gossip.address(asked.target)
        self._services.transport.send(address, request, answered, timeout_seconds=ANSWER_SECONDS)

    def change(self, agent_id: str, change: Callable[..., object]) -> None:
        """Commit the change that follows from an answer. If the commit fails, repeat the request after a pause."""

        def done(result: object) -> None:
            if isinstance(result, BaseException):
                self.later(agent_id)
                raise result

        self._services.runner.change(change, done)


def _answer(result: Response | PagletsError) -> TransferAnswer | PagletsError:
    try:
        return parsed(result, TransferAnswer)
    except PagletsError as error:
        return error
