"""The addresses given with `--peer`. Each is tried until a host answers, and again while that host is offline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from paglets.api.hosts import MeshHost
from paglets.core.clock import Entropy
from paglets.mesh import view

FIRST_RETRY_SECONDS = 0.5
"""First pause between two attempts. A script often starts all hosts, and a peer may start after this host."""

MOST_RETRY_SECONDS = 5.0
"""Longest pause between two attempts. A laptop that wakes up finds its peer within this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An address to try. `store_id`: the host that answered last; "" if none has. `problem`: why the last try failed.

    `waiting`: True while an attempt is in progress.
    """

    url: str
    store_id: str = ""
    problem: str = ""
    waiting: bool = False
    pause_seconds: float = 0.0
    due_at: float = float("-inf")


class Peers:
    """The peers and the times of their next attempts. Only the runner thread changes them."""

    def __init__(self, entropy: Entropy, urls: Iterable[str], given: Iterable[str] = ()) -> None:
        """Create a peer for each of `urls`. `given`: those configured at this start, not only stored earlier."""
        self._entropy = entropy
        self._given = tuple(given)
        self._peers = {url: Peer(url=url) for url in urls}

    def all(self) -> tuple[Peer, ...]:
        return tuple(self._peers.values())

    def awaited(self) -> tuple[str, ...]:
        """Return the `given` URLs at which no host has answered yet. May be called from any thread."""
        return tuple(url for url in self._given if not self._peers[url].store_id)

    def problems(self, hosts: Iterable[MeshHost]) -> tuple[tuple[str, str], ...]:
        """Return the URL and the problem of each address where no host answered.

        Addresses of the known `hosts` are left out, because these have joined, even if they now sleep or have moved.
        """
        joined = {host.store_id: view.urls(host) for host in hosts}
        known = {url for urls in joined.values() for url in urls}
        failed = [peer for peer in self.all() if peer.store_id not in joined and peer.url not in known]
        return tuple((peer.url, peer.problem) for peer in failed if peer.problem)

    def due(self, now: float, online: frozenset[str]) -> tuple[str, ...]:
        """Mark the URLs to try now as `waiting`, and return them. Leave out those of hosts in `online` (store ids)."""
        wanted = [p for p in self._peers.values() if p.store_id not in online and not p.waiting and p.due_at <= now]
        for peer in wanted:
            self._peers[peer.url] = replace(peer, waiting=True)
        return tuple(peer.url for peer in wanted)

    def next_due(self, online: frozenset[str]) -> float:
        times = [p.due_at for p in self._peers.values() if p.store_id not in online and not p.waiting]
        return min(times, default=float("inf"))

    def answered(self, url: str, store_id: str, now: float) -> None:
        """Record that a host answered at `url`. If the host does not come online, retry after the longest pause."""
        self._peers[url] = Peer(url=url, store_id=store_id, due_at=now + MOST_RETRY_SECONDS)

    def failed(self, url: str, problem: str, now: float) -> None:
        peer = self._peers[url]
        pause = min(MOST_RETRY_SECONDS, max(FIRST_RETRY_SECONDS, peer.pause_seconds * 2))
        wait = pause * self._entropy.uniform(0.8, 1.0)
        self._peers[url] = replace(peer, waiting=False, pause_seconds=pause, problem=problem, due_at=now + wait)
