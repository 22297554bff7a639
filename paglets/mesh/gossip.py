"""The part of a host that exchanges membership with other hosts: heartbeats, pushed changes, and replies.

Every 2 s a host exchanges all its rows with one random host, and with the host that it has not seen for longest if that
is more than 3 s. So lost messages do no harm, and each row is refreshed before it expires. Important changes are also
pushed at once to all online hosts: a new host, a restart, a changed URL or tag, a stop. Load travels with the
heartbeats. A host that becomes full or idle, or whose queue appears or empties, reports that to a few hosts, at most
once a second. They use it to decide from which host to steal jobs; a stale value costs only a detour.
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
"""Half a request a second, and five of them fit into ONLINE_SECONDS."""

FIRST_BEAT_SECONDS = 0.2
"""After the start: time for the answers to the first pushes, so that the first full exchange meets someone."""

QUIET_SECONDS = 3.0
"""A member silent for this long is asked itself, well before it would be taken for offline."""

OFFLINE_EVERY_BEATS = 5
"""One offline member is tried every 10 s: two halves of a parted mesh find each other without a restart."""

PUSH_PAUSE_SECONDS = 0.1
"""News that comes in a bunch (fifty hosts started at once) goes out in a few messages, not one by one."""

LOAD_PAUSE_SECONDS = 1.0
LOAD_HOSTS = 8
"""Bounds what a busy host spends on telling its load: eight small messages a second."""

FIRST_CONTACTS = 200
"""Known members that a host tells of its start at once; more than any mesh this is made for."""

OFFLINE_ROWS = 20
"""Rows of offline members in one exchange; chosen anew each time, so that all go round."""

ANSWER_SECONDS = 3.0
"""An exchange takes milliseconds; a host that needs longer is in trouble, and the next beat asks another."""


class Gossiper:
    """Who is in the mesh. Views and `receive` may be used from any thread, the rest only on the runner.

    `first` is this host's row at its start, `own` gives it as it is when the runner ticks (heartbeat and
    joined are filled in here). `peers` are URLs to try, kept in the store; `on_change` are parts to wake when
    a member comes online or moves, and after a gap.
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
            members = [row.host for row in self._mesh.table.rows.values()]
            joined = {address for each in members for address in (each.url, *each.addresses)}
            # An earlier one where nobody ever answered was a mistake that these mend.
            store.write(lambda tx: stored.save_peers(tx, urls, joined))
        self._peers = Peers(entropy, store.read(stored.load_peers), urls)
        self._spread: deque[str] = deque()
        self._pushes: dict[str, dict[str, None]] = {}
        self._in_flight: set[str] = set()
        self._errors = ContactErrors(self._mesh.seconds_since_contact)
        self._told = self._mesh.own
        self._started = self._left = False
        self._beats = 0
        self._due_at = self._beat_at = clock.monotonic()
        self._push_at = self._load_at = float("-inf")
        self._load_untold = False

    # Views.

    def hosts(self) -> tuple[MeshHostView, ...]:
        """This host first, then all others of the table by name, with what is wrong with them."""
        mesh, table = self._mesh, self._mesh.table
        errors = self._errors.texts(mesh.own, table, self._clock.monotonic())
        return view.views(mesh.own, table, mesh.problems(), mesh.seconds_since_seen, mesh.offline_seconds, errors)

    def online(self) -> tuple[MeshHost, ...]:
        """The other hosts that are online and joined, by name."""
        return view.online(self._mesh.own, self._mesh.table, self._mesh.problems())

    def is_online(self, store_id: str) -> bool:
        return any(member.store_id == store_id for member in self.online())

    def find(self, name_or_url: str) -> HostRef:
        """The host of that name or URL, this one included. Raises Unknown with the names there are."""
        return view.find(self._mesh.own, self._mesh.table, self._mesh.problems(), name_or_url)

    def by_store(self, store_id: str) -> MeshHost | None:
        """The member with that store, online or not, also while its name is disputed; None of another mesh."""
        own = self._mesh.own
        row = self._mesh.table.rows.get(store_id)
        if store_id == own.store_id:
            return own
        return row.host if row is not None and same_mesh(row.host, own) else None

    def address(self, host: HostRef) -> HostRef:
        """Where that store answers, as the mesh knows; without a URL where it is no member.

        The URL in `host` came with some message and is never contacted.
        """
        member = self.by_store(host.store_id)
        return replace(host, url="") if member is None else member.ref

    def seconds_since_seen(self, store_id: str) -> float:
        """Seconds without a sign of life, by this host's clock; a gap of its own begins them anew."""
        return 0.0 if store_id == self._mesh.own.store_id else self._mesh.seconds_since_seen(store_id)

    def seconds_since_contact(self, store_id: str) -> float:
        """As `seconds_since_seen` of another host, but what others heard of it does not count."""
        return self._mesh.seconds_since_contact(store_id)

    def last_seen_at(self, store_id: str) -> float:
        """Monotonic second of the last sign of life of another host: it grows with each, and with nothing else."""
        return self._mesh.last_seen_at(store_id)

    def last_gap(self) -> Gap:
        """The last gap of this host's own; at first the time before its start, however long that was."""
        return self._mesh.last_gap()

    def candidates(self) -> tuple[Candidate, ...]:
        """All hosts for placement, this one first."""
        awaited = self._peers.awaited()  # before the table: a peer that answers comes into the table first
        return view.candidates(self._mesh.own, self._mesh.table, self._mesh.problems(), awaited)

    def problem(self) -> str:
        """Why this host itself is not joined, or ""."""
        return self._mesh.problems().get(self._mesh.own.store_id, "")

    def peer_problems(self) -> tuple[tuple[str, str], ...]:
        """(URL, why) of each address given by hand where no host answered yet, and that no member has."""
        rows = self._mesh.table.rows.values()
        return self._peers.problems([row.host for row in rows if same_mesh(row.host, self._mesh.own)])

    def broken_links(self) -> tuple[BrokenLink, ...]:
        """Between which online hosts connections fail, as they say themselves."""
        return broken_links(self._mesh.own, self._mesh.table, self._clock.wall())

    # Signs of life, and the want of them.

    def record_contact(self, store_id: str) -> None:
        """An authenticated request of that store came in; from any thread."""
        self._mesh.record_contact(store_id)

    def record_failure(self, store_id: str) -> None:
        """A connection to it failed; two failures end the wait for a host that is silent for 4 s."""
        now = self._clock.monotonic()
        self._mesh.update(lambda table: tables.failed(table, store_id, now))

    def forget(self, store_id: str) -> None:
        """Drop a host for good, over restarts too: it is a member again only when it itself says something new."""
        self._mesh.update(lambda table: tables.forget(table, store_id))

    def is_forgotten(self, store_id: str) -> bool:
        return self._mesh.table.forgotten.get(store_id, tables.NEVER_SEEN).for_good

    # Others speak; on a server's thread.

    def receive(self, told: Gossip, sender: str) -> Gossip:
        """Take in what `sender` told and answer. When this returns, the sender is in the table.

        Raises Invalid for rows that are not well formed.
        """
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
        """`most` of the rows: a run of them that begins anywhere."""
        if len(rows) <= most:
            return rows
        start = self._entropy.pick(len(rows))
        return (rows[start:] + rows[:start])[:most]

    # The runner's part.

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
        if self._load_untold:
            due.append(self._load_at)
        return min(due)

    def leave(self) -> None:
        """Tell everyone online that this host ends, and fall silent."""
        for row in self._contactable(True):
            self._send(row.host, self._message((), push=True, leaving=True))
        self._left = True

    def _wake(self) -> None:
        self._store.write(lambda tx: tx.wake(self.name))

    def _contactable(self, up: bool) -> list[Row]:
        """Hosts to speak to. One of another mesh comes by itself; only when it is silent it is looked for."""
        rows = self._mesh.table.rows.values()
        own = self._mesh.own
        return [row for row in rows if row.up == up and row.host.reachable and (same_mesh(row.host, own) or not up)]

    def _queue_news(self, now: float) -> None:
        before, own = self._told, self._mesh.own
        self._told = own
        if not self._started:
            self._start(now)
        elif durable(before) != durable(own):
            self._queue((), self._contactable(True))
        while self._spread:
            self._queue((self._spread.popleft(),), self._contactable(True))
        self._load_untold = self._load_untold or view.load_edge(before) != view.load_edge(own)
        if self._load_untold and now >= self._load_at:
            self._load_at, self._load_untold = now + LOAD_PAUSE_SECONDS, False
            self._queue((), self._some(self._contactable(True), LOAD_HOSTS))

    def _start(self, now: float) -> None:
        self._started = True
        self._beat_at = now + FIRST_BEAT_SECONDS
        known = self._contactable(False) + self._contactable(True)
        self._queue((), known[:FIRST_CONTACTS])
        if not known and not self._peers.all():
            self._mesh.found_mesh()

    def _queue(self, subjects: Iterable[str], targets: Iterable[Row]) -> None:
        """Push this host's row, and the rows of `subjects`, to `targets`."""
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

    def _send(self, member: MeshHost, told: Gossip) -> None:
        def done(outcome: Response | PagletsError) -> None:
            self._in_flight.discard(member.store_id)
            try:
                answer = parsed(outcome, Gossip)
                check_gossip(answer, member.store_id)
            except PagletsError as error:
                self._refused(member.store_id, error)
            else:
                self._answered(answer, told.push)

        self._in_flight.add(member.store_id)
        self._post(member.ref, told, done)

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

    def _refused(self, store_id: str, error: PagletsError) -> None:
        row = self._mesh.table.rows.get(store_id)
        self._errors.failed(store_id, error, self._clock, row is not None and row.up)
        if isinstance(error, PeerReplaced):
            self._mesh.update(lambda table: tables.left(table, store_id))
        elif isinstance(error, (Unreachable, CallOutcomeUnknown)):
            self.record_failure(store_id)

    # Addresses given by hand.

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
                self._peers.answered(url, sender, now)  # only now: no moment without peer and row
            self._wake()

        self._post(HostRef(store_id="", name="", url=url), self._message(()), done)
