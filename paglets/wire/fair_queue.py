"""Which waiting request goes next: a bounded number at once to each host, the hosts in turn.

No locks here: callers take turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from paglets.wire.request import Request

J = TypeVar("J")

MOST_WAITING = 1000
"""In one lane. A part that sends more than this to a host that does not take it would only fill the memory."""

LANES: Mapping[str, int] = {"control": 4, "bytes": 2, "calls": 16, "pulls": 1}
"""How many requests to one host may be under way of each kind: a call may wait a minute for its reply, and
neither that nor a large file may hold up gossip and posts, by which a host is known to live. A pull waits always."""

QueueKey = tuple[str, str]


def queue_of(url: str, request: Request) -> QueueKey:
    """The lane that a request to `url` takes."""
    path = request.target.partition("?")[0]
    if request.queue:  # passed on: where that takes long, it holds up nothing that is for the host at `url` itself
        return url + path, request.queue
    if path.endswith("/call"):
        return url, "calls"
    if path == "/v1/outbox/pull":
        return url, "pulls"
    return url, "bytes" if path.startswith(("/v1/blobs", "/v1/artifacts")) else "control"


@dataclass(slots=True)
class _Queue(Generic[J]):
    most: int
    active: int = 0
    waiting: deque[J] = field(default_factory=deque)


class FairQueue(Generic[J]):
    """Each job taken by `next` must be given back by `end`."""

    def __init__(self) -> None:
        self._lanes: dict[QueueKey, _Queue[J]] = {}

    def is_full(self, key: QueueKey) -> bool:
        lane = self._lanes.get(key)
        return lane is not None and len(lane.waiting) >= MOST_WAITING

    def put(self, key: QueueKey, job: J) -> bool:
        """Add a job; whether it may start at once."""
        lane = self._lanes.setdefault(key, _Queue(most=LANES[key[1]]))
        lane.waiting.append(job)
        return lane.active + len(lane.waiting) <= lane.most

    def remove(self, key: QueueKey, job: J) -> None:
        """Take back a job that waits."""
        lane = self._lanes[key]
        lane.waiting.remove(job)
        if not lane.active and not lane.waiting:
            del self._lanes[key]

    def next(self) -> tuple[QueueKey, J] | None:
        """A job that may start; its lane goes to the end of the line, so that the other hosts come first then."""
        for key, lane in self._lanes.items():
            if lane.waiting and lane.active < lane.most:
                lane.active += 1
                self._lanes[key] = self._lanes.pop(key)
                return key, lane.waiting.popleft()
        return None

    def end(self, key: QueueKey) -> None:
        lane = self._lanes[key]
        lane.active -= 1
        if not lane.active and not lane.waiting:
            del self._lanes[key]

    def take_waiting(self) -> list[J]:
        """Remove all that have not started."""
        taken = [job for lane in self._lanes.values() for job in lane.waiting]
        for lane in self._lanes.values():
            lane.waiting.clear()
        return taken
