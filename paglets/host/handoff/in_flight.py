"""The state of envelopes in flight since the start of the host, in memory. Used only on the runner."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.store.handoffs import Key

STUCK_SECONDS = 60.0
"""Seconds for which an online host may fail to take an envelope before the hand-off is rolled back. Less would move
jobs back and forth when a host restarts or its disk is full for a moment."""


class InFlightTransfers:
    """The envelopes in flight.

    `perhaps_sent`: keys of envelopes of which a byte may have been sent. At first, it has all envelopes that the
    previous run left in flight.
    """

    def __init__(self, under_way: Iterable[Key]) -> None:
        self.perhaps_sent = set(under_way)
        self._stuck: dict[Key, float] = {}
        self._unsettled: dict[Key, int] = {}

    def stuck(self, key: Key, now: float) -> bool:
        """Record that an online target does not take the envelope. Return True if this was not recorded before."""
        return self._stuck.setdefault(key, now) == now

    def not_stuck(self, key: Key) -> None:
        """Record that the envelope makes progress, or that its target is offline."""
        self._stuck.pop(key, None)

    def stuck_for_long(self, now: float) -> list[Key]:
        return [key for key, since in self._stuck.items() if since + STUCK_SECONDS <= now]

    def next_stuck(self, now: float) -> float | None:
        """Return the next time at which an envelope will have been stuck for STUCK_SECONDS; None if none is stuck."""
        times = (since + STUCK_SECONDS for since in self._stuck.values())
        return min((at for at in times if at > now), default=None)

    def not_settled(self, key: Key) -> None:
        """Count a request about this envelope that its target did not answer."""
        self._unsettled[key] = self.unsettled(key) + 1

    def settled(self, key: Key) -> None:
        self._unsettled.pop(key, None)

    def unsettled(self, key: Key) -> int:
        """Return the number of unanswered requests about this envelope since the last answer."""
        return self._unsettled.get(key, 0)

    def keep(self, under_way: set[Key]) -> None:
        """Forget envelopes that are no longer in flight."""
        self.perhaps_sent &= under_way
        self._stuck = {key: since for key, since in self._stuck.items() if key in under_way}
        self._unsettled = {key: count for key, count in self._unsettled.items() if key in under_way}
