"""The membership table and its merge, as pure functions without a clock, a store or a network.

Each host has one row, identified by its store id. Of two rows of a host, the one with the higher (`boot_count`,
`heartbeat`) is kept, regardless of the order in which they arrive. So all hosts get the same rows. Each host decides by
its own monotonic clock which hosts are online; these decisions are not merged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from paglets.api.hosts import Gossip, MeshHost
from paglets.core.errors import Invalid
from paglets.core.record import to_json
from paglets.core.refs import check_host_name
from paglets.core.urls import normalise_url
from paglets.slots.model import MAX_PROPERTIES, MAX_PROPERTY_CHARACTERS, MAX_TAG_CHARACTERS, MAX_TAGS

ONLINE_SECONDS = 10.0
"""Time without a sign of life after which a host is offline: five heartbeats of 2 s. A lost message or a slow disk does
not make a host offline, and a user who disconnects a host sees the effect within this time."""

SUSPECT_SECONDS = 4.0
"""Time without a sign of life, two heartbeats, after which failed connections can make a host count as offline."""

FAILURES_TO_OFFLINE = 2
"""Number of failed connections after which a host counts as offline, if it was not seen for SUSPECT_SECONDS."""

MAX_HOSTS = 1_000
"""Maximum number of hosts in the table: twenty times the largest intended mesh. It limits the size of messages."""

FORGET_SECONDS = 30 * 86_400.0
"""Time without a sign of life, while this host runs, after which another host is removed from the table."""

FORGET_FOREIGN_SECONDS = 3_600.0
"""Like FORGET_SECONDS, for hosts of another mesh version, which are only displayed, and for hosts that never joined
because their name was in use. Such a host may have joined in another part of a partitioned mesh."""

MAX_ADDRESSES = 16
MAX_UNREACHABLE_HOSTS = 8
"""Maximum number of unreachable hosts that a host reports in its row. After a user fixes one, the next is reported."""

MAX_TEXT_CHARACTERS = 500
MAX_COUNT = 2**53

STORE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the membership table: another host, and its state as this host sees it.

    `last_seen_at`: the monotonic time of the last sign of life, direct or reported by another host. `last_contact_at`:
    the same for direct contact only. `was_seen`: False before the first sign of life; until then, both times are when
    this host started, resumed or received the row. `was_in_mesh`: True if the host was once online and held its name,
    as this host or the sender of the row saw it.
    """

    host: MeshHost
    last_seen_at: float
    up: bool
    failures: int = 0
    last_contact_at: float = 0.0
    was_seen: bool = False
    was_in_mesh: bool = False


class Mark(NamedTuple):
    """A mark of a removed host, with the `boot_count` and `heartbeat` of its last row.

    Only newer rows of the removed host are accepted from other hosts. `for_good`: True if a user removed the host. Then
    only a newer row from the host itself is accepted.
    """

    boot_count: int
    heartbeat: int
    for_good: bool = False

    def keeps_out(self, host: MeshHost, direct: bool) -> bool:
        """Return True if the row `host` is not accepted. `direct`: True if the row comes from that host itself."""
        is_old = order(host) <= (self.boot_count, self.heartbeat)
        return (is_old or not direct) if self.for_good else (is_old and not direct)


NEVER_SEEN = Mark(-1, -1)

