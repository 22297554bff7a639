"""Replies that wait for something to become true: parked calls, moves and disposals under way.

Each is tried again after a COMMIT that touched its paglet, and ends with its deadline.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from paglets.core.errors import InternalError
from paglets.host.runtime.services import HostServices
from paglets.wire.request import PendingResponse, Response, reply_error

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParkedRequest:
    """`attempt` gives the response when the time has come, else None; `late` the one at the deadline."""

    agent_id: str
    deadline: float
    attempt: Callable[[], Response | None]
    late: Callable[[], Response]
    pending: PendingResponse


class ParkedRequests:
    """Part `parked`."""

    name = "parked"

    def __init__(self, services: HostServices) -> None:
        self._services = services
        self._new: deque[ParkedRequest] = deque()
        self._touched: deque[str] = deque()
        self._parked_requests: dict[str, list[ParkedRequest]] = {}

    def park(self, wait: ParkedRequest) -> PendingResponse:
        """Keep a reply back; any thread. It is tried once more at once, so that no change is missed."""
        self._new.append(wait)
        self._services.runner.wake(self.name)
        return wait.pending

    def touched(self, agent_ids: tuple[str, ...]) -> None:
        """A COMMIT changed these paglets; any thread."""
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
        # They stay in the table meanwhile: a COMMIT in the middle of an attempt must find that somebody waits.
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
        """A fault in one must not keep the others waiting: whoever asked is told, and the log has it."""
        try:
            return act()
        except Exception as error:
            self._services.log(f"fault in a reply that waited: {''.join(traceback.format_exception(error))}")
            return reply_error(InternalError("a fault of the host itself; its log says more", log="host.log"))
