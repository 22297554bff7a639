"""The gossip service of a host. It exchanges the membership table with other hosts.

Every 2 s a host exchanges the rows of all online hosts, and of some offline hosts, with a random online host. It does
so too with the host that it has not seen for longest, if that is over 3 s. So each row is refreshed before it expires,
even if messages are lost. Important changes (a new host, a restart, a new URL or tag, a stop) are also pushed at once
to all online hosts. Load travels with the heartbeats. A host also pushes its load to a few hosts, at most once a
second, if it becomes full or idle, or if its queue fills or empties. From the loads, hosts decide where to steal jobs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from paglets.api.hosts import BrokenLink, Gossip, MeshHost, MeshHostView
from paglets.core.clock import Clock, Entropy
from paglets.core.errors import CallOutcomeUnknown, PagletsError, PeerReplaced, Unreachable
from paglets.core.refs import HostRef
from paglets.core.urls import normalise_url
from paglets.mesh import table as tables
from paglets.mesh import view
from paglets.mesh.contact_errors import ContactErrors, broken_links, contact_error_text
from paglets.mesh.membership import Gap, MembershipService
from paglets.mesh.peers import Peers
from paglets.mesh.table import Row, check_gossip, durable, same_mesh
from paglets.slots.model import Candidate
from paglets.store import hosts as stored
from paglets.store.db import Store
from paglets.wire.request import Request, Response, Transport, dump_json, parsed

BEAT_SECONDS = 2.0
"""Mean interval between heartbeats. Five heartbeats fit into ONLINE_SECONDS."""

FIRST_BEAT_SECONDS = 0.2
"""Delay of the first heartbeat, so that replies to the first pushes arrive before the first full exchange."""

QUIET_SECONDS = 3.0
"""Time without a sign of life after which a host gets a heartbeat directly, well before it would count as offline."""

OFFLINE_EVERY_BEATS = 5
"""Number of heartbeats (10 s) between attempts to reach an offline host, which reunite a partitioned mesh."""

PUSH_PAUSE_SECONDS = 0.1
"""Pause between pushes, so that many changes, such as the start of fifty hosts, are sent in a few messages."""

LOAD_PAUSE_SECONDS = 1.0
LOAD_HOSTS = 8
"""Number of hosts to which a changed load is pushed: at most eight small messages per second."""

FIRST_CONTACTS = 200
"""Maximum number of known hosts that a starting host contacts at once. It exceeds the largest intended mesh."""

OFFLINE_ROWS = 20
"""Number of rows of offline hosts in one exchange. Each exchange has a random selection of them."""

ANSWER_SECONDS = 3.0
"""Timeout of an exchange, which normally takes milliseconds. The next heartbeat goes to another host."""


class Gossiper:
    """The gossip service of a host.

    Views, `receive` and `record_contact` may be called from any thread, the other methods only from the runner thread.

    `first`: this host's row at its start. `own`: returns its current row. `peers`: the URLs from `--peer`, which are
    also stored. `on_change`: the parts of the host to wake if a host comes online or moves, and after a gap.
    """

    name = "gossip"

    def __init__(
        self,
        store: Store,
        clock: Clock,
        entropy: Entropy,
        transport: Transport,
        first: MeshHost,
        own: Callable[[], MeshHost],
        *,
        peers: Iterable[str] = (),
        on_change: tuple[str, ...] = (),
    ) -> None:
        urls = tuple(dict.fromkeys(normalise_url(url) for url in peers))
        self._clock = clock
        self._entropy = entropy
        self._transport = transport
        self._own = own
        self._store = store
        self._mesh = MembershipService(store, clock, first, on_change)
        if urls:
            hosts = [row.host for row in self._mesh.table.rows.values()]
            joined = {address for each in hosts for address in (each.url, *each.addresses)}
            # Replace earlier `--peer` URLs at which no host ever replied, because they were probably mistakes.
            store.write(lambda tx: stored.save_peers(tx, urls, joined))
        self._peers = Peers(entropy, store.read(stored.load_peers), urls)
        self._spread: deque[str] = deque()
        self._pushes: dict[str, dict[str, None]] = {}
        self._in_flight: set[str] = set()
        self._errors = ContactErrors(self._mesh.seconds_since_contact)
        self._sent_row = self._mesh.own
        self._started = self._left = False
        self._beats = 0
        self._due_at = self._beat_at = clock.monotonic()
        self._push_at = self._load_at = float("-inf")
        self._load_unsent = False

    # Views, which do not change the table.

    def hosts(self) -> tuple[MeshHostView, ...]:
        """Return all hosts of the table with their problems: this host first, then the others by name."""
        mesh, table = self._mesh, self._mesh.table
        errors = self._errors.texts(mesh.own, table, self._clock.monotonic())
        return view.views(mesh.own, table, mesh.problems(), mesh.seconds_since_seen, mesh.offline_seconds, errors)

    def online(self) -> tuple[MeshHost, ...]:
        """Return the other hosts that are online and joined, by name."""
        return view.online(self._mesh.own, self._mesh.table, self._mesh.problems())

    def is_online(self, store_id: str) -> bool:
        return any(host.store_id == store_id for host in self.online())

    def find(self, name_or_url: str) -> HostRef:
        """Return the host with this name or URL, which may be this host. Raises Unknown, which lists known names."""
        return view.find(self._mesh.own, self._mesh.table, self._mesh.problems(), name_or_url)

    def by_store(self, store_id: str) -> MeshHost | None:
        """Return the host with this store id, online or not; None if it is unknown or of another mesh version."""
        own = self._mesh.own
        row = self._mesh.table.rows.get(store_id)
        if store_id == own.store_id:
            return own
        return row.host if row is not None and same_mesh(row.host, own) else None

    def address(self, host: HostRef) -> HostRef:
        """Return `host` with the URL that the mesh table has for its store id, or "" if the table has none."""
        known = self.by_store(host.store_id)
        return replace(host, url="") if known is None else known.ref

    def seconds_since_seen(self, store_id: str) -> float:
        """Return the time since the last sign of life of a host. A gap (`membership.Gap`) restarts this time."""
        return 0.0 if store_id == self._mesh.own.store_id else self._mesh.seconds_since_seen(store_id)

    def seconds_since_contact(self, store_id: str) -> float:
        """Return the time since direct contact with another host. Reports of third hosts do not count."""
        return self._mesh.seconds_since_contact(store_id)

    def last_seen_at(self, store_id: str) -> float:
        """Return the monotonic time of the last sign of life of another host."""
        return self._mesh.last_seen_at(store_id)

    def last_gap(self) -> Gap:
        """Return the last gap in which this host did not run. The first is infinite and ends when this host starts."""
        return self._mesh.last_gap()

    def candidates(self) -> tuple[Candidate, ...]:
        """Return all hosts as candidates for placement, this host first."""
        # Read the peers before the table: a peer that replies enters the table before it leaves the awaited peers.
        awaited = self._peers.awaited()
        return view.candidates(self._mesh.own, self._mesh.table, self._mesh.problems(), awaited)

    def problem(self) -> str:
        """Return why this host has not joined the mesh; "" if it has."""
        return self._mesh.problems().get(self._mesh.own.store_id, "")

    def peer_problems(self) -> tuple[tuple[str, str], ...]:
        """Return the URL and the problem of each `--peer` without a reply. URLs of known hosts are left out."""
        rows = self._mesh.table.rows.values()
        return self._peers.problems([row.host for row in rows if same_mesh(row.host, self._mesh.own)])

    def broken_links(self) -> tuple[BrokenLink, ...]:
        """Return the pairs of online hosts between which connections fail, as reported by the hosts."""
        return broken_links(self._mesh.own, self._mesh.table, self._clock.wall())

    # Records of signs of life, failures and removals of hosts.

    def record_contact(self, store_id: str) -> None:
        """Record an authenticated request from the host with this store id. May be called from any thread."""
        self._mesh.record_contact(store_id)

    def record_failure(self, store_id: str) -> None:
        """Record a failed connection to a host. After two failures, and 4 s without a sign of life, it is offline."""
        now = self._clock.monotonic()
        self._mesh.update(lambda table: tables.failed(table, store_id, now))

    def forget(self, store_id: str) -> None:
        """Remove a host permanently. Only a newer message from that host itself adds it again."""
        self._mesh.update(lambda table: tables.forget(table, store_id))

    def is_forgotten(self, store_id: str) -> bool:
        return self._mesh.table.forgotten.get(store_id, tables.NEVER_SEEN).for_good

    # The threads of the server call `receive` for requests from other hosts.

    def receive(self, told: Gossip, sender: str) -> Gossip:
        """Merge the rows that the host `sender` sent, its own included, and return the reply. Raises Invalid."""
        check_gossip(told, sender)
        if sender == self._mesh.own.store_id:
            return self._message(())
        change = self._mesh.merge(told, sender)
        if sender in change.news and not told.push:
            self._spread.append(sender)
        full = not told.push and same_mesh(told, self._mesh.own)
        row = self._mesh.table.rows.get(sender)
        one_way = row is not None and self._errors.is_one_way(row, self._clock.monotonic())
        return self._message(
            self._shared_rows() if full else (), unreachable_at=row.host.url if row and one_way else ""
        )

    def _message(
        self, rows: Iterable[Row], *, push: bool = False, leaving: bool = False, unreachable_at: str = ""
    ) -> Gossip:
        own, told = self._mesh.own, tuple(rows)
        return Gossip(
            mesh_version=own.mesh_version,
            protocol=own.protocol,
            hosts=(own, *(row.host for row in told)),
            offline=tuple(row.host.store_id for row in told if not row.up),
            push=push,
            leaving=leaving,
            unreachable_at=unreachable_at,
        )

    def _shared_rows(self) -> list[Row]:
        rows = [row for row in self._mesh.table.rows.values() if same_mesh(row.host, self._mesh.own)]
        offline = [row for row in rows if not row.up and row.was_in_mesh]
        return [row for row in rows if row.up] + self._some(offline, OFFLINE_ROWS)

    def _some(self, rows: list[Row], most: int) -> list[Row]:
        """Return at most `most` rows: consecutive ones from a random position."""
        if len(rows) <= most:
            return rows
        start = self._entropy.pick(len(rows))
        return (rows[start:] + rows[:start])[:most]

    # Only the runner thread calls the methods below.

    def tick(self, now: float) -> float | None:
        if self._left:
            return None
        beat = self._started and now >= self._beat_at
        own = self._errors.noted(self._own(), self._mesh.table, now)
        self._mesh.refresh(now, self._due_at, own, beat)
        self._queue_news(now)
        self._send_pushes(now)
        if beat:
            self._beat(now)
        self._try_peers(now)
        self._due_at = self._next_due()
        return self._due_at

    def _next_due(self) -> float:
        due = [self._beat_at, self._peers.next_due(self._satisfied())]
        if self._pushes.keys() - self._in_flight:
            due.append(self._push_at)
        if self._load_unsent:
            due.append(self._load_at)
        return min(due)

    def leave(self) -> None:
        """Tell all online hosts that this host stops. Nothing is sent afterwards."""
        for row in self._contactable(True):
            self._send(row.host, self._message((), push=True, leaving=True))
        self._left = True

    def _wake(self) -> None:
        self._store.write(lambda tx: tx.wake(self.name))

    def _contactable(self, up: bool) -> list[Row]:
        """Return the hosts to contact: the online ones if `up`, else the offline ones.

        Online hosts of another mesh version are left out, because they contact this host.
        """
        rows = self._mesh.table.rows.values()
        own = self._mesh.own
        return [row for row in rows if row.up == up and row.host.reachable and (same_mesh(row.host, own) or not up)]

    def _queue_news(self, now: float) -> None:
        before, own = self._sent_row, self._mesh.own
        self._sent_row = own
        if not self._started:
            self._start(now)
        elif durable(before) != durable(own):
            self._queue((), self._contactable(True))
        while self._spread:
            self._queue((self._spread.popleft(),), self._contactable(True))
        self._load_unsent = self._load_unsent or view.load_edge(before) != view.load_edge(own)
        if self._load_unsent and now >= self._load_at:
            self._load_at, self._load_unsent = now + LOAD_PAUSE_SECONDS, False
            self._queue((), self._some(self._contactable(True), LOAD_HOSTS))

    def _start(self, now: float) -> None:
        self._started = True
        self._beat_at = now + FIRST_BEAT_SECONDS
        known = self._contactable(False) + self._contactable(True)
        self._queue((), known[:FIRST_CONTACTS])
        if not known and not self._peers.all():
            self._mesh.found_mesh()

    def _queue(self, subjects: Iterable[str], targets: Iterable[Row]) -> None:
        """Queue a push of this host's row, and of the rows of `subjects`, to the hosts in `targets`."""
        news = dict.fromkeys(subjects)
        for row in targets:
            if row.host.store_id not in news:
                self._pushes.setdefault(row.host.store_id, {}).update(news)

    def _send_pushes(self, now: float) -> None:
        if now < self._push_at:
            return
        rows = self._mesh.table.rows
        for target in [key for key in self._pushes if key not in self._in_flight]:
            subjects = self._pushes.pop(target)
            if target in rows:
                told = [rows[key] for key in subjects if key in rows and same_mesh(rows[key].host, self._mesh.own)]
                self._send(rows[target].host, self._message(told, push=True))
                self._push_at = now + PUSH_PAUSE_SECONDS

    def _beat(self, now: float) -> None:
        self._beats += 1
        self._beat_at = now + BEAT_SECONDS * self._entropy.uniform(0.9, 1.1)
        self._errors.keep(self._mesh.table.rows)
        for row in self._partners(now):
            joined = same_mesh(row.host, self._mesh.own)
            self._send(row.host, self._message(self._shared_rows() if joined else ()))

    def _partners(self, now: float) -> list[Row]:
        up = [row for row in self._contactable(True) if row.host.store_id not in self._in_flight]
        down = [row for row in self._contactable(False) if row.host.store_id not in self._in_flight]
        chosen = self._some(up, 1)
        oldest = min(up, key=lambda row: row.last_seen_at, default=None)
        if oldest is not None and now - oldest.last_seen_at > QUIET_SECONDS and oldest not in chosen:
            chosen = [*chosen, oldest]
        chosen += [row for row in up if row not in chosen and self._errors.is_failing(row)][:1]
        if down and (not up or self._beats % OFFLINE_EVERY_BEATS == 0):
            chosen = [*chosen, down[self._entropy.pick(len(down))]]
        return chosen

    def _send(self, host: MeshHost, told: Gossip) -> None:
        def done(outcome: Response | PagletsError) -> None:
            self._in_flight.discard(host.store_id)
            try:
                answer = parsed(outcome, Gossip)
                check_gossip(answer, host.store_id)
            except PagletsError as error:
                self._failed(host.store_id, error)
            else:
                self._answered(answer, told.push)

        self._in_flight.add(host.store_id)
        self._post(host.ref, told, done)

    def _post(self, host: HostRef, told: Gossip, done: Callable[[Response | PagletsError], None]) -> None:
        request = Request(method="POST", target="/v1/mesh/gossip", body=dump_json(told), repeatable=True)
        self._transport.send(host, request, done, timeout_seconds=ANSWER_SECONDS)

    def _answered(self, answer: Gossip, pushed: bool) -> None:
        sender = answer.hosts[0].store_id
        self._errors.answered(sender, answer.unreachable_at)
        change = self._mesh.merge(answer, sender)
        if not pushed:
            met = [change.table.rows[key] for key in change.news if key != sender]
            self._queue((), [row for row in met if row.host.reachable])
        if sender in self._pushes:
            self._wake()

    def _failed(self, store_id: str, error: PagletsError) -> None:
        row = self._mesh.table.rows.get(store_id)
        self._errors.failed(store_id, error, self._clock, row is not None and row.up)
        if isinstance(error, PeerReplaced):
            self._mesh.update(lambda table: tables.left(table, store_id))
        elif isinstance(error, (Unreachable, CallOutcomeUnknown)):
            self.record_failure(store_id)

    # Attempts to reach the addresses from `--peer`.

    def _satisfied(self) -> frozenset[str]:
        own, rows = self._mesh.own, self._mesh.table.rows
        return frozenset({own.store_id, *(key for key, row in rows.items() if row.up and same_mesh(row.host, own))})

    def _try_peers(self, now: float) -> None:
        for url in self._peers.due(now, self._satisfied()):
            self._try_peer(url)

    def _try_peer(self, url: str) -> None:
        def done(outcome: Response | PagletsError) -> None:
            now = self._clock.monotonic()
            try:
                answer = parsed(outcome, Gossip)
                sender = answer.hosts[0].store_id if answer.hosts else ""
                check_gossip(answer, sender)
            except PagletsError as error:
                self._peers.failed(url, contact_error_text(error), now)
            else:
                if sender != self._mesh.own.store_id:
                    self._answered(answer, False)
                # First merge the answer, then end the wait: the host is then always awaited or in the table.
                self._peers.answered(url, sender, now)
            self._wake()

        self._post(HostRef(store_id="", name="", url=url), self._message(()), done)
