"""The membership service of a host: one table, shared by the runner and the server's threads.

The table and this host's own row are immutable values. A lock protects their replacement, but readers need no lock.
After the replacement, durable changes are written to the store. Heartbeats and load are not durable. So an idle host
writes nothing, and a host can answer gossip while a long transaction holds the store. The time when a host went offline
is stored too, for display. If the COMMIT fails, the table in memory is ahead of the stored one until the next
`refresh`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from paglets.api.hosts import Gossip, MeshHost
from paglets.core.clock import Clock, Mutex
from paglets.core.errors import Invalid, StoreDamaged
from paglets.core.record import from_json, to_json
from paglets.mesh import table as tables
from paglets.mesh import view
from paglets.mesh.table import Change, Mark, Table, order, same_mesh
from paglets.store import hosts as stored
from paglets.store.db import Store, Tx
from paglets.store.hosts import StoredHost

GAP_SECONDS = 5.0
"""A tick that is late by more than this shows that this host was suspended or stopped. All timers then restart."""

CLONE_SIGNS = 3
"""Number of received rows with this host's store id, but from another start, that prove a running copy of its store.

After a restore from a backup, a host receives one or two such rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A period in which this host did not run, because it was stopped or the machine slept.

    `seconds`: its length, including sleep, which only `Clock.boottime` counts. `ended_at`: its end in monotonic time.
    """

    ended_at: float
    seconds: float


class MembershipService:
    """The membership table and the row of this host.

    `on_change`: the names of the parts of the host to wake after a gap, and when a host comes online, restarts or
    changes its URL.
    """

    def __init__(self, store: Store, clock: Clock, own: MeshHost, on_change: tuple[str, ...]) -> None:
        self._store = store
        self._clock = clock
        self._on_change = on_change
        self._lock = Mutex()
        self._unsaved: set[str] = set()
        self._unsaved_marks = self._unsaved_join = False
        now = clock.monotonic()
        marks = {store_id: Mark(*mark) for store_id, mark in store.read(stored.load_forgotten).items()}
        known = _known(store)
        self.table: Table = tables.stored_table((host for host, _ in known), now, marks)
        self._offline: dict[str, float] = {host.store_id: since for host, since in known if since is not None}
        self._joined = store.read(stored.load_joined)
        self._least_boot_count = 0
        self._copies_met = 0
        self._contacts: dict[str, float] = {}
        self._started_at = now
        self._last_gap = Gap(ended_at=now, seconds=float("inf"))
        self._refreshed_at = now
        self._asleep_before = self._asleep_seconds()
        self.own: MeshHost = replace(own, heartbeat=1, joined=self._joined)
        self._judged: tuple[MeshHost, Table, view.Problems] = (self.own, self.table, {})
        self._judge()
        self._record_offline()

    # The queries below may be called from any thread.

    def problems(self) -> view.Problems:
        own, table, found = self._judged
        return found if own is self.own and table is self.table else self._judge()

    def _judge(self) -> view.Problems:
        own, table = self.own, self.table
        found = dict(view.problems(own, table))
        if self._copies_met >= CLONE_SIGNS:
            found.setdefault(
                own.store_id,
                "another host uses a copy of this host's data directory: stop one host and remove its copy",
            )
        self._judged = (own, table, found)
        return found

    def seconds_since_seen(self, store_id: str) -> float:
        """Return the seconds between `last_seen_at` of a host and the last `refresh`."""
        return max(0.0, self._refreshed_at - self.last_seen_at(store_id))

    def last_seen_at(self, store_id: str) -> float:
        """Return the monotonic time of the last sign of life of a host.

        If this host did not run for a while after that (`Gap`), return the time when it resumed. For a store id that is
        not in the table, return the time when this host started or resumed.
        """
        row = self.table.rows.get(store_id)
        heard = self._started_at if row is None else row.last_seen_at
        return max(heard, self._contacts.get(store_id, heard))

    def offline_seconds(self, store_id: str) -> float:
        """Return the wall-clock time since another host was marked as offline; 0 if it is online."""
        since = self._offline.get(store_id)
        return 0.0 if since is None else max(0.0, self._clock.wall() - since)

    def seconds_since_contact(self, store_id: str) -> float:
        """Return the seconds between the last request or reply of a host and the last `refresh`.

        If this host did not run for a while after that request or reply (`Gap`), count from the time when it resumed.
        """
        row = self.table.rows.get(store_id)
        spoke = self._started_at if row is None else row.last_contact_at
        return max(0.0, self._refreshed_at - max(spoke, self._contacts.get(store_id, spoke)))

    def last_gap(self) -> Gap:
        """Return the last gap, even if it is a sleep that the runner thread has not noticed yet."""
        asleep = self._asleep_seconds() - self._asleep_before
        return Gap(ended_at=self._clock.monotonic(), seconds=asleep) if asleep > GAP_SECONDS else self._last_gap

    def _asleep_seconds(self) -> float:
        """Return the seconds that this machine has slept since some fixed time."""
        return self._clock.boottime() - self._clock.monotonic()

    def record_contact(self, store_id: str) -> None:
        """Record an authenticated request from a host. This is fast, because each request calls it.

        Do not call it inside a transaction of the store.
        """
        row = self.table.rows.get(store_id)
        if row is None:
            return
        now = self._clock.monotonic()
        self._contacts[store_id] = now
        if not row.up:
            self.update(lambda table: tables.contact(table, {store_id: now}))

    # The methods below change the table.

    def update(self, decide: Callable[[Table], Change]) -> Change:
        with self._lock:
            change = self._put(decide(self.table))
        return self._saved(change)

    def merge(self, gossip: Gossip, sender: str) -> Change:
        """Merge the rows that `sender` sent. If it has another mesh version, merge only its own row."""
        with self._lock:
            change = self._merge(gossip, sender, self._clock.monotonic())
        return self._saved(change)

    def refresh(self, now: float, due: float, own: MeshHost, beat: bool) -> Change:
        """Update the table at a tick of the runner thread: expire hosts, detect gaps, and set this host's row to `own`.

        `now` and `due`: the actual and the scheduled time of the tick. `beat`: True if a heartbeat is due.
        """
        with self._lock:
            change, came_late = self._refresh(now, due, own, beat)
        return self._saved(change, wake=came_late)

    def _merge(self, gossip: Gossip, sender: str, now: float) -> Change:
        own = self.own
        for host in gossip.hosts:
            if host.store_id == own.store_id:
                self._met_own_store(host)
        known = gossip.hosts if same_mesh(gossip, own) else gossip.hosts[:1]
        rows = [m for m in known if m.store_id != own.store_id and (same_mesh(m, own) or m.store_id == sender)]
        change = tables.merge(self.table, rows, now=now, direct=sender, offline=gossip.offline)
        if gossip.leaving:
            # A message that a host is leaving is not a sign of life.
            self._contacts.pop(sender, None)
            change = tables.change_between(self.table, tables.left(change.table, sender).table)
        if same_mesh(gossip, own) and rows:
            joined = [row.host.joined for row in change.table.rows.values() if same_mesh(row.host, own)]
            self._join(1 + max(joined, default=0))
        return self._put(change)

    def _met_own_store(self, host: MeshHost) -> None:
        """Handle a row with this host's own store id.

        If the row is from another start and not older, the store was restored from a backup, or another host runs with
        a copy of the store.
        """
        if order(host) >= order(self.own) and host.boot_id != self.own.boot_id:
            self._copies_met += 1
            self._least_boot_count = host.boot_count + 1
            self.own = replace(self.own, boot_count=self._least_boot_count)

    def _join(self, joined: int) -> None:
        if not self._joined:
            self._joined = joined
            self._unsaved_join = True
            self.own = replace(self.own, joined=joined, heartbeat=self.own.heartbeat + 1)

    def found_mesh(self) -> None:
        """Make this host the first of its mesh, because no other host is known."""
        with self._lock:
            self._join(1)
        self._save()

    def _refresh(self, now: float, due: float, own: MeshHost, beat: bool) -> tuple[Change, bool]:
        """Return the change, and True if this host had a gap before this tick."""
        table = self.table
        asleep = self._asleep_seconds()
        late = max(0.0, now - due) + asleep - self._asleep_before
        self._asleep_before = asleep
        if late > GAP_SECONDS:
            self._started_at = now
            self._last_gap = Gap(ended_at=now, seconds=late)
            table = tables.restart_timers(table, now)
        contacts = {key: self._contacts.pop(key) for key in list(self._contacts)}
        table = tables.contact(table, contacts).table
        self._refreshed_at = now
        self._stamp(own, beat)
        table = tables.expire(table, now, self.own).table
        return self._put(tables.change_between(self.table, table)), late > GAP_SECONDS

    def _stamp(self, own: MeshHost, beat: bool) -> None:
        row = replace(
            own,
            heartbeat=self.own.heartbeat,
            boot_count=max(own.boot_count, self._least_boot_count),
            joined=self._joined,
        )
        if beat or row != self.own:
            self.own = replace(row, heartbeat=row.heartbeat + 1)

    def _put(self, change: Change) -> Change:
        change = tables.joined(change, view.newly_joined(self.own, change.table))
        self._unsaved.update(change.dropped, change.stored)
        self._unsaved_marks |= change.table.forgotten != self.table.forgotten
        self.table = change.table
        self._record_offline()
        return change

    def _record_offline(self) -> None:
        """Record when hosts go offline, until they return. If the time is unknown, use the start of this host."""
        rows = self.table.rows
        for store_id in [key for key, row in rows.items() if row.up == (key in self._offline)]:
            self._unsaved.add(store_id)
            if rows[store_id].up:
                del self._offline[store_id]
            else:
                self._offline[store_id] = self._clock.wall()
        for store_id in self._offline.keys() - rows.keys():
            del self._offline[store_id]

    # Changes are stored without holding the lock, because storing waits for other transactions.

    def _saved(self, change: Change, *, wake: bool = False) -> Change:
        if change.news or wake or self._unsaved or self._unsaved_marks or self._unsaved_join:
            self._save(*(("gossip", *self._on_change) if change.news else self._on_change if wake else ()))
        return change

    def _save(self, *wakes: str) -> None:
        """Write the current values of all unsaved changes to the store, and wake the parts `wakes`."""
        with self._lock:
            unsaved = (set(self._unsaved), self._unsaved_marks, self._unsaved_join)
            self._unsaved.clear()
            self._unsaved_marks = self._unsaved_join = False
        try:
            self._store.write(lambda tx: self._write(tx, *unsaved, wakes))
        except BaseException:
            with self._lock:
                self._unsaved |= unsaved[0]
                self._unsaved_marks |= unsaved[1]
                self._unsaved_join |= unsaved[2]
            raise

    def _write(self, tx: Tx, keys: set[str], marks: bool, joined: bool, wakes: tuple[str, ...]) -> None:
        own, table = self.own, self.table
        stored.drop(tx, sorted(key for key in keys if key not in table.rows))
        changed = [table.rows[key] for key in sorted(keys) if key in table.rows]
        kept = [row.host for row in changed if row.was_in_mesh and same_mesh(row.host, own)]
        offline = self._offline.copy()
        stored.save(
            tx,
            (StoredHost(store_id=m.store_id, row=to_json(m), offline_since=offline.get(m.store_id)) for m in kept),
        )
        if marks:
            stored.save_forgotten(tx, table.forgotten)
        if joined:
            stored.save_joined(tx, self._joined)
            tx.wake("gossip")
        tx.wake(*wakes)


def _known(store: Store) -> tuple[tuple[MeshHost, float | None], ...]:
    """Return each stored host with the time at which it went offline, or None. Raises StoreDamaged for a bad row."""
    try:
        return tuple((from_json(MeshHost, each.row), each.offline_since) for each in store.read(stored.load))
    except Invalid as error:
        raise StoreDamaged(f"the table of hosts cannot be read: {error}") from error
