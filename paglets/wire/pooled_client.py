"""A blocking client of hosts that keeps connections and remembers which store answers at each URL.

The client ignores proxy settings of the environment and does not follow redirects: it contacts only the given URL.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paglets.api.limits import MAX_BODY_BYTES
from paglets.codec.strict_json import loads
from paglets.core.clock import Clock, Entropy
from paglets.core.errors import (
    CallOutcomeUnknown,
    NotAllowed,
    PagletsError,
    PeerReplaced,
    StalePeer,
    Unreachable,
    WrongClock,
)
from paglets.core.urls import HostAddress, parse_url
from paglets.wire.auth import ANYONE, IDENTITY_TARGET, Signer, receiver_name
from paglets.wire.keys import MeshKey
from paglets.wire.pool import ConnectionPool
from paglets.wire.request import Request, Response
from paglets.wire.signed_http import Connection, NoReply, NothingSent, Recipient, SignedHttpClient

CONNECT_SECONDS = 5.0
"""Timeout of a connection attempt. TCP repeats a lost first packet after 1 s and 3 s, so two losses are tolerated."""

IDLE_SECONDS = 20.0
"""Time after which an idle connection is closed. Servers wait longer, so that the client is the first to close."""

MOST_PEERS = 1_000
"""Maximum number of URLs whose store is remembered. The URL that was contacted longest ago is dropped first."""

_IDENTITY = Request(method="GET", target=IDENTITY_TARGET)


@dataclass(slots=True)
class _Peer:
    """A URL and what the client knows about the host at that URL.

    `ids`: store_id and boot_id of the host. `clock_offset`: the clock of the host minus the clock of this machine, in
    seconds.
    """

    url: str
    address: HostAddress
    ids: tuple[str, str] | None = None
    clock_offset: float = 0.0


class PooledClient:
    """A client of hosts that blocks until the reply has arrived. It is thread-safe.

    `sender`: the store id of the host that sends the requests; "" for commands and scripts.
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
        self._http = SignedHttpClient(
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
        """Send a request and return the reply, of any status, signed by a holder of the key.

        Raises Unreachable (the host did not get the request), CallOutcomeUnknown (it may have), PeerReplaced
        (another store than `expected_store_id` answers), NotAllowed (another key), WrongClock, Invalid (the URL).
        """
        peer = self._peer(url)
        deadline = self._clock.monotonic() + timeout_seconds
        cut: list[NoReply] = []
        try:
            return self._request(peer, expected_store_id, request, deadline, cut)
        except (Unreachable, PeerReplaced) as error:
            if cut:  # the host may have processed the first attempt before it restarted or became unreachable
                raise _outcome_unknown(request, url, cut[0]) from error
            raise

    def _request(
        self, peer: _Peer, expected_store_id: str | None, request: Request, deadline: float, cut: list[NoReply]
    ) -> Response:
        """Send `request`. If a connection breaks after sending and the request is repeated, add its error to `cut`."""
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
            raise WrongClock(f"{url} refused the time of a request, although that time was from the host's own clock")
        if refusal == StalePeer.code:
            raise Unreachable(f"the host at {url} is just starting and did not accept the request; try again")
        if receiver == ANYONE and response.status == 200:
            _learn_ids(peer, _tree(response.body))
            _check_store(peer, expected_store_id)
        return response

    def close(self) -> None:
        """Close idle connections now, and those in use after their request."""
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
        """Return the receiver for the signature. If its ids are unknown or not as expected, ask the host for them."""
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
            raise Unreachable(f"{peer.url} did not identify itself, so nothing was sent: {error.message}") from error
        assert peer.ids is not None
        return peer.ids

    def _learn(self, peer: _Peer, refusal: Response) -> None:
        """Store the ids of the host, or the difference of both clocks, from the host's signed refusal."""
        details = _tree(refusal.body).get("details")
        details = details if isinstance(details, dict) else {}
        now = details.get("now")
        if isinstance(now, (int, float)):
            peer.clock_offset = now - self._clock.wall()
        else:
            _learn_ids(peer, details)

    def _exchange(self, peer: _Peer, receiver: str, request: Request, deadline: float, cut: list[NoReply]) -> Response:
        """Send one request and return its reply, over an idle connection if there is one."""
        to = Recipient(url=peer.url, address=peer.address, receiver=receiver, clock_offset=peer.clock_offset)
        while connection := self._take_idle(peer):
            try:
                return self._send(peer, connection, to, request, deadline)
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
        connection = self._http.connect(to, deadline)
        try:
            return self._send(peer, connection, to, request, deadline)
        except NothingSent as error:
            raise Unreachable(f"{to.url} closed the connection at once ({error})") from error
        except NoReply as error:
            raise _outcome_unknown(request, to.url, error) from error

    def _send(self, peer: _Peer, connection: Connection, to: Recipient, request: Request, deadline: float) -> Response:
        try:
            response = self._http.send(connection, to, request, deadline)
        except BaseException:
            connection.close()
            raise
        if connection.is_reusable:
            with self._lock:
                self._pool.keep(peer.url, connection, self._clock.monotonic())
        return response

    def _take_idle(self, peer: _Peer) -> Connection | None:
        with self._lock:
            return self._pool.take(peer.url, self._clock.monotonic())

    def _drop_idle(self, peer: _Peer) -> None:
        """Close the idle connections to a host that has ended or restarted."""
        with self._lock:
            self._pool.drop(peer.url)


def _outcome_unknown(request: Request, url: str, error: Exception) -> CallOutcomeUnknown:
    return CallOutcomeUnknown(f"{request.method} {request.target} was sent to {url}, but {error}")


def _learn_ids(peer: _Peer, tree: Mapping[str, Any]) -> None:
    store_id, boot_id = tree.get("store_id"), tree.get("boot_id")
    if not isinstance(store_id, str) or not isinstance(boot_id, str):
        raise Unreachable(f"{peer.url} did not send its ids: it runs another version of paglets")
    peer.ids = (store_id, boot_id)


def _check_store(peer: _Peer, expected: str | None) -> None:
    if expected and peer.ids is not None and peer.ids[0] != expected:
        raise PeerReplaced(f"a host other than the expected one answers at {peer.url}", store_id=peer.ids[0])


def _refusal(response: Response) -> str:
    """Return the error code in a reply that may ask the sender to correct its ids or clock; "" for other replies."""
    return str(_tree(response.body).get("code")) if response.status in (StalePeer.status, WrongClock.status) else ""


def _tree(body: bytes) -> dict[str, Any]:
    try:
        tree = loads(body)
    except PagletsError:
        return {}
    return tree if isinstance(tree, dict) else {}
