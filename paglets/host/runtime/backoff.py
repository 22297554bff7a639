"""When to try a host again: soon at first, then later, at once when it is heard of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paglets.core.clock import Entropy

FIRST_SECONDS = 0.1
MOST_SECONDS = 5.0
"""What waits for a host that is back must not wait for us: the delay stays short, and gossip cuts it."""

FAILURE_COUNTS_SECONDS = 600.0
"""A failure that is so long ago says nothing of a host any more; one that is tried fails anew well before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One destination: `busy` while a request is under way, else not before `due`."""

    busy: bool = False
    due: float = 0.0
    failures: int = 0
    failed_at: float = 0.0


class Lanes:
    """The destinations of one part, by store id. Belongs to the runner."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._lanes: dict[str, Lane] = {}

    def open(self, store_id: str, now: float) -> bool:
        """Whether something may be sent there now."""
        lane = self._lanes.get(store_id, Lane())
        return not lane.busy and lane.due <= now

    def sent(self, store_id: str) -> None:
        self._lanes[store_id] = replace(self._lanes.get(store_id, Lane()), busy=True)

    def succeeded(self, store_id: str) -> None:
        self._lanes.pop(store_id, None)

    def failed(self, store_id: str, now: float) -> None:
        """Back off: 0.1 s, doubled up to 5 s, each with jitter, so that many senders spread."""
        failures = self._lanes.get(store_id, Lane()).failures
        self._lanes = {
            key: lane
            for key, lane in self._lanes.items()
            if lane.busy or lane.failed_at >= now - FAILURE_COUNTS_SECONDS
        }
        pause = min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(failures, 10)) * self._entropy.uniform(0.75, 1.25)
        self._lanes[store_id] = Lane(due=now + pause, failures=failures + 1, failed_at=now)

    def heard(self, store_id: str, at: float) -> None:
        """It was last heard of then: after a failure that was before, do not wait any longer."""
        lane = self._lanes.get(store_id)
        if lane is not None and lane.failures and lane.failed_at < at:
            self._lanes[store_id] = replace(lane, due=0.0, failed_at=at)

    def next_due(self, store_ids: list[str], now: float) -> float | None:
        """When the first of these that is not busy may be tried again."""
        lanes = [self._lanes.get(store_id, Lane()) for store_id in store_ids]
        return min((max(lane.due, now) for lane in lanes if not lane.busy), default=None)
