"""The membership table and its merge, as values: no clock, no store, no network.

Each store has one row. Of two rows of a store the one with the higher (`boot_count`, `heartbeat`)
stands, whatever the order in which they come, so that all hosts end with the same rows. Who is online
is each host's own judgement by its own monotonic clock and is never merged.
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
"""Five heartbeats of 2 s: one lost message, a slow disk or a busy minute must not end a host's part in the
mesh, and a person who looks at the list after pulling a plug waits no longer than this."""

SUSPECT_SECONDS = 4.0
"""Two heartbeats missed. From then on failed connections count as a sign that the host is gone."""

FAILURES_TO_OFFLINE = 2
"""Refused or timed-out connections to a suspect host before it is taken for offline."""

MAX_HOSTS = 1_000
"""Twenty times the largest mesh this is made for; bounds memory and the size of a gossip message."""

FORGET_SECONDS = 30 * 86_400.0
"""A host not heard of for so long, by this host's clock while it ran, is dropped from the table."""

FORGET_FOREIGN_SECONDS = 3_600.0
"""Hosts of another mesh version are kept only so that a person can see them; one that never was a member, as its name
was in use, since another part of a mesh that was parted may have taken it for one, and only its hearers know how long
it is silent."""

MAX_ADDRESSES = 16
MAX_UNREACHABLE_HOSTS = 8
"""Hosts that a host names as those to which it cannot connect: a person mends the first, and sees the next."""

MAX_TEXT_CHARACTERS = 500
MAX_COUNT = 2**53

STORE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the membership table: another host, and its state as this host sees it.

    `last_seen_at`: monotonic second of the last sign of life, direct or reported by another host. `last_contact_at`:
    the same for direct contact only. While there was no sign of life (`was_seen` is false), both are the second when
    this host started, resumed or first got the row. `was_in_mesh`: the host was online and the only one of its name, as
    seen by this host or by the sender of the row.
    """

    host: MeshHost
    last_seen_at: float
    up: bool
    failures: int = 0
    last_contact_at: float = 0.0
    was_seen: bool = False
    was_in_mesh: bool = False


class Mark(NamedTuple):
    """Of a host that was dropped: the order of the row that it had then.

    Only a newer row of it is taken from others. `for_good`: none is, a person has given it up; only its own word brings
    it back, and that must be newer too, for what it said before its end may have lain in a socket meanwhile.
    """

    boot_count: int
    heartbeat: int
    for_good: bool = False

    def keeps_out(self, member: MeshHost, direct: bool) -> bool:
        """Whether this row of it is not taken; `direct`: it comes from that host itself."""
        is_old = order(member) <= (self.boot_count, self.heartbeat)
        return (is_old or not direct) if self.for_good else (is_old and not direct)


NEVER_SEEN = Mark(-1, -1)

LATE_BEATS = 20
"""So far beyond the newest row that this host has of another one may be what that one said last, and what comes only
after it was forgotten. One that lives after all, and was not started anew, is back after as many heartbeats: 40 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`rows` by store id, without this host itself. `forgotten`: hosts that were dropped."""

    rows: Mapping[str, Row] = field(default_factory=dict)
    forgotten: Mapping[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A new table, and what happened: store ids in order.

    `stored`: what outlives a restart changed. `dropped`: no longer in the table. `news`: came online,
    or moved to another URL or boot: parts of the host want to know.
    """

    table: Table
    stored: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    news: tuple[str, ...] = ()


def order(member: MeshHost) -> tuple[int, int]:
    """Two rows of one store compare by this."""
    return (member.boot_count, member.heartbeat)


def newer(one: MeshHost, other: MeshHost) -> bool:
    """Whether `one` replaces `other`. The text decides between different rows of equal age, so that all agree."""
    if order(one) != order(other):
        return order(one) > order(other)
    return one != other and _text(one) > _text(other)


def _text(member: MeshHost) -> str:
    return json.dumps(to_json(member), sort_keys=True)


_PASSING = frozenset(("heartbeat", "free", "queued_jobs", "running_jobs", "unreachable_hosts"))
_lasting = attrgetter(*(each.name for each in fields(MeshHost) if each.name not in _PASSING))


def durable(member: MeshHost) -> tuple[Any, ...]:
    """The member without what changes all the time: equal ones need no write to the disk."""
    values: tuple[Any, ...] = _lasting(member)
    return values


