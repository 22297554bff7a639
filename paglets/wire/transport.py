"""How requests get to other hosts: pooled keep-alive connections, and threads behind a seam that does not block.

No proxy of the environment is used and no redirect followed: only the URL given is contacted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from paglets.api.limits import MAX_BODY_BYTES
from paglets.codec.strict_json import loads
from paglets.core.clock import Clock, Entropy
from paglets.core.errors import (
    CallOutcomeUnknown,
    InternalError,
    NotAllowed,
    PagletsError,
    PeerReplaced,
    ShuttingDown,
    StalePeer,
    Unreachable,
    WrongClock,
)
from paglets.core.refs import HostRef
from paglets.core.urls import HostAddress, parse_url
from paglets.wire.auth import ANYONE, IDENTITY_TARGET, Signer, receiver_name
from paglets.wire.fair_queue import FairQueue, QueueKey, queue_of
from paglets.wire.keys import MeshKey
from paglets.wire.pool import ConnectionPool
from paglets.wire.request import Completion, Request, Response
from paglets.wire.signed_http import Connection, NoReply, NothingSent, Recipient, SignedHttpClient

CONNECT_SECONDS = 5.0
"""A machine that is there answers in milliseconds; a lost first packet is sent again after 1 and 3 s."""

IDLE_SECONDS = 20.0
"""How long an unused connection is kept: less than a server's idle time-out, so that we are the ones to close."""

MOST_PEERS = 1_000
"""URLs of which it is remembered who answers there; one that was not spoken to for longest is asked anew."""

MOST_THREADS = 128
IDLE_THREAD_SECONDS = 30.0
_IDENTITY = Request(method="GET", target=IDENTITY_TARGET)


@dataclass(slots=True)
class _Peer:
    """What is known of one URL. `ids` are its store_id and boot_id, `clock_offset` its clock less ours."""

    url: str
    address: HostAddress
    ids: tuple[str, str] | None = None
    clock_offset: float = 0.0


