"""A fair queue of requests: hosts take turns, and each host gets a limited number of requests at once.

The queue has no locks, so call it from one thread at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from paglets.wire.request import QueueKey

T = TypeVar("T")

MOST_WAITING = 1000
"""Maximum length of one queue. More requests to a host that does not accept them would only use memory."""

LIMITS: Mapping[str, int] = {"control": 4, "bytes": 2, "calls": 16, "pulls": 1}
"""Concurrent requests to one host, by kind. A call may wait a minute for its reply, and a large file takes long.
Neither may delay gossip and posts, which show that a host is alive. A pull always waits, so it has its own limit."""


@dataclass(slots=True)
class _Queue(Generic[T]):
    most: int
    active: int = 0
    waiting: deque[T] = field(default_factory=deque)


class FairQueue(Generic[T]):
    """Queues of waiting items. After the work on an item from `next`, call `end`. Ask `is_full` before `put`."""

    def __init__(self) -> None:
        self._queues: dict[QueueKey, _Queue[T]] = {}

    def is_full(self, key: QueueKey) -> bool:
        queue = self._queues.get(key)
        return queue is not None and len(queue.waiting) >= MOST_WAITING

    def put(self, key: QueueKey, item: T) -> bool:
        """Add an item to the queue `key`. Return True if the item may start at once."""
        queue = self._queues.setdefault(key, _Queue(most=LIMITS[key[1]]))
        queue.waiting.append(item)
        return queue.active + len(queue.waiting) <= queue.most

    def remove(self, key: QueueKey, item: T) -> None:
        """Remove a waiting item."""
        queue = self._queues[key]
        queue.waiting.remove(item)
        if not queue.active and not queue.waiting:
            del self._queues[key]

    def next(self) -> tuple[QueueKey, T] | None:
        """Return the next item that may start, with the key of its queue, or None. Later calls try this queue last."""
        for key, queue in self._queues.items():
            if queue.waiting and queue.active < queue.most:
                queue.active += 1
                self._queues[key] = self._queues.pop(key)
                return key, queue.waiting.popleft()
        return None

    def end(self, key: QueueKey) -> None:
        """Record that an item from `next` is finished, so that another item of the queue `key` may start."""
        queue = self._queues[key]
        queue.active -= 1
        if not queue.active and not queue.waiting:
            del self._queues[key]

    def take_waiting(self) -> list[T]:
        """Remove and return all items that have not started."""
        taken = [item for queue in self._queues.values() for item in queue.waiting]
        for queue in self._queues.values():
            queue.waiting.clear()
        return taken