LATE_BEATS = 20
"""A row of a host that a user removed is accepted only if it is more than this many heartbeats (40 s) newer than the
last known row, because it may only be late. A removed host that still runs is accepted again after this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The membership table. `rows`: the other hosts. `forgotten`: the marks of removed hosts. Keys are store ids."""

    rows: Mapping[str, Row] = field(default_factory=dict)
    forgotten: Mapping[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A new table and its differences from the previous one, as store ids.

    `stored`: the hosts to store, because durable fields changed. `dropped`: the removed hosts. `news`: the hosts that
    came online, restarted or changed their URL.
    """

    table: Table
    stored: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    news: tuple[str, ...] = ()


def order(host: MeshHost) -> tuple[int, int]:
    """Return the value by which two rows of the same host are ordered."""
    return (host.boot_count, host.heartbeat)


def newer(one: MeshHost, other: MeshHost) -> bool:
    """Return True if the row `one` replaces the row `other` of the same host.

    Different rows with the same order are compared as text, so that all hosts agree.
    """
    if order(one) != order(other):
        return order(one) > order(other)
    return one != other and _text(one) > _text(other)


def _text(host: MeshHost) -> str:
    return json.dumps(to_json(host), sort_keys=True)


_PASSING = frozenset(("heartbeat", "free", "queued_jobs", "running_jobs", "unreachable_hosts"))
_lasting = attrgetter(*(each.name for each in fields(MeshHost) if each.name not in _PASSING))


def durable(host: MeshHost) -> tuple[Any, ...]:
    """Return the fields whose changes are stored. They do not include fields that change often, such as the load."""
    values: tuple[Any, ...] = _lasting(host)
    return values


def same_mesh(one: MeshHost | Gossip, other: MeshHost | Gossip) -> bool:
    """Return True if both hosts have the same mesh version and protocol."""
    return (one.mesh_version, one.protocol) == (other.mesh_version, other.protocol)


def stored_table(hosts: Iterable[MeshHost], now: float, forgotten: Mapping[str, Mark]) -> Table:
    """Return the table of a host that just started: all stored hosts, marked as offline and not seen."""
    rows = {m.store_id: Row(host=m, last_seen_at=now, up=False, last_contact_at=now, was_in_mesh=True) for m in hosts}
    return Table(rows=rows, forgotten=forgotten)


def merge(
    table: Table,
    hosts: Iterable[MeshHost],
    *,
    now: float,
    direct: str = "",
    offline: Iterable[str] = (),
) -> Change:
    """Merge rows that arrived at the monotonic time `now`.

    A newer row is a sign of life of its host, unless the sender reports the host as `offline`. `direct`: the store id
    of the sender. A message is a sign of life of its sender, even if the sender's row is not newer.
    """
    rows, held_offline = dict(table.rows), frozenset(offline)
    for host in hosts:
        if table.forgotten.get(host.store_id, NEVER_SEEN).keeps_out(host, host.store_id == direct):
            continue
        row = _merged(rows.get(host.store_id), host, now, host.store_id == direct, held_offline)
        if row is not None:
            rows[host.store_id] = row
    forgotten = {key: mark for key, mark in table.forgotten.items() if key not in rows}
    return _bounded(table, Table(rows=rows, forgotten=forgotten))


def _merged(old: Row | None, host: MeshHost, now: float, direct: bool, offline: frozenset[str]) -> Row | None:
    """Return the row to store after another host has sent the gossip row `host`; None if `old` stays unchanged."""
    fresh = old is None or newer(host, old.host)
    alive = direct or (fresh and host.store_id not in offline)
    if not fresh and not alive:
        return None
    return Row(
        host=host if fresh or old is None else old.host,
        last_seen_at=now if alive or old is None else old.last_seen_at,
        up=alive or (old is not None and old.up),
        failures=0 if direct or old is None else old.failures,
        last_contact_at=now if direct or old is None else old.last_contact_at,
        was_seen=alive or (old is not None and old.was_seen),
        was_in_mesh=host.store_id in offline or (old is not None and old.was_in_mesh),
    )


def contact(table: Table, store_ids: Mapping[str, float]) -> Change:
    """Record direct contacts. `store_ids`: a map from store ids to the monotonic times of the last contacts."""
    rows = dict(table.rows)
    for store_id, at in store_ids.items():
        row = rows.get(store_id)
        if row is not None:
            last_seen_at, last_contact_at = max(at, row.last_seen_at), max(at, row.last_contact_at)
            rows[store_id] = replace(
                row, last_seen_at=last_seen_at, up=True, failures=0, last_contact_at=last_contact_at, was_seen=True
            )
    return change_between(table, replace(table, rows=rows))


def failed(table: Table, store_id: str, now: float) -> Change:
    """Record a failed connection to a host.

    A host that was seen less than SUSPECT_SECONDS ago stays online, because other hosts can probably reach it.
    """
    row = table.rows.get(store_id)
    if row is None:
        return Change(table=table)
    failures = row.failures + 1
    gone = failures >= FAILURES_TO_OFFLINE and now - row.last_seen_at > SUSPECT_SECONDS
    return _replaced(table, store_id, replace(row, failures=failures, up=row.up and not gone))


def left(table: Table, store_id: str) -> Change:
    """Mark a host as offline, because it reported that it stops or because another host answers at its address."""
    row = table.rows.get(store_id)
    return Change(table=table) if row is None else _replaced(table, store_id, replace(row, up=False))


def expire(table: Table, now: float, own: MeshHost) -> Change:
    """Mark hosts as offline that were not seen for ONLINE_SECONDS.

    Remove hosts that were not seen for FORGET_SECONDS. For hosts of another mesh version, and for hosts that never
    joined, this time is FORGET_FOREIGN_SECONDS.
    """
    rows = {}
    for store_id, row in table.rows.items():
        unseen_seconds = now - row.last_seen_at
        if unseen_seconds <= (
            FORGET_SECONDS if row.was_in_mesh and same_mesh(row.host, own) else FORGET_FOREIGN_SECONDS
        ):
            rows[store_id] = replace(row, up=False) if row.up and unseen_seconds > ONLINE_SECONDS else row
    return change_between(table, _marked(table, rows))


def restart_timers(table: Table, now: float) -> Table:
    """Restart the timers of all hosts after a gap, in which this host could not receive signs of life."""
    rows = {
        key: replace(row, last_seen_at=now, failures=0, last_contact_at=now, was_seen=False)
        for key, row in table.rows.items()
    }
    return replace(table, rows=rows)


def forget(table: Table, store_id: str) -> Change:
    """Remove a host permanently. Only a newer row from that host itself is accepted afterwards."""
    marked = _marked(table, {key: row for key, row in table.rows.items() if key != store_id})
    mark = marked.forgotten.get(store_id, NEVER_SEEN)
    if mark != NEVER_SEEN and not mark.for_good:
        mark = mark._replace(heartbeat=mark.heartbeat + LATE_BEATS)
    mark = mark._replace(for_good=True)
    return change_between(table, replace(marked, forgotten={**marked.forgotten, store_id: mark}))


def joined(change: Change, store_ids: Iterable[str]) -> Change:
    """Mark hosts as joined in the table of `change`, so that they are stored."""
    rows = {key: replace(change.table.rows[key], was_in_mesh=True) for key in store_ids}
    table = replace(change.table, rows={**change.table.rows, **rows})
    return replace(change, table=table, stored=tuple(dict.fromkeys((*change.stored, *rows))))


def _replaced(table: Table, store_id: str, row: Row) -> Change:
    return change_between(table, replace(table, rows={**table.rows, store_id: row}))


def _bounded(before: Table, after: Table) -> Change:
    """Return a change to a table with at most MAX_HOSTS rows.

    Offline hosts are removed before online hosts, and among them the hosts that were not seen for longest.
    """
    if len(after.rows) <= MAX_HOSTS:
        return change_between(before, after)
    kept = sorted(after.rows.items(), key=lambda item: (not item[1].up, -item[1].last_seen_at, item[0]))[:MAX_HOSTS]
    return change_between(before, _marked(after, dict(kept)))


def _marked(table: Table, rows: Mapping[str, Row]) -> Table:
    """Return the table with `rows` as its rows. Each removed host gets a mark, so that its old rows are rejected."""
    dropped = {key: Mark(*order(row.host)) for key, row in table.rows.items() if key not in rows}
    marks = list({**table.forgotten, **dropped}.items())[-MAX_HOSTS:]
    return Table(rows=rows, forgotten=dict(marks))


def change_between(before: Table, after: Table) -> Change:
    """Return the Change from one table to another."""
    stored, news = [], []
    for store_id, row in after.rows.items():
        old = before.rows.get(store_id)
        if old is row:
            continue
        if old is None or (old.host is not row.host and durable(old.host) != durable(row.host)):
            stored.append(store_id)
        if row.up and (old is None or not old.up or _place(old.host) != _place(row.host)):
            news.append(store_id)
    dropped = tuple(key for key in before.rows if key not in after.rows)
    return Change(table=after, stored=tuple(stored), dropped=dropped, news=tuple(news))


def _place(host: MeshHost) -> tuple[str, str, str]:
    return (host.url, host.boot_id, host.name)


def check_gossip(gossip: Gossip, sender: str) -> Gossip:
    """Return `gossip` if its rows are valid and the first row is that of `sender`. Raises Invalid otherwise."""
    if not gossip.hosts or gossip.hosts[0].store_id != sender:
        raise Invalid("gossip: the first row must be the sender's own")
    if len(gossip.hosts) > MAX_HOSTS + 1:
        raise Invalid(f"gossip: got {len(gossip.hosts)} rows, expected at most {MAX_HOSTS + 1}")
    if gossip.unreachable_at and not _is_url(gossip.unreachable_at):
        raise Invalid(f"gossip: unreachable_at {gossip.unreachable_at[:200]!r} is not of the form http://host:port")
    for host in gossip.hosts:
        check_host(host)
    return gossip


def check_host(host: MeshHost) -> MeshHost:
    """Return `host` if each of its fields is within its limits. Raises Invalid, which names the field."""
    if not all(
        STORE_ID.fullmatch(each) for each in (host.store_id, *(each.store_id for each in host.unreachable_hosts))
    ):
        raise Invalid(f"host {host.store_id[:80]!r}: store_id is malformed")
    check_host_name(host.name)
    bounds = (
        ("addresses", len(host.addresses), MAX_ADDRESSES),
        ("tags", len(host.tags), MAX_TAGS),
        ("properties", len(host.properties), MAX_PROPERTIES),
        ("boot_count", host.boot_count, MAX_COUNT),
        ("heartbeat", host.heartbeat, MAX_COUNT),
        ("joined", host.joined, MAX_COUNT),
        ("unreachable_hosts", len(host.unreachable_hosts), MAX_UNREACHABLE_HOSTS),
        ("since", max((each.since for each in host.unreachable_hosts), default=0), MAX_COUNT),
        ("mesh_version", len(host.mesh_version), MAX_TEXT_CHARACTERS),
        ("boot_id", len(host.boot_id), MAX_TEXT_CHARACTERS),
        ("a tag", max((len(tag) for tag in host.tags), default=0), MAX_TAG_CHARACTERS),
        ("a property", max(map(_property_size, host.properties.items()), default=0), MAX_PROPERTY_CHARACTERS),
    )
    for name, amount, most in bounds:
        if not 0 <= amount <= most:
            raise Invalid(f"host {host.name}: {name} is {amount}, but must be 0 to {most}")
    for url in (host.url, *host.addresses):
        if not _is_url(url):
            raise Invalid(f"host {host.name}: {url[:200]!r} is not of the form http://host:port")
    return host


def _property_size(item: tuple[str, str]) -> int:
    return len(item[0]) + len(item[1])


def _is_url(text: str) -> bool:
    return len(text) <= MAX_TEXT_CHARACTERS and _is_normal(text)


@lru_cache(maxsize=1024)
def _is_normal(url: str) -> bool:
    try:
        return normalise_url(url) == url
    except Invalid:
        return False
