"""What this start of a host knows of the envelopes under way, in memory. On the runner only."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.store.handoffs import Key

STUCK_SECONDS = 60.0
"""So long a host that is there may fail to take an envelope, before that is taken back. Less would send jobs to and
fro for a restart, or for a disk that is full for a moment."""


class InFlightTransfers:
    """`perhaps_sent`: envelopes of which a byte may have gone out, at first those of an earlier start."""

    def __init__(self, under_way: Iterable[Key]) -> None:
        self.perhaps_sent = set(under_way)
        self._stuck: dict[Key, float] = {}
        self._unsettled: dict[Key, int] = {}

    def stuck(self, key: Key, now: float) -> bool:
        """Its target is there, and it does not get there; whether that is news."""
        return self._stuck.setdefault(key, now) == now

    def not_stuck(self, key: Key) -> None:
        """It is getting there, or its target is away."""
        self._stuck.pop(key, None)

    def stuck_for_long(self, now: float) -> list[Key]:
        return [key for key, since in self._stuck.items() if since + STUCK_SECONDS <= now]

    def next_stuck(self, now: float) -> float | None:
        """When the next one will be stuck for long."""
        times = (since + STUCK_SECONDS for since in self._stuck.values())
        return min((at for at in times if at > now), default=None)

    def not_settled(self, key: Key) -> None:
        """Its target was asked to settle it, and did not answer."""
        self._unsettled[key] = self.unsettled(key) + 1

    def settled(self, key: Key) -> None:
        self._unsettled.pop(key, None)

    def unsettled(self, key: Key) -> int:
        """How often it was asked so since its last answer."""
        return self._unsettled.get(key, 0)

    def keep(self, under_way: set[Key]) -> None:
        """Forget what is not under way any more."""
        self.perhaps_sent &= under_way
        self._stuck = {key: since for key, since in self._stuck.items() if key in under_way}
        self._unsettled = {key: count for key, count in self._unsettled.items() if key in under_way}
