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
class _Destination:
    """One destination: `busy` while a request is under way, else not before `due`."""

    busy: bool = False
    due: float = 0.0
    failures: int = 0
    failed_at: float = 0.0


class Backoff:
    """The destinations of one part, by store id. Belongs to the runner."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._backoff: dict[str, _Destination] = {}

    def may_send(self, store_id: str, now: float) -> bool:
        """Whether something may be sent there now."""
        each = self._backoff.get(store_id, _Destination())
        return not each.busy and each.due <= now

    def sent(self, store_id: str) -> None:
        self._backoff[store_id] = replace(self._backoff.get(store_id, _Destination()), busy=True)

    def succeeded(self, store_id: str) -> None:
        self._backoff.pop(store_id, None)

    def failed(self, store_id: str, now: float) -> None:
        """Back off: 0.1 s, doubled up to 5 s, each with jitter, so that many senders spread."""
        failures = self._backoff.get(store_id, _Destination()).failures
        self._backoff = {
            key: each
            for key, each in self._backoff.items()
            if each.busy or each.failed_at >= now - FAILURE_COUNTS_SECONDS
        }
        pause = min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(failures, 10)) * self._entropy.uniform(0.75, 1.25)
        self._backoff[store_id] = _Destination(due=now + pause, failures=failures + 1, failed_at=now)

    def contacted(self, store_id: str, at: float) -> None:
        """It was last heard of then: after a failure that was before, do not wait any longer."""
        each = self._backoff.get(store_id)
        if each is not None and each.failures and each.failed_at < at:
            self._backoff[store_id] = replace(each, due=0.0, failed_at=at)

    def next_due(self, store_ids: list[str], now: float) -> float | None:
        """When the first of these that is not busy may be tried again."""
        lanes = [self._backoff.get(store_id, _Destination()) for store_id in store_ids]
        return min((max(each.due, now) for each in lanes if not each.busy), default=None)
