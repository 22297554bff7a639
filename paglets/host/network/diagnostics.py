"""Log each problem of this host with another host, once when it appears and once when it ends."""

from __future__ import annotations

from collections.abc import Callable

from paglets.mesh.gossip import Gossiper

LOOK_SECONDS = 2.0
AGAIN_SECONDS = 60.0
"""The minimum seconds between log lines about problems with a host, because one problem may cause several errors."""


class MeshDiagnostics:
    """The runner part `diagnostics`, which reports problems with other hosts through `log`."""

    name = "diagnostics"

    def __init__(self, gossip: Gossiper, log: Callable[[str], None]) -> None:
        self._gossip = gossip
        self._log = log
        self._logged: dict[str, tuple[str, float]] = {}

    def tick(self, now: float) -> float | None:
        problems = self._problems()
        for subject, problem in problems.items():
            text, at = self._logged.get(subject, ("", -AGAIN_SECONDS))
            if problem != text and now - at >= AGAIN_SECONDS:
                self._logged[subject] = (problem, now)
                self._log(f"{subject}: {problem}")
        for subject in [subject for subject in self._logged if subject not in problems]:
            del self._logged[subject]
            self._log(f"{subject} works again")
        return now + LOOK_SECONDS

    def _problems(self) -> dict[str, str]:
        """Return the current problem of each configured peer URL and of each host of the mesh, if it has one."""
        found = {
            f"peer {url}": f"{problem.removeprefix(url).strip()}; this host keeps trying"
            for url, problem in self._gossip.peer_problems()
        }
        for view in self._gossip.hosts():
            if view.problem:
                found[f"host {view.host.name} at {view.host.url}"] = view.problem
        return found