def same_mesh(one: MeshHost | Gossip, other: MeshHost | Gossip) -> bool:
    """Whether two hosts may work together."""
    return (one.mesh_version, one.protocol) == (other.mesh_version, other.protocol)


def stored_table(members: Iterable[MeshHost], now: float, forgotten: Mapping[str, Mark]) -> Table:
    """The table of a host that just started: it knows these, and has heard of none of them yet."""
    rows = {m.store_id: Row(host=m, last_seen_at=now, up=False, last_contact_at=now, was_in_mesh=True) for m in members}
    return Table(rows=rows, forgotten=forgotten)


def merge(
    table: Table,
    members: Iterable[MeshHost],
    *,
    now: float,
    direct: str = "",
    offline: Iterable[str] = (),
) -> Change:
    """Take in rows heard of at `now`.

    A row newer than ours is a sign of life, except of those that the sender itself holds for `offline`.
    `direct` is the store that sent them: to hear from it is a sign of life however old its row is, but for a host that
    was forgotten for good.
    """
    rows, held_offline = dict(table.rows), frozenset(offline)
    for member in members:
        if table.forgotten.get(member.store_id, NEVER_SEEN).keeps_out(member, member.store_id == direct):
            continue
        row = _merged(rows.get(member.store_id), member, now, member.store_id == direct, held_offline)
        if row is not None:
            rows[member.store_id] = row
    forgotten = {key: mark for key, mark in table.forgotten.items() if key not in rows}
    return _bounded(table, Table(rows=rows, forgotten=forgotten))


def _merged(old: Row | None, member: MeshHost, now: float, direct: bool, offline: frozenset[str]) -> Row | None:
    """The row that stands after `member` was heard of; None where nothing changes."""
    fresh = old is None or newer(member, old.host)
    alive = direct or (fresh and member.store_id not in offline)
    if not fresh and not alive:
        return None
    return Row(
        host=member if fresh or old is None else old.host,
        last_seen_at=now if alive or old is None else old.last_seen_at,
        up=alive or (old is not None and old.up),
        failures=0 if direct or old is None else old.failures,
        last_contact_at=now if direct or old is None else old.last_contact_at,
        was_seen=alive or (old is not None and old.was_seen),
        was_in_mesh=member.store_id in offline or (old is not None and old.was_in_mesh),
    )


def contact(table: Table, store_ids: Mapping[str, float]) -> Change:
    """Hosts that spoke to this one at these monotonic seconds, whatever they said."""
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
    """A connection to `store_id` failed. A host that was heard of a moment ago stays online:
    then it is only this host that cannot reach it."""
    row = table.rows.get(store_id)
    if row is None:
        return Change(table=table)
    failures = row.failures + 1
    gone = failures >= FAILURES_TO_OFFLINE and now - row.last_seen_at > SUSPECT_SECONDS
    return _replaced(table, store_id, replace(row, failures=failures, up=row.up and not gone))


def left(table: Table, store_id: str) -> Change:
    """The host said that it ends, or another store answers at its address."""
    row = table.rows.get(store_id)
    return Change(table=table) if row is None else _replaced(table, store_id, replace(row, up=False))


def expire(table: Table, now: float, own: MeshHost) -> Change:
    """Take the silent for offline, and drop those silent for very long."""
    rows = {}
    for store_id, row in table.rows.items():
        silent = now - row.last_seen_at
        if silent <= (FORGET_SECONDS if row.was_in_mesh and same_mesh(row.host, own) else FORGET_FOREIGN_SECONDS):
            rows[store_id] = replace(row, up=False) if row.up and silent > ONLINE_SECONDS else row
    return change_between(table, _marked(table, rows))


def restart_timers(table: Table, now: float) -> Table:
    """After a gap of this host's own (it slept, it was stopped) nobody is blamed for the silence."""
    rows = {
        key: replace(row, last_seen_at=now, failures=0, last_contact_at=now, was_seen=False)
        for key, row in table.rows.items()
    }
    return replace(table, rows=rows)


def forget(table: Table, store_id: str) -> Change:
    """Drop the row, and take none from others again: it comes back only if that host speaks for itself, anew."""
    marked = _marked(table, {key: row for key, row in table.rows.items() if key != store_id})
    mark = marked.forgotten.get(store_id, NEVER_SEEN)
    if mark != NEVER_SEEN and not mark.for_good:
        mark = mark._replace(heartbeat=mark.heartbeat + LATE_BEATS)
    mark = mark._replace(for_good=True)
    return change_between(table, replace(marked, forgotten={**marked.forgotten, store_id: mark}))


