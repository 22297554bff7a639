"""Exponential back-off for requests to other hosts. A new contact with a host ends its delay."""

from __future__ import annotations

from dataclasses import dataclass, replace

from paglets.core.clock import Entropy

FIRST_SECONDS = 0.1
MOST_SECONDS = 5.0
"""The upper bound of a delay. It is short because traffic must resume soon after a host returns."""

FAILURE_COUNTS_SECONDS = 600.0
"""Seconds after which a failure no longer counts. A failing host is retried long before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Destination:
    """The state of one destination. `busy`: a request is in flight. `due`: the earliest time of the next try."""

    busy: bool = False
    due: float = 0.0
    failures: int = 0
    failed_at: float = 0.0


class Backoff:
    """The back-off state of one part of the host, for each destination by store id. Only the runner uses it."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._destinations: dict[str, _Destination] = {}

    def may_send(self, store_id: str, now: float) -> bool:
        """Return True if no request to this host is in flight and its delay is over."""
        each = self._destinations.get(store_id, _Destination())
        return not each.busy and each.due <= now

    def sent(self, store_id: str) -> None:
        self._destinations[store_id] = replace(self._destinations.get(store_id, _Destination()), busy=True)

    def succeeded(self, store_id: str) -> None:
        self._destinations.pop(store_id, None)

    def failed(self, store_id: str, now: float) -> None:
        """Schedule the next try after 0.1 s, or after twice the previous delay, at most 5 s. Jitter is added."""
        failures = self._destinations.get(store_id, _Destination()).failures
        self._destinations = {
            key: each
            for key, each in self._destinations.items()
            if each.busy or each.failed_at >= now - FAILURE_COUNTS_SECONDS
        }
        pause = min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(failures, 10)) * self._entropy.uniform(0.75, 1.25)
        self._destinations[store_id] = _Destination(due=now + pause, failures=failures + 1, failed_at=now)

    def contacted(self, store_id: str, at: float) -> None:
        """End the delay of a host if the contact with it at time `at` (monotonic) is newer than its last failure."""
        each = self._destinations.get(store_id)
        if each is not None and each.failures and each.failed_at < at:
            self._destinations[store_id] = replace(each, due=0.0, failed_at=at)

    def next_due(self, store_ids: list[str], now: float) -> float | None:
        """Return the earliest time at which one of these destinations may be tried, or None if all are busy."""
        found = [self._destinations.get(store_id, _Destination()) for store_id in store_ids]
        return min((max(each.due, now) for each in found if not each.busy), default=None)
