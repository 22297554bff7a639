"""Calls of inline paglets: answered at once on the caller's thread, or parked until the state allows."""

from __future__ import annotations

from dataclasses import dataclass, field

from paglets.api.calls import Call, CallReply
from paglets.core.errors import PagletsError
from paglets.host.messaging.creation import require_here
from paglets.host.messaging.parked import ParkedRequest, ParkedRequests
from paglets.host.records import in_host
from paglets.host.records.in_host import HostView, InHostReply
from paglets.host.runtime.services import HostServices
from paglets.wire.request import PendingResponse, Response, reply, reply_error

MAX_REMEMBERED = 10_000
"""Calls whose first parking is remembered; the oldest are forgotten, and wait their time anew."""


@dataclass(eq=False, kw_only=True)
class _Parked:
    """One call while it waits."""

    agent_id: str
    class_name: str
    call: Call
    began: float
    wait_seconds: float | None = None
    pending: PendingResponse = field(default_factory=PendingResponse)


class CollectorCalls:
    """A caller that is told `waiting` asks again with the same call id; its time runs from the first time."""

    def __init__(self, services: HostServices, host_view: HostView, parked: ParkedRequests) -> None:
        self._services = services
        self._host_view = host_view
        self._parked_requests = parked
        self._began: dict[str, float] = {}

    def call(self, agent_id: str, class_name: str, call: Call, wait_seconds: float) -> Response | PendingResponse:
        """The reply, or a PendingResponse that is completed within `wait_seconds`."""
        now = self._services.clock.monotonic()
        parked = _Parked(agent_id=agent_id, class_name=class_name, call=call, began=self._began.get(call.call_id, now))
        response = self._attempt(parked)
        if response is not None:
            return response
        self._remember(call.call_id, parked.began)
        deadline = now + wait_seconds
        if parked.wait_seconds is not None:
            deadline = min(deadline, now + parked.wait_seconds)
        wait = ParkedRequest(
            agent_id=agent_id,
            deadline=deadline,
            attempt=lambda: self._attempt(parked),
            late=lambda: self._attempt(parked) or reply(CallReply(waiting=True)),
            pending=parked.pending,
        )
        return self._parked_requests.park(wait)

    def _remember(self, call_id: str, began: float) -> None:
        self._began[call_id] = began
        if len(self._began) > MAX_REMEMBERED:
            # A copy and `pop`: other threads come here too.
            for oldest in list(self._began)[:-MAX_REMEMBERED]:
                self._began.pop(oldest, None)

    def _attempt(self, parked: _Parked) -> Response | None:
        try:
            answer = self._perform(parked)
        except PagletsError as error:
            self._began.pop(parked.call.call_id, None)
            return reply_error(self._where_now(parked.agent_id, error))
        parked.wait_seconds = answer.wait_seconds
        if not answer.done:
            return None
        self._began.pop(parked.call.call_id, None)
        return reply(CallReply(value=answer.value))

    def _perform(self, parked: _Parked) -> InHostReply:
        message, agent_id = parked.call.message, parked.agent_id
        waited = self._services.clock.monotonic() - parked.began
        store = self._services.store
        run = store.read if in_host.is_read_only(parked.class_name, message) else store.write
        return run(lambda tx: in_host.call(tx, self._host_view, agent_id, message, waited))

    def _where_now(self, agent_id: str, error: PagletsError) -> PagletsError:
        """A call that waited while its paglet left is told where it went."""
        try:
            self._services.store.read(lambda tx: require_here(tx, agent_id))
        except PagletsError as elsewhere:
            return elsewhere
        return error