def joined(change: Change, store_ids: Iterable[str]) -> Change:
    """These are members from now on, and outlive a restart."""
    rows = {key: replace(change.table.rows[key], was_in_mesh=True) for key in store_ids}
    table = replace(change.table, rows={**change.table.rows, **rows})
    return replace(change, table=table, stored=tuple(dict.fromkeys((*change.stored, *rows))))


def _replaced(table: Table, store_id: str, row: Row) -> Change:
    return change_between(table, replace(table, rows={**table.rows, store_id: row}))


def _bounded(before: Table, after: Table) -> Change:
    """At most MAX_HOSTS rows: those offline and silent for longest go first."""
    if len(after.rows) <= MAX_HOSTS:
        return change_between(before, after)
    kept = sorted(after.rows.items(), key=lambda item: (not item[1].up, -item[1].last_seen_at, item[0]))[:MAX_HOSTS]
    return change_between(before, _marked(after, dict(kept)))


def _marked(table: Table, rows: Mapping[str, Row]) -> Table:
    """The table with only these rows; what was dropped is marked, so that others' old rows do not bring it back."""
    dropped = {key: Mark(*order(row.host)) for key, row in table.rows.items() if key not in rows}
    marks = list({**table.forgotten, **dropped}.items())[-MAX_HOSTS:]
    return Table(rows=rows, forgotten=dict(marks))


def change_between(before: Table, after: Table) -> Change:
    """What differs between two tables."""
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


def _place(member: MeshHost) -> tuple[str, str, str]:
    return (member.url, member.boot_id, member.name)


def check_gossip(gossip: Gossip, sender: str) -> Gossip:
    """`gossip` if its rows are well formed and the first is the sender's own, else Invalid."""
    if not gossip.hosts or gossip.hosts[0].store_id != sender:
        raise Invalid("gossip: the first row must be the sender's own")
    if len(gossip.hosts) > MAX_HOSTS + 1:
        raise Invalid(f"gossip: {len(gossip.hosts)} rows; at most {MAX_HOSTS + 1} are taken")
    if gossip.unreachable_at and not _is_url(gossip.unreachable_at):
        raise Invalid(f"gossip: unreachable_at {gossip.unreachable_at[:200]!r} is not of the form http://host:port")
    for member in gossip.hosts:
        check_host(member)
    return gossip


def check_host(member: MeshHost) -> MeshHost:
    """`member` if every field is within its bounds, else Invalid naming the field."""
    if not all(
        STORE_ID.fullmatch(each) for each in (member.store_id, *(each.store_id for each in member.unreachable_hosts))
    ):
        raise Invalid(f"member {member.store_id[:80]!r}: store_id is not well formed")
    check_host_name(member.name)
    bounds = (
        ("addresses", len(member.addresses), MAX_ADDRESSES),
        ("tags", len(member.tags), MAX_TAGS),
        ("properties", len(member.properties), MAX_PROPERTIES),
        ("boot_count", member.boot_count, MAX_COUNT),
        ("heartbeat", member.heartbeat, MAX_COUNT),
        ("joined", member.joined, MAX_COUNT),
        ("unreachable_hosts", len(member.unreachable_hosts), MAX_UNREACHABLE_HOSTS),
        ("since", max((each.since for each in member.unreachable_hosts), default=0), MAX_COUNT),
        ("mesh_version", len(member.mesh_version), MAX_TEXT_CHARACTERS),
        ("boot_id", len(member.boot_id), MAX_TEXT_CHARACTERS),
        ("a tag", max((len(tag) for tag in member.tags), default=0), MAX_TAG_CHARACTERS),
        ("a property", max(map(_property_size, member.properties.items()), default=0), MAX_PROPERTY_CHARACTERS),
    )
    for name, amount, most in bounds:
        if not 0 <= amount <= most:
            raise Invalid(f"member {member.name}: {name} is {amount}, allowed is 0 to {most}")
    for url in (member.url, *member.addresses):
        if not _is_url(url):
            raise Invalid(f"member {member.name}: {url[:200]!r} is not of the form http://host:port")
    return member


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
