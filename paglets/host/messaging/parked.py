"""Parked requests (long polls), which are answered when a condition holds, such as the end of a move.

The condition is checked after each COMMIT that changed the paglet of the request. At its deadline, a request is
answered even if its condition does not hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from paglets.api.calls import Call, CallReply
from paglets.core.errors import InternalError, PagletsError
from paglets.host.messaging.creation import require_here
from paglets.host.records import in_host
from paglets.host.records.in_host import HostView, InHostReply
from paglets.host.runtime.services import HostServices
from paglets.wire.request import PendingResponse, Response, reply, reply_error

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParkedRequest:
    """A request that is answered when its condition holds, at the latest at its deadline (monotonic seconds).

    `attempt` returns the response if the condition holds, else None. `late` returns the response at the deadline.
    """

    agent_id: str
    deadline: float
    attempt: Callable[[], Response | None]
    late: Callable[[], Response]
    pending: PendingResponse


class ParkedRequests:
    """The runner part `parked`, which answers parked requests."""

    name = "parked"

    def __init__(self, services: HostServices) -> None:
        self._services = services
        self._new: deque[ParkedRequest] = deque()
        self._touched: deque[str] = deque()
        self._parked_requests: dict[str, list[ParkedRequest]] = {}

    def park(self, wait: ParkedRequest) -> PendingResponse:
        """Park a request. The next tick checks its condition, so that no change is missed.

        May be called from any thread.
        """
        self._new.append(wait)
        self._services.runner.wake(self.name)
        return wait.pending

    def touched(self, agent_ids: tuple[str, ...]) -> None:
        """Check parked requests again after a COMMIT changed these paglets. May be called from any thread."""
        if self._parked_requests or self._new:
            self._touched.extend(agent_ids)
            self._services.runner.wake(self.name)

    def tick(self, now: float) -> float | None:
        due = {self._touched.popleft(): None for _ in range(len(self._touched))}
        for _ in range(len(self._new)):
            wait = self._new.popleft()
            self._parked_requests.setdefault(wait.agent_id, []).append(wait)
            due[wait.agent_id] = None
        for agent_id in due:
            self._try(agent_id)
        self._expire(now)
        deadlines = [wait.deadline for waits in self._parked_requests.values() for wait in waits]
        return min(deadlines, default=None)

    def _try(self, agent_id: str) -> None:
        # Keep the requests in the dict during an attempt, because a COMMIT may call `touched`, which checks the dict.
        left = []
        for wait in self._parked_requests.get(agent_id, []):
            response = self._guarded(wait.attempt)
            if response is None:
                left.append(wait)
            else:
                wait.pending.complete(response)
        self._keep(agent_id, left)

    def _expire(self, now: float) -> None:
        for agent_id, waits in list(self._parked_requests.items()):
            for wait in waits:
                if wait.deadline <= now:
                    wait.pending.complete(self._guarded(wait.late))
            self._keep(agent_id, [wait for wait in waits if wait.deadline > now])

    def _keep(self, agent_id: str, left: list[ParkedRequest]) -> None:
        if left:
            self._parked_requests[agent_id] = left
        else:
            self._parked_requests.pop(agent_id, None)

    def _guarded(self, act: Callable[[], T]) -> T | Response:
        """Call `act`. Log an unexpected error and return it as a response, so that other requests are still served."""
        try:
            return act()
        except Exception as error:
            self._services.logger(self.name).error("internal error in a parked request", exc_info=error)
            return reply_error(InternalError("the host failed with an internal error; see its log", log="host.log"))


MAX_REMEMBERED = 10_000
"""The maximum number of calls whose start time is kept. An older call that is repeated waits its full time again."""


@dataclass(eq=False, kw_only=True)
class _Parked:
    """A waiting call to a paglet that runs inside the host. `began`: the time of its first request, monotonic."""

    agent_id: str
    class_name: str
    call: Call
    began: float
    wait_seconds: float | None = None
    pending: PendingResponse = field(default_factory=PendingResponse)


class CollectorCalls:
    """Calls to paglets that run inside the host: collectors of the default class.

    A caller that gets the reply `waiting` repeats its request with the same call id. The handler's waiting time counts
    from the first request.
    """

    def __init__(self, services: HostServices, host_view: HostView, parked: ParkedRequests) -> None:
        self._services = services
        self._host_view = host_view
        self._parked_requests = parked
        self._began: dict[str, float] = {}

    def call(self, agent_id: str, class_name: str, call: Call, wait_seconds: float) -> Response | PendingResponse:
        """Return the reply, or a PendingResponse that completes within `wait_seconds`."""
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
            # Iterate over a copy and remove with `pop`, because other threads change the dict at the same time.
            for oldest in list(self._began)[:-MAX_REMEMBERED]:
                self._began.pop(oldest, None)

    def _attempt(self, parked: _Parked) -> Response | None:
        try:
            answer = self._perform(parked)
        except PagletsError as error:
            self._began.pop(parked.call.call_id, None)
            return reply_error(self._error_now(parked.agent_id, error))
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

    def _error_now(self, agent_id: str, error: PagletsError) -> PagletsError:
        """Return Moved, Moving or Unknown if the paglet left this host while the call waited, else `error`."""
        try:
            self._services.store.read(lambda tx: require_here(tx, agent_id))
        except PagletsError as elsewhere:
            return elsewhere
        return error