class PooledClient:
    """Blocking requests over kept connections; may be used by many threads at once.

    `sender` is this host's store id, "" for a client.
    """

    def __init__(
        self,
        key: MeshKey,
        *,
        clock: Clock,
        entropy: Entropy,
        sender: str = "",
        connect_seconds: float = CONNECT_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        most_reply_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._speaker = SignedHttpClient(
            Signer(key, clock=clock, entropy=entropy, sender=sender),
            clock=clock,
            connect_seconds=connect_seconds,
            most_reply_bytes=most_reply_bytes,
        )
        self._clock = clock
        self._pool = ConnectionPool(idle_seconds)
        self._peers: dict[str, _Peer] = {}
        self._lock = threading.Lock()

    def request(self, url: str, expected_store_id: str | None, request: Request, *, timeout_seconds: float) -> Response:
        """The reply, of any status, signed by a holder of the key.

        Raises Unreachable (the request was not taken), CallOutcomeUnknown (it may have been), PeerReplaced
        (another store than `expected_store_id` answers), NotAllowed (another key), WrongClock, Invalid (the URL).
        """
        peer = self._peer(url)
        deadline = self._clock.monotonic() + timeout_seconds
        cut: list[NoReply] = []
        try:
            return self._request(peer, expected_store_id, request, deadline, cut)
        except (Unreachable, PeerReplaced) as error:
            if cut:  # the first try may have been taken, by an earlier start of that host too
                raise _outcome_unknown(request, url, cut[0]) from error
            raise

    def _request(
        self, peer: _Peer, expected_store_id: str | None, request: Request, deadline: float, cut: list[NoReply]
    ) -> Response:
        """As `request`; `cut` gets a try that was sent and broke off, and after which it was sent again."""
        url = peer.url
        may_correct = {StalePeer.code, WrongClock.code}
        while True:
            receiver = self._receiver(peer, expected_store_id, request, deadline)
            response = self._exchange(peer, receiver, request, deadline, cut)
            refusal = _refusal(response)
            if refusal not in may_correct:
                break
            may_correct.remove(refusal)
            self._learn(peer, response)
        if refusal == WrongClock.code:
            raise WrongClock(f"{url} refuses the time of this machine although it was corrected to its own")
        if refusal == StalePeer.code:
            raise Unreachable(f"{url} is just starting; the request was not taken")
        if receiver == ANYONE and response.status == 200:
            _learn_ids(peer, _tree(response.body))
            _check_store(peer, expected_store_id)
        return response

    def close(self) -> None:
        """Close what is idle; connections in use are closed after their request."""
        with self._lock:
            self._pool.seal()

    def _peer(self, url: str) -> _Peer:
        with self._lock:
            peer = self._peers.pop(url, None) or _Peer(url=url, address=parse_url(url))
            self._peers[url] = peer
            if len(self._peers) > MOST_PEERS:
                del self._peers[next(iter(self._peers))]
            return peer

    def _receiver(self, peer: _Peer, expected: str | None, request: Request, deadline: float) -> str:
        """Whom to sign for. Asks who is there where that is not known, or another store than expected is known."""
        if (request.method, request.target) == (_IDENTITY.method, _IDENTITY.target):
            return ANYONE
        ids = peer.ids
        if ids is None or expected not in (None, ids[0]):
            ids = self._identify(peer, deadline)
        _check_store(peer, expected)
        return receiver_name(*ids)

    def _identify(self, peer: _Peer, deadline: float) -> tuple[str, str]:
        try:
            self.request(peer.url, None, _IDENTITY, timeout_seconds=deadline - self._clock.monotonic()).json()
        except (NotAllowed, Unreachable):
            raise
        except PagletsError as error:
            raise Unreachable(f"{peer.url} was asked who it is; nothing else was sent: {error.message}") from error
        assert peer.ids is not None
        return peer.ids

    def _learn(self, peer: _Peer, refusal: Response) -> None:
        """Take the boot id, or the difference of the clocks, from a signed refusal."""
        details = _tree(refusal.body).get("details")
        details = details if isinstance(details, dict) else {}
        now = details.get("now")
        if isinstance(now, (int, float)):
            peer.clock_offset = now - self._clock.wall()
        else:
            _learn_ids(peer, details)

    def _exchange(self, peer: _Peer, receiver: str, request: Request, deadline: float, cut: list[NoReply]) -> Response:
        """One request and its reply, over a kept connection if there is one."""
        to = Recipient(url=peer.url, address=peer.address, receiver=receiver, clock_offset=peer.clock_offset)
        while line := self._kept(peer):
            try:
                return self._speak(peer, line, to, request, deadline)
            except NothingSent:
                continue
            except NoReply as error:
                if not error.cut or not (request.repeatable or request.method in ("GET", "HEAD")):
                    raise _outcome_unknown(request, to.url, error) from error
                cut.append(error)
                self._drop_idle(peer)
                break
        return self._over_new_connection(peer, to, request, deadline)

    def _over_new_connection(self, peer: _Peer, to: Recipient, request: Request, deadline: float) -> Response:
        line = self._speaker.connect(to, deadline)
        try:
            return self._speak(peer, line, to, request, deadline)
        except NothingSent as error:
            raise Unreachable(f"{to.url} closed the connection at once ({error})") from error
        except NoReply as error:
            raise _outcome_unknown(request, to.url, error) from error

    def _speak(self, peer: _Peer, line: Connection, to: Recipient, request: Request, deadline: float) -> Response:
        try:
            response = self._speaker.speak(line, to, request, deadline)
        except BaseException:
            line.close()
            raise
        if line.lasts:
            with self._lock:
                self._pool.keep(peer.url, line, self._clock.monotonic())
        return response

    def _kept(self, peer: _Peer) -> Connection | None:
        with self._lock:
            return self._pool.take(peer.url, self._clock.monotonic())

    def _drop_idle(self, peer: _Peer) -> None:
        """The host has ended or restarted: its other kept connections are as dead as this one."""
        with self._lock:
            self._pool.drop(peer.url)


def _outcome_unknown(request: Request, url: str, why: Exception) -> CallOutcomeUnknown:
    return CallOutcomeUnknown(f"{request.method} {request.target} was sent to {url}, but {why}")


def _learn_ids(peer: _Peer, tree: Mapping[str, Any]) -> None:
    store_id, boot_id = tree.get("store_id"), tree.get("boot_id")
    if not isinstance(store_id, str) or not isinstance(boot_id, str):
        raise Unreachable(f"{peer.url} does not say which host it is: its program is of another version")
    peer.ids = (store_id, boot_id)


def _check_store(peer: _Peer, expected: str | None) -> None:
    if expected and peer.ids is not None and peer.ids[0] != expected:
        raise PeerReplaced(f"at {peer.url} another host answers than the one meant", store_id=peer.ids[0])


def _refusal(response: Response) -> str:
    """The code of an error of a status by which a sender may be told to correct itself, else ""."""
    return str(_tree(response.body).get("code")) if response.status in (StalePeer.status, WrongClock.status) else ""


def _tree(body: bytes) -> dict[str, Any]:
    try:
        tree = loads(body)
    except PagletsError:
        return {}
    return tree if isinstance(tree, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    host: HostRef
    request: Request
    done: Completion
    deadline: float


class ThreadedTransport:
    """`exchange.Transport` by threads: at most `most_threads`, and of each host no more at once than `lanes` allow.

    `deliver` takes what is to be run on the runner. A request whose time is over before its turn came is
    Unreachable: it was not sent.
    """

    def __init__(
        self,
        connections: PooledClient,
        *,
        deliver: Callable[[Callable[[], None]], None],
        clock: Clock,
        most_threads: int = MOST_THREADS,
    ) -> None:
        self._connections = connections
        self._deliver = deliver
        self._clock = clock
        self._most_threads = most_threads
        self._changed = threading.Condition()
        self._lanes: FairQueue[_Job] = FairQueue()
        self._threads = 0
        self._idle = 0
        self._called = 0
        self._closed = False

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None:
        deadline = self._clock.monotonic() + timeout_seconds
        refusal = self._enqueue(_Job(host=host, request=request, done=done, deadline=deadline))
        if refusal is not None:
            self._deliver(partial(done, refusal))

    def close(self) -> None:
        """Answer what waits with ShuttingDown and let the threads end; what is under way ends by its time-out."""
        with self._changed:
            self._closed = True
            waiting = self._lanes.take_waiting()
            self._changed.notify_all()
        for job in waiting:
            self._deliver(partial(job.done, ShuttingDown("this host is ending")))
        self._connections.close()

    def _enqueue(self, job: _Job) -> PagletsError | None:
        key = queue_of(job.host.url, job.request)
        with self._changed:
            if self._closed:
                return ShuttingDown("this host is ending")
            if self._lanes.is_full(key):
                return Unreachable(f"too many requests wait for {job.host.name or job.host.url}; this was not sent")
            if self._lanes.put(key, job):
                self._call_a_thread()
        return None

    def _call_a_thread(self) -> None:
        """Wake or start one; the lock is held. `_called` have been woken and have not looked yet."""
        if self._idle > self._called:
            self._called += 1
            self._changed.notify()
        elif self._threads < self._most_threads:
            self._threads += 1
            threading.Thread(target=self._work, name="transport", daemon=True).start()

    def _work(self) -> None:
        while True:
            taken = self._next()
            if taken is None:
                return
            key, job = taken
            try:
                self._deliver(partial(job.done, self._perform(job)))
            finally:
                with self._changed:
                    self._lanes.end(key)

    def _next(self) -> tuple[QueueKey, _Job] | None:
        """The next request that may go; None when this thread shall end."""
        with self._changed:
            while not self._closed:
                taken = self._lanes.next()
                if taken is not None:
                    return taken
                self._idle += 1
                woken = self._changed.wait(IDLE_THREAD_SECONDS)
                self._idle -= 1
                if self._called:
                    self._called -= 1
                elif not woken:
                    break
            self._threads -= 1
            return None

    def _perform(self, job: _Job) -> Response | PagletsError:
        host, left = job.host, job.deadline - self._clock.monotonic()
        if not host.url:
            return Unreachable(f"{host.name or host.store_id} is no member of this mesh, as far as known")
        if left <= 0:
            return Unreachable(f"{host.name or host.url} did not answer earlier requests in time; this was not sent")
        try:
            request = job.request.loaded()
            response = self._connections.request(host.url, host.store_id or None, request, timeout_seconds=left)
            return request.kept(response)
        except PagletsError as error:
            return error
        except Exception as error:  # `done` must be called whatever happens; who asked records what it gets
            return InternalError(f"a request to {host.url} failed by a fault of the program: {error!r}")
