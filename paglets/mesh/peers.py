"""The addresses given by hand (`--peer`): tried until a member answers there, and again if it goes away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from paglets.api.hosts import MeshHost
from paglets.core.clock import Entropy
from paglets.mesh import view

FIRST_RETRY_SECONDS = 0.5
"""Hosts are often started by one script, the peer a moment later than those that need it."""

MOST_RETRY_SECONDS = 5.0
"""A laptop that comes back finds its peer within this; a refused connection every 5 s costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """`store_id`: who answered there last ("": nobody yet). `problem`: why nobody did."""

    url: str
    store_id: str = ""
    problem: str = ""
    waiting: bool = False
    pause_seconds: float = 0.0
    due_at: float = float("-inf")


class Peers:
    """Only the runner changes this."""

    def __init__(self, entropy: Entropy, urls: Iterable[str], given: Iterable[str] = ()) -> None:
        """`urls`: all addresses to try. `given`: those of this start, not of an earlier one."""
        self._entropy = entropy
        self._given = tuple(given)
        self._peers = {url: Peer(url=url) for url in urls}

    def all(self) -> tuple[Peer, ...]:
        return tuple(self._peers.values())

    def awaited(self) -> tuple[str, ...]:
        """Return the URLs given at this start where no host has answered yet. Any thread may call this."""
        return tuple(url for url in self._given if not self._peers[url].store_id)

    def problems(self, members: Iterable[MeshHost]) -> tuple[tuple[str, str], ...]:
        """(URL, why) of those where no host answered, but not of those that are, or in this start were, a member's: one
        that sleeps, has moved, or cannot be connected to any more has joined all the same."""
        joined = {member.store_id: view.urls(member) for member in members}
        known = {url for urls in joined.values() for url in urls}
        failed = [peer for peer in self.all() if peer.store_id not in joined and peer.url not in known]
        return tuple((peer.url, peer.problem) for peer in failed if peer.problem)

    def due(self, now: float, online: frozenset[str]) -> tuple[str, ...]:
        """URLs to try now: those where no host answered that is online (`online`: store ids, this host's too)."""
        wanted = [p for p in self._peers.values() if p.store_id not in online and not p.waiting and p.due_at <= now]
        for peer in wanted:
            self._peers[peer.url] = replace(peer, waiting=True)
        return tuple(peer.url for peer in wanted)

    def next_due(self, online: frozenset[str]) -> float:
        times = [p.due_at for p in self._peers.values() if p.store_id not in online and not p.waiting]
        return min(times, default=float("inf"))

    def answered(self, url: str, store_id: str, now: float) -> None:
        """A host answered there. Should it not count as online, it is tried again after the longest pause."""
        self._peers[url] = Peer(url=url, store_id=store_id, due_at=now + MOST_RETRY_SECONDS)

    def failed(self, url: str, problem: str, now: float) -> None:
        peer = self._peers[url]
        pause = min(MOST_RETRY_SECONDS, max(FIRST_RETRY_SECONDS, peer.pause_seconds * 2))
        wait = pause * self._entropy.uniform(0.8, 1.0)
        self._peers[url] = replace(peer, waiting=False, pause_seconds=pause, problem=problem, due_at=now + wait)
