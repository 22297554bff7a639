"""The one membership table of a host, shared by the runner and the server's threads.

The table and this host's own row are immutable values. They are replaced only inside `Store.write`,
which lets one thread in at a time; readers take whichever value stands. What outlives a restart is
written in the same transaction; heartbeats and load are not, so that an idle host writes nothing.
Should the COMMIT fail, the table in memory is ahead of the stored one, which does no harm: membership
is hearsay that comes again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from paglets.api.hosts import Gossip, Member
from paglets.core.clock import Clock
from paglets.core.errors import Invalid, StoreDamaged
from paglets.core.record import from_json, to_json
from paglets.mesh import table as tables
from paglets.mesh import view
from paglets.mesh.table import Change, Mark, Table, order, same_mesh
from paglets.store import members as stored
from paglets.store.db import Store, Tx
from paglets.store.members import StoredMember

GAP_SECONDS = 5.0
"""A host that comes this much later than it wanted was asleep or stopped; then its waits begin anew."""

CLONE_SIGNS = 3
"""A store restored from a backup meets its own later rows once or twice; a living copy comes again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A time in which this host did nothing: it was stopped, or slept, which only `Clock.boottime` shows in `seconds`.

    `ended_at`: a monotonic second.
    """

    ended_at: float
    seconds: float


class MembershipBoard:
    """`on_change` are parts to wake when a member comes online or moves to another URL or boot, and after a gap."""

    def __init__(self, store: Store, clock: Clock, own: Member, on_change: tuple[str, ...]) -> None:
        self._store = store
        self._clock = clock
        self._on_change = on_change
        now = clock.monotonic()
        marks = {store_id: Mark(*mark) for store_id, mark in store.read(stored.load_forgotten).items()}
        self.table: Table = tables.stored_table(_known(store), now, marks)
        self._joined = store.read(stored.load_joined)
        self._least_boot_count = 0
        self._copies_met = 0
        self._contacts: dict[str, float] = {}
        self._begun_at = now
        self._last_gap = Gap(ended_at=now, seconds=float("inf"))
        self._looked_at = now
        self._asleep_before = self._asleep_seconds()
        self.own: Member = replace(own, heartbeat=1, joined=self._joined)
        self._judged: tuple[Member, Table, view.Problems] = (self.own, self.table, {})
        self._judge()

    # Reading, from any thread.

    def problems(self) -> view.Problems:
        own, table, found = self._judged
        return found if own is self.own and table is self.table else self._judge()

    def _judge(self) -> view.Problems:
        own, table = self.own, self.table
        found = dict(view.problems(own, table))
        if self._copies_met >= CLONE_SIGNS:
            found.setdefault(
                own.store_id, "another host runs with a copy of this host's data directory: end one, and remove it"
            )
        self._judged = (own, table, found)
        return found

    def silent_seconds(self, store_id: str) -> float:
        """Since the last sign of life, as of this host's last look round, never through a gap of its own."""
        return max(0.0, self._looked_at - self.heard_at(store_id))

    def heard_at(self, store_id: str) -> float:
        """Monotonic second of the last sign of life, or of the end of a gap of this host's own.

        Of a store that is not in the table: when this host started or last came out of a gap.
        """
        row = self.table.rows.get(store_id)
        heard = self._begun_at if row is None else row.heard_at
        return max(heard, self._contacts.get(store_id, heard))

    def mute_seconds(self, store_id: str) -> float:
        """As `silent_seconds`, since that host itself spoke to this one or answered it."""
        row = self.table.rows.get(store_id)
        spoke = self._begun_at if row is None else row.spoke_at
        return max(0.0, self._looked_at - max(spoke, self._contacts.get(store_id, spoke)))

    def last_gap(self) -> Gap:
        """Also one of which the runner has not taken note yet: due times stand still in a sleep, and come late."""
        asleep = self._asleep_seconds() - self._asleep_before
        return Gap(ended_at=self._clock.monotonic(), seconds=asleep) if asleep > GAP_SECONDS else self._last_gap

    def _asleep_seconds(self) -> float:
        """How long this machine has slept, from any beginning."""
        return self._clock.boottime() - self._clock.monotonic()

    def heard_from(self, store_id: str) -> None:
        """An authenticated request came from there. Cheap, for it is called for every request; not inside a change."""
        row = self.table.rows.get(store_id)
        if row is None:
            return
        now = self._clock.monotonic()
        self._contacts[store_id] = now
        if not row.up:
            self.update(lambda table: tables.contact(table, {store_id: now}))

    # Changing, inside Store.write.

    def update(self, decide: Callable[[Table], Change]) -> Change:
        return self._store.write(lambda tx: self._put(tx, decide(self.table)))

    def hear(self, gossip: Gossip, sender: str) -> Change:
        """Take in what `sender` told; of a host of another mesh version only that it is there."""
        now = self._clock.monotonic()
        return self._store.write(lambda tx: self._hear(tx, gossip, sender, now))

    def look_round(self, now: float, due: float, own: Member, beat: bool) -> Change:
        """What the runner does at each tick: silence, gaps, and this host's own row from `own`.

        `due`: when the tick was to be. `beat`: a heartbeat is due.
        """
        return self._store.write(lambda tx: self._look_round(tx, now, due, own, beat))

    def _hear(self, tx: Tx, gossip: Gossip, sender: str, now: float) -> Change:
        own = self.own
        for member in gossip.members:
            if member.store_id == own.store_id:
                self._met_itself(member)
        known = gossip.members if same_mesh(gossip, own) else gossip.members[:1]
        rows = [m for m in known if m.store_id != own.store_id and (same_mesh(m, own) or m.store_id == sender)]
        change = tables.merge(self.table, rows, now=now, direct=sender, offline=gossip.offline)
        if gossip.leaving:
            self._contacts.pop(sender, None)  # its farewell is no sign that it is there
            change = tables.change_between(self.table, tables.left(change.table, sender).table)
        if same_mesh(gossip, own) and rows:
            joined = [row.member.joined for row in change.table.rows.values() if same_mesh(row.member, own)]
            self._join(tx, 1 + max(joined, default=0))
        return self._put(tx, change)

    def _met_itself(self, member: Member) -> None:
        """Others hold a row of this very store that is no older: it was restored from a backup, or runs twice."""
        if order(member) >= order(self.own) and member.boot_id != self.own.boot_id:
            self._copies_met += 1
            self._least_boot_count = member.boot_count + 1
            self.own = replace(self.own, boot_count=self._least_boot_count)

    def _join(self, tx: Tx, joined: int) -> None:
        if not self._joined:
            stored.save_joined(tx, joined)
            self._joined = joined
            self.own = replace(self.own, joined=joined, heartbeat=self.own.heartbeat + 1)
            tx.wake("gossip")

    def found_mesh(self) -> None:
        """This host has nobody to join: it is the first of its mesh."""
        self._store.write(lambda tx: self._join(tx, 1))

    def _look_round(self, tx: Tx, now: float, due: float, own: Member, beat: bool) -> Change:
        table = self.table
        asleep = self._asleep_seconds()
        late = max(0.0, now - due) + asleep - self._asleep_before
        self._asleep_before = asleep
        if late > GAP_SECONDS:
            self._begun_at = now
            self._last_gap = Gap(ended_at=now, seconds=late)
            table = tables.wait_anew(table, now)
            tx.wake(*self._on_change)
        contacts = {key: self._contacts.pop(key) for key in list(self._contacts)}
        table = tables.contact(table, contacts).table
        self._looked_at = now
        self._stamp(own, beat)
        table = tables.expire(table, now, self.own).table
        return self._put(tx, tables.change_between(self.table, table))

    def _stamp(self, own: Member, beat: bool) -> None:
        row = replace(
            own,
            heartbeat=self.own.heartbeat,
            boot_count=max(own.boot_count, self._least_boot_count),
            joined=self._joined,
        )
        if beat or row != self.own:
            self.own = replace(row, heartbeat=row.heartbeat + 1)

    def _put(self, tx: Tx, change: Change) -> Change:
        change = tables.joined(change, view.newly_joined(self.own, change.table))
        rows = change.table.rows
        stored.drop(tx, change.dropped)
        changed = [rows[key] for key in change.stored if key in rows]
        kept = (row.member for row in changed if row.was_member and same_mesh(row.member, self.own))
        if change.table.forgotten != self.table.forgotten:
            stored.save_forgotten(tx, change.table.forgotten)
        stored.save(tx, [StoredMember(store_id=each.store_id, row=to_json(each)) for each in kept])
        if change.news:
            tx.wake("gossip", *self._on_change)
        self.table = change.table
        return change


def _known(store: Store) -> tuple[Member, ...]:
    """The members stored before this start. Raises StoreDamaged where a row cannot be read."""
    try:
        return tuple(from_json(Member, each.row) for each in store.read(stored.load))
    except Invalid as error:
        raise StoreDamaged(f"the table of members cannot be read: {error}") from error
