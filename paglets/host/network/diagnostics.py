"""Says what keeps this host and others apart, once when it is new and once when it is over: in the log and to who
started the host."""

from __future__ import annotations

from paglets.host.runtime.runner import Log
from paglets.mesh.gossip import Gossiper

LOOK_SECONDS = 2.0
AGAIN_SECONDS = 60.0
"""Before another text about the same host is said: a contact that fails in two ways by turns is one trouble."""


class MeshDiagnostics:
    """Part `diagnostics`."""

    name = "diagnostics"

    def __init__(self, gossip: Gossiper, say: Log) -> None:
        self._gossip = gossip
        self._say = say
        self._said: dict[str, tuple[str, float]] = {}

    def tick(self, now: float) -> float | None:
        troubles = self._troubles()
        for subject, trouble in troubles.items():
            text, at = self._said.get(subject, ("", -AGAIN_SECONDS))
            if trouble != text and now - at >= AGAIN_SECONDS:
                self._said[subject] = (trouble, now)
                self._say(f"{subject}: {trouble}")
        for subject in [subject for subject in self._said if subject not in troubles]:
            del self._said[subject]
            self._say(f"{subject}: that is over")
        return now + LOOK_SECONDS

    def _troubles(self) -> dict[str, str]:
        """Of each address given by hand, and of each host, what is wrong with it."""
        found = {
            f"peer {url}": f"{problem.removeprefix(url).strip()}; this host keeps trying"
            for url, problem in self._gossip.peer_problems()
        }
        for view in self._gossip.hosts():
            if view.problem:
                found[f"host {view.host.name} at {view.host.url}"] = view.problem
        return found
