"""What this start of a host knows of the envelopes under way, in memory. On the runner only."""

from __future__ import annotations

from collections.abc import Iterable

from paglets.store.recalls import Key

STUCK_SECONDS = 60.0
"""So long a host that is there may fail to take an envelope, before that is taken back. Less would send jobs to and
fro for a restart, or for a disk that is full for a moment."""

AVOID_SECONDS = 600.0
"""So long a job is not placed where it was taken back from, while there is another host for it."""


class Tries:
    """`perhaps_sent`: envelopes of which a byte may have gone out, at first those of an earlier start."""

    def __init__(self, under_way: Iterable[Key]) -> None:
        self.perhaps_sent = set(under_way)
        self._stuck: dict[Key, float] = {}
        self._avoided: dict[str, dict[str, float]] = {}

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

    def keep(self, under_way: set[Key]) -> None:
        """Forget what is not under way any more."""
        self.perhaps_sent &= under_way
        self._stuck = {key: since for key, since in self._stuck.items() if key in under_way}

    # Where jobs were taken back from.

    def avoid(self, agent_id: str, store_id: str, now: float) -> None:
        """That host did not take this job."""
        ends = self._avoided.setdefault(agent_id, {})
        ends[store_id] = now + AVOID_SECONDS

    def avoided(self, agent_id: str, now: float) -> frozenset[str]:
        """Hosts where this job is not placed if another one will do, by store id."""
        ends = self._avoided.get(agent_id)
        return frozenset() if ends is None else frozenset(store_id for store_id, end in ends.items() if end > now)

    def forget_avoided(self, now: float) -> None:
        """What is over."""
        self._avoided = {
            agent_id: ends for agent_id, ends in self._avoided.items() if any(end > now for end in ends.values())
        }
