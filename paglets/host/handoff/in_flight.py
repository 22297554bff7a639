"""The state of envelopes in flight, kept in memory only. Used only on the runner."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.store.handoffs import Key

STUCK_SECONDS = 60.0
"""Seconds for which an online host may fail to take an envelope before the hand-off is rolled back. A shorter
time would move jobs back and forth when a host restarts or its disk is briefly full."""


class InFlightTransfers:
    """The envelopes in flight.

    `perhaps_sent` holds the keys of envelopes of which a byte may have been sent. At the start of the host, these are
    all envelopes that the previous run left in flight.
    """

    def __init__(self, under_way: Iterable[Key]) -> None:
        self.perhaps_sent = set(under_way)
        self._stuck: dict[Key, float] = {}
        self._unsettled: dict[Key, int] = {}

    def stuck(self, key: Key, now: float) -> bool:
        """Record that an online target did not take the envelope. Return True if it did not count as stuck before."""
        return self._stuck.setdefault(key, now) == now

    def not_stuck(self, key: Key) -> None:
        """Forget that the envelope is stuck. Called when it makes progress or its target is offline."""
        self._stuck.pop(key, None)

    def stuck_for_long(self, now: float) -> list[Key]:
        return [key for key, since in self._stuck.items() if since + STUCK_SECONDS <= now]

    def next_stuck(self, now: float) -> float | None:
        """Return the next time at which an envelope will have been stuck for STUCK_SECONDS, or None."""
        times = (since + STUCK_SECONDS for since in self._stuck.values())
        return min((at for at in times if at > now), default=None)

    def not_settled(self, key: Key) -> None:
        """Count one more unanswered question to the target about this envelope."""
        self._unsettled[key] = self.unsettled(key) + 1

    def settled(self, key: Key) -> None:
        self._unsettled.pop(key, None)

    def unsettled(self, key: Key) -> int:
        """Return the number of unanswered questions about this envelope since the last answer."""
        return self._unsettled.get(key, 0)

    def keep(self, under_way: set[Key]) -> None:
        """Forget all envelopes but `under_way`, the ones still in flight."""
        self.perhaps_sent &= under_way
        self._stuck = {key: since for key, since in self._stuck.items() if key in under_way}
        self._unsettled = {key: count for key, count in self._unsettled.items() if key in under_way}
