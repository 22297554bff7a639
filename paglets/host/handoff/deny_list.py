"""Where jobs were taken back from, in memory: they are not placed there again for a while. On the runner only."""

from __future__ import annotations

AVOID_SECONDS = 600.0
"""So long a job is not placed where it was taken back from, while there is another host for it."""


class PlacementDenyList:
    """By job, the hosts that did not take it and until when that counts."""

    def __init__(self) -> None:
        self._until: dict[str, dict[str, float]] = {}
        self._paused: dict[str, float] = {}

    def avoid(self, agent_id: str, store_id: str, now: float) -> None:
        """That host did not take this job."""
        self._until.setdefault(agent_id, {})[store_id] = now + AVOID_SECONDS

    def by(self, agent_id: str, now: float) -> frozenset[str]:
        """Hosts where this job is not placed if another one will do, by store id."""
        return frozenset(store_id for store_id, end in self._until.get(agent_id, {}).items() if end > now)

    def pause(self, agent_id: str, until: float) -> None:
        """Do not place this job before then."""
        self._paused[agent_id] = until

    def is_paused(self, agent_id: str, now: float) -> bool:
        return self._paused.get(agent_id, now) > now

    def next_end(self, now: float) -> float:
        """Return when the next pause ends, infinity if there is none."""
        return min((end for end in self._paused.values() if end > now), default=float("inf"))

    def forget(self, now: float) -> None:
        """What is over."""
        self._paused = {agent_id: end for agent_id, end in self._paused.items() if end > now}
        self._until = {
            agent_id: ends for agent_id, ends in self._until.items() if any(end > now for end in ends.values())
        }
