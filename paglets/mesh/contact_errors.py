"""Failed connections between hosts, and the texts that show them to users."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from paglets.api.hosts import BrokenLink, MeshHost, UnreachableHost
from paglets.core.clock import Clock
from paglets.core.errors import NotAllowed, PagletsError, Unreachable
from paglets.mesh.table import MAX_UNREACHABLE_HOSTS, ONLINE_SECONDS, Row, Table, same_mesh
from paglets.mesh.view import MAX_NAMES_SHOWN

ONE_WAY_FAILURES = 3
"""Number of consecutive failed connections to an online host before they are reported."""

ONE_WAY_SECONDS = 15.0
"""Time for which connections to an online host must fail before they are reported.

A host that starts or returns is reachable within a few seconds.
"""

MAX_BROKEN_LINKS = 50
"""Maximum number of broken links (pairs of hosts) in one reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    """The failed connections to a host since its last reply. `error`: the error of the last one.

    `times`: the number of failures while the host was online. `since`: the monotonic time of the first of these.
    `at`: the same time in seconds since the epoch.
    """

    error: PagletsError
    since: float
    at: float
    times: int

    def lasts(self, now: float) -> bool:
        """Return True if connections have failed often and long enough to be reported."""
        return self.times >= ONE_WAY_FAILURES and now - self.since >= ONE_WAY_SECONDS


class ContactErrors:
    """The hosts to which this host cannot connect, and the hosts that report that they cannot connect to this host.

    Only the runner thread changes the object. `texts` and `is_one_way` may be called from any thread.
    `seconds_since_contact`: returns the time since direct contact with a host.
    """

    def __init__(self, seconds_since_contact: Callable[[str], float]) -> None:
        self._seconds_since_contact = seconds_since_contact
        self._failures: dict[str, _Failed] = {}
        self._unreachable: dict[str, str] = {}

    def failed(self, store_id: str, error: PagletsError, clock: Clock, is_up: bool) -> None:
        counts = is_up and isinstance(error, Unreachable)
        before = self._failures.get(store_id)
        if counts and before is not None and before.times:
            self._failures[store_id] = replace(before, error=error, times=before.times + 1)
        else:
            now, wall = clock.monotonic(), clock.wall()
            self._failures[store_id] = _Failed(error=error, since=now, at=wall, times=int(counts))

    def answered(self, store_id: str, unreachable_at: str) -> None:
        """Record a reply of a host. `unreachable_at`: the URL of this host, if the other cannot connect to it."""
        self._failures.pop(store_id, None)
        self._unreachable.pop(store_id, None)
        if unreachable_at:
            self._unreachable[store_id] = unreachable_at

    def keep(self, known: Collection[str]) -> None:
        """Drop the errors of hosts that are no longer in the membership table (`known`)."""
        self._failures = {store_id: each for store_id, each in self._failures.items() if store_id in known}
        self._unreachable = {store_id: url for store_id, url in self._unreachable.items() if store_id in known}

    def is_one_way(self, row: Row, now: float) -> bool:
        """Return True if this host receives requests from the host in `row` but cannot connect to it."""
        found = self._failures.get(row.host.store_id)
        if found is None or not row.up or not row.host.reachable:
            return False
        return found.lasts(now) and self._seconds_since_contact(row.host.store_id) < ONLINE_SECONDS

    def is_failing(self, row: Row) -> bool:
        """Return True if the last connection to the host in `row` failed although that host was online."""
        found = self._failures.get(row.host.store_id)
        return found is not None and found.times > 0

    def noted(self, own: MeshHost, table: Table, now: float) -> MeshHost:
        """Return this host's row `own` with the online hosts to which it cannot connect, longest failure first."""
        failing = [
            (found.at, store_id)
            for store_id, found in self._failures.items()
            if found.lasts(now) and (row := table.rows.get(store_id)) is not None and row.up and row.host.reachable
        ]
        found = tuple(
            UnreachableHost(store_id=store_id, since=at) for at, store_id in sorted(failing)[:MAX_UNREACHABLE_HOSTS]
        )
        return replace(own, unreachable_hosts=found)

    def texts(self, own: MeshHost, table: Table, now: float) -> Mapping[str, str]:
        """Return a text for each host with a contact error, by store id. This host may be one of them."""
        texts = {}
        for store_id, found in list(self._failures.items()):
            row = table.rows.get(store_id)
            if row is not None and not row.host.reachable and isinstance(found.error, Unreachable):
                # The host is configured as not reachable, so no host is expected to connect to it.
                continue
            is_one_way = row is not None and self.is_one_way(row, now)
            texts[store_id] = _one_way(own, row.host) if row and is_one_way else contact_error_text(found.error)
        rows = [
            table.rows[key] for key, url in sorted(self._unreachable.items()) if url == own.url and key in table.rows
        ]
        names = [row.host.name for row in rows if row.up]
        if names and own.reachable:
            texts[own.store_id] = _unreachable_here_text(own, names)
        return texts


def broken_links(own: MeshHost, table: Table, wall: float) -> tuple[BrokenLink, ...]:
    """Return at most MAX_BROKEN_LINKS pairs of online hosts between which connections fail, as the hosts report."""
    rows = {key: row.host for key, row in table.rows.items() if row.up and same_mesh(row.host, own)}
    online = {**rows, own.store_id: own}
    found = [
        BrokenLink(source=each.name, target=online[one.store_id].name, seconds=max(0.0, wall - one.since))
        for each in online.values()
        for one in each.unreachable_hosts
        if one.store_id in online
    ]
    return tuple(sorted(found, key=lambda cut: (cut.source, cut.target)))[:MAX_BROKEN_LINKS]


def contact_error_text(error: PagletsError) -> str:
    if isinstance(error, NotAllowed):
        problem = "not joined: it does not accept this host's mesh key; copy mesh.key from one to the other"
        return f"{problem} ({error.message})"
    return error.message


def _unreachable_here_text(own: MeshHost, names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
    return (
        f"{', '.join(names[:MAX_NAMES_SHOWN])}{more} cannot connect to this host at {own.url}: open that port, set "
        f"public_url to a URL that they can use, or set `reachable = false` in [hosts.{own.name}]; then restart it"
    )


def _one_way(own: MeshHost, host: MeshHost) -> str:
    return (
        f"{own.name} cannot connect to {host.name} at {host.url}, but gets its requests: open that port, "
        f"or set `reachable = false` in [hosts.{host.name}] and restart it"
    )
