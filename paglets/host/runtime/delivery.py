"""The delivery of items that wait in the store to other hosts: lanes, pages, back-off, and search for moved paglets.

Each kind of item, such as posts or envelopes of hand-offs, has a subclass of `Traffic`. It says what waits, how a
request is made of it, and what an answer changes. `DeliveryLanes` does the rest, in the same way for all kinds:

- A lane for each host has at most one request in flight. The next one leaves as soon as that one is answered, with all
  that waits by then, up to the size of a page. So at rest an item leaves at once, and under load items share requests.
- A failed request is repeated after a pause that grows (`Backoff`). A new contact with the host ends the pause.
- An item whose blobs the host lacks waits for them. If all items of a page wait, the next page is read.
- If the host does not have a paglet, the items for that paglet pause, and the mesh is searched for it.
- Everything is read from the store again at each tick, at the latest after RECONCILE_SECONDS. So a lost wake-up, reply
  or commit only delays an item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from paglets.api.paglets import Located, ResidenceRow
from paglets.core.errors import PagletsError, Unreachable
from paglets.core.refs import BlobRef, HostRef
from paglets.host.runtime.backoff import Backoff
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store.db import Tx
from paglets.store.pages import FIRST_PLACE, Page, Place
from paglets.wire.request import Request, Response, parsed

RECONCILE_SECONDS = 60.0
"""The maximum seconds between two reads of what waits, in case a wake-up was lost."""

LOOK_AGAIN_SECONDS = 5.0
"""Seconds until the next read if all items for a host wait for blobs. It renews push requests, which expire in 60 s."""

NEXT_PAGE_SECONDS = 0.1
"""Seconds between two pages of items that all wait for blobs, so that many of them do not occupy the runner."""

PROBE_SECONDS = 3.0
LOCATE_AFTER_SECONDS = 5.0
LOCATE_PAUSE_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


class Deliverable(Protocol):
    """An item. `agent_id` is the paglet that it is about."""

    @property
    def agent_id(self) -> str: ...


Item = TypeVar("Item", bound=Deliverable)
Answer = TypeVar("Answer")


Locate = Callable[[Iterable[str], Callable[[Located], None]], None]
"""A function that searches the mesh for paglets, and later calls the given function with the result."""


class BlobsFirst(Protocol):
    """The part that pushes blobs to other hosts (`paglets.host.blobs.pusher`)."""

    def ready(self, host: HostRef, needed: Iterable[BlobRef]) -> bool: ...

    def reason(self, host: HostRef, needed: Iterable[BlobRef]) -> str: ...

    def is_stuck(self, host: HostRef, needed: Iterable[BlobRef]) -> bool: ...

    def not_there(self, host: HostRef, lacking: Iterable[BlobRef]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled(Generic[Item]):
    """The items that an answer did not end: they wait for a further request.

    `missing`: the host lacks blobs of them. `unknown`: it does not have their paglets. `left_out`: it could not handle
    them now.
    """

    missing: tuple[Item, ...] = ()
    unknown: tuple[Item, ...] = ()
    left_out: tuple[Item, ...] = ()


class Traffic(ABC, Generic[Item, Answer]):
    """One kind of item. `name` is the name of the runner part, `answers` the class of the reply to a request.

    The methods are called on the runner. Those with `tx` must not send anything, because the transaction may fail and
    be repeated.
    """

    name: str
    answers: type[Answer]
    answer_seconds: float

    @abstractmethod
    def hosts(self, tx: Tx) -> list[HostRef]:
        """Return the hosts for which items wait. The cost must not grow with the number of items."""

    @abstractmethod
    def select(self, tx: Tx, host: HostRef, after: Place, skip: Sequence[str]) -> Page[Item]:
        """Return the next page of items for a host, except those of the paglets in `skip`."""

    @abstractmethod
    def encode(self, tx: Tx, host: HostRef, items: Sequence[Item]) -> Request:
        """Return the request that delivers the items."""

    @abstractmethod
    def settle(self, tx: Tx, host: HostRef, items: Sequence[Item], answer: Answer) -> Settled[Item]:
        """Store the answer to a request with these items, and return the items that it did not end."""

    @abstractmethod
    def failed(self, host: HostRef, items: Sequence[Item], error: PagletsError, *, sent: bool) -> None:
        """Handle a failed request: store why no item can be delivered to the host.

        `sent` is False if the probe has failed, so that no request with items was sent.
        """

    def probe(self, host: HostRef, ready: Sequence[Item], waiting: Sequence[Item]) -> Request | None:
        """Return a request that the host must answer before it gets the items that are `ready`, or None."""
        return None

    def needs(self, item: Item) -> tuple[BlobRef, ...]:
        """Return the blobs that the host must have before it gets the item."""
        return ()

    def obstacle(self, item: Item) -> str:
        """Return why the item cannot be sent yet, apart from missing blobs, or ""."""
        return ""

    def problems(self, tx: Tx, found: Sequence[tuple[Item, str]]) -> None:
        """Store why items cannot be sent yet."""

    def stuck(self, items: Iterable[Item], host: HostRef, *, is_stuck: bool) -> None:
        """Record if waiting items are stuck: the last try to send them or their blobs failed at a reachable host."""

    def tidy(self, tx: Tx) -> None:
        """Drop what is kept in memory about items that no longer wait. Called every RECONCILE_SECONDS."""

    def deliver_here(self, tx: Tx, items: Sequence[Item]) -> Answer:
        """Deliver items for this host itself, and return the answer. Only called if `hosts` names this host."""
        raise NotImplementedError

    def located(self, tx: Tx, row: ResidenceRow) -> None:
        """Store where a search of the mesh has found a paglet. `peer` of a `here` row is the host that has it."""


class DeliveryLanes(Generic[Item, Answer]):
    """The runner part that delivers one kind of item. Without `locate`, it does not search for moved paglets."""

    def __init__(
        self,
        services: HostServices,
        gossip: Gossiper,
        blobs_first: BlobsFirst,
        traffic: Traffic[Item, Answer],
        locate: Locate | None = None,
    ) -> None:
        self.name = traffic.name
        self._services = services
        self._gossip = gossip
        self._blobs_first = blobs_first
        self._traffic = traffic
        self._backoff = Backoff(services.entropy)
        self._search = _PagletSearch(locate, self._located)
        # Maps the store id of a host to the position after which its next page begins, if that is not the first page.
        self._after: dict[str, Place] = {}
        self._reconcile_at = services.clock.monotonic() + RECONCILE_SECONDS

    def restart(self) -> None:
        """Forget the requests in flight and the pauses after failures, because the host was suspended.

        The connections may be dead. An answer that still comes is stored, and may let a second request leave.
        """
        self._backoff = Backoff(self._services.entropy)

    def tick(self, now: float) -> float:
        if now >= self._reconcile_at:
            self._reconcile_at = now + RECONCILE_SECONDS
            self._services.store.read(self._traffic.tidy)
        hosts = self._services.store.read(self._traffic.hosts)
        self._search.forget(now, keep=bool(hosts))
        stores = {host.store_id for host in hosts}
        self._after = {store_id: place for store_id, place in self._after.items() if store_id in stores}
        due = [self._reconcile_at, *self._search.paused.values()]
        for host in hosts:
            self._backoff.contacted(host.store_id, self._gossip.last_seen_at(host.store_id))
            if self._backoff.may_send(host.store_id, now) and not self._send(host, now):
                due.append(now + (NEXT_PAGE_SECONDS if host.store_id in self._after else LOOK_AGAIN_SECONDS))
            else:
                due.append(self._backoff.next_due([host.store_id], now) or float("inf"))
        return min(due)

    def join(self, tx: Tx) -> tuple[list[Item], Settled[Item]] | None:
        """Deliver items for this host in the COMMIT that stores them, except items with blobs. None: no such items."""
        own = self._services.own
        if all(host.store_id != own.store_id for host in self._traffic.hosts(tx)):
            return None
        page = self._traffic.select(tx, own, FIRST_PLACE, tuple(self._search.paused))
        ready = [item for item in page.items if not self._traffic.needs(item)]
        if not ready:
            return None
        return ready, self._traffic.settle(tx, own, ready, self._traffic.deliver_here(tx, ready))

    def joined(self, value: tuple[list[Item], Settled[Item]] | None) -> None:
        if value is not None:
            self._settled(self._services.own, *value)

    def _send(self, host: HostRef, now: float, *, probed: bool = False) -> bool:
        """Send a probe or a page of items to a host. Return False if all items wait for blobs, or if none is left."""
        ready, waiting = self._next(host, now)
        probe = None if probed else self._traffic.probe(host, ready, waiting)
        if probe is None and not ready:
            return False
        self._backoff.sent(host.store_id)
        if probe is not None:
            probe_ended = partial(self._probed, host, ready or waiting)
            self._services.transport.send(self._gossip.address(host), probe, probe_ended, timeout_seconds=PROBE_SECONDS)
        elif host.store_id == self._services.own.store_id:
            self._services.runner.change(
                lambda tx: self._traffic.settle(tx, host, ready, self._traffic.deliver_here(tx, ready)),
                partial(self._settled, host, ready),
            )
        else:
            self._services.transport.send(
                self._gossip.address(host),
                self._services.store.read(lambda tx: self._traffic.encode(tx, host, ready)),
                partial(self._answered, host, ready),
                timeout_seconds=self._traffic.answer_seconds,
            )
        return True

    def _next(self, host: HostRef, now: float) -> tuple[list[Item], list[Item]]:
        """Return the items of the next page that may be sent now, and those that wait. Request a push of lacking blobs.

        If all items of a page wait, the next call continues after it.
        """
        after, skip = self._after.pop(host.store_id, FIRST_PLACE), tuple(self._search.paused)
        page = self._services.store.read(lambda tx: self._traffic.select(tx, host, after, skip))
        texts = [self._problem(host, item) for item in page.items]
        ready = [item for item, text in zip(page.items, texts, strict=True) if not text]
        problems = [(item, text) for item, text in zip(page.items, texts, strict=True) if text]
        waiting = [item for item, _ in problems]
        if waiting:
            self._services.runner.change(lambda tx: self._traffic.problems(tx, problems))
            stuck = [item for item in waiting if self._blobs_first.is_stuck(host, self._traffic.needs(item))]
            self._traffic.stuck(stuck, host, is_stuck=True)
            self._traffic.stuck((item for item in waiting if item not in stuck), host, is_stuck=False)
            # A paglet may have moved away from a host that takes no blobs.
            self._search.failed({item.agent_id for item in stuck}, now)
            if not ready and page.after is not None:
                self._after[host.store_id] = page.after
        return ready, waiting

    def _problem(self, host: HostRef, item: Item) -> str:
        obstacle, needs = self._traffic.obstacle(item), self._traffic.needs(item)
        if obstacle or not needs or self._blobs_first.ready(host, needs):
            return obstacle
        return self._blobs_first.reason(host, needs)

    def _probed(self, host: HostRef, items: Sequence[Item], result: Response | PagletsError) -> None:
        now = self._services.clock.monotonic()
        if isinstance(result, PagletsError):
            self._failed(host, items, Unreachable(f"{host.name} does not answer: {result.message}"), sent=False)
        elif not self._send(host, now, probed=True):
            # The host answers, but the items for it wait for blobs: retry after a pause.
            self._backoff.failed(host.store_id, now)
            self._services.runner.wake(self.name)

    def _answered(self, host: HostRef, items: Sequence[Item], result: Response | PagletsError) -> None:
        try:
            answer = parsed(result, self._traffic.answers)
        except PagletsError as error:
            self._failed(host, items, error)
            return
        self._services.runner.change(
            lambda tx: self._traffic.settle(tx, host, items, answer), partial(self._settled, host, items)
        )

    def _settled(self, host: HostRef, items: Sequence[Item], result: Settled[Item] | BaseException) -> None:
        now = self._services.clock.monotonic()
        self._services.runner.wake(self.name)
        if isinstance(result, BaseException):
            self._backoff.failed(host.store_id, now)
            raise result
        self._traffic.stuck(result.left_out, host, is_stuck=True)
        if result.left_out:
            self._backoff.failed(host.store_id, now)
        else:
            self._backoff.succeeded(host.store_id)
        for item in result.missing:
            self._blobs_first.not_there(host, self._traffic.needs(item))
        unknown = {item.agent_id for item in result.unknown}
        self._search.arrived({item.agent_id for item in items} - unknown)
        self._search.failed(unknown, now)
        self._search.pause(unknown, now)

    def _failed(self, host: HostRef, items: Sequence[Item], error: PagletsError, *, sent: bool = True) -> None:
        now = self._services.clock.monotonic()
        self._services.runner.wake(self.name)
        self._backoff.failed(host.store_id, now)
        self._search.failed({item.agent_id for item in items}, now)
        self._traffic.failed(host, items, error, sent=sent)

    def _located(self, located: Located) -> None:
        self._search.arrived({row.agent_id for row in located.rows if row.status == "disposed"})

        def store(tx: Tx) -> None:
            for row in located.rows:
                self._traffic.located(tx, row)

        self._services.runner.change(store)


@dataclass(slots=True, kw_only=True)
class _Astray:
    """A paglet to which nothing could be delivered since the monotonic time `since`.

    `asked_at`: the time of the last search in the mesh.
    """

    since: float
    asked_at: float = float("-inf")


class _PagletSearch:
    """The search for paglets to which nothing could be delivered for LOCATE_AFTER_SECONDS or longer.

    `paused` maps each paglet that its host did not have to the end of its pause.
    """

    def __init__(
        self,
        locate: Locate | None,
        located: Callable[[Located], None],
    ) -> None:
        self._locate = locate
        self._located = located
        self._astray: dict[str, _Astray] = {}
        self.paused: dict[str, float] = {}

    def forget(self, now: float, *, keep: bool) -> None:
        """Drop the pauses that have ended, and, without `keep`, the records of failed deliveries."""
        self.paused = {agent_id: end for agent_id, end in self.paused.items() if end > now}
        if not keep:
            self._astray.clear()

    def arrived(self, agent_ids: Iterable[str]) -> None:
        for agent_id in agent_ids:
            self._astray.pop(agent_id, None)

    def failed(self, agent_ids: Iterable[str], now: float) -> None:
        """Record that nothing could be delivered to these paglets, and search for those that are due."""
        if self._locate is None:
            return
        due = []
        for agent_id in sorted(agent_ids):
            each = self._astray.setdefault(agent_id, _Astray(since=now))
            if now - each.since >= LOCATE_AFTER_SECONDS and now - each.asked_at >= LOCATE_PAUSE_SECONDS:
                each.asked_at = now
                due.append(agent_id)
        if due:
            self._locate(due, self._located)

    def pause(self, agent_ids: Iterable[str], now: float) -> None:
        """Send nothing to these paglets for a while. The pauses grow with the time since the first failure."""
        for agent_id in sorted(agent_ids):
            half = (now - self._astray[agent_id].since) / 2
            self.paused[agent_id] = now + min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, half))
