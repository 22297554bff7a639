"""Requests between two hosts that accept no connections, forwarded by a third host."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from paglets.api.hosts import MeshHost
from paglets.core.errors import CallOutcomeUnknown, PagletsError, PeerReplaced, Unreachable
from paglets.core.refs import HostRef
from paglets.host.runtime.backoff import FAILURE_COUNTS_SECONDS
from paglets.mesh.view import no_route_text
from paglets.wire.relay import relayed
from paglets.wire.request import Completion, Request, Response, Transport

GRACE_SECONDS = 1.5
"""Extra seconds that the sender waits, so that the forwarding host can report the outcome first.

This is half of RELAY_GRACE_SECONDS of `paglets.client.mesh_client`, because a client waits for both hosts.
"""


class RelayTransport:
    """A `Transport` between two hosts that accept no connections. It may only be used on the runner.

    It sends each request with `inner` to a third host, which accepts connections and forwards the request. If that
    fails, the next request goes to another such host; this transport does not retry, because senders do. `online`
    returns the other online hosts, `seconds_since_seen` the time since the host with a store id was seen. `soon` calls
    a function on the runner.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        own: HostRef,
        online: Callable[[], tuple[MeshHost, ...]],
        seconds_since_seen: Callable[[str], float],
        soon: Callable[[Callable[[], None]], None],
    ) -> None:
        self._inner = inner
        self._own = own
        self._online = online
        self._seconds_since_seen = seconds_since_seen
        self._soon = soon
        self._failures: dict[str, int] = {}

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None:
        relays = self._relays()
        if not relays:
            self._soon(partial(done, Unreachable(no_route_text(host.name, self._own.name))))
            return
        relay = relays[self._failures.get(host.store_id, 0) % len(relays)]
        self._inner.send(
            relay.ref,
            relayed(host, request, timeout_seconds),
            partial(self._done, host, relay, done),
            timeout_seconds=timeout_seconds + GRACE_SECONDS,
        )

    def _relays(self) -> list[MeshHost]:
        """Return the hosts that can forward a request, the most recently seen first.

        With this order, an unresponsive host is used only if no other host is available.
        """
        reachable = (mesh_host for mesh_host in self._online() if mesh_host.reachable)
        return sorted(reachable, key=lambda mesh_host: self._seconds_since_seen(mesh_host.store_id))

    def _done(self, host: HostRef, relay: MeshHost, done: Completion, outcome: Response | PagletsError) -> None:
        outcome = _of_the_way(relay, outcome)
        if isinstance(outcome, PagletsError):
            failures = self._failures.get(host.store_id, 0) + 1
            self._failures = {
                key: n for key, n in self._failures.items() if self._seconds_since_seen(key) < FAILURE_COUNTS_SECONDS
            }
            self._failures[host.store_id] = failures
        else:
            self._failures.pop(host.store_id, None)
        done(outcome)


def _of_the_way(relay: MeshHost, outcome: Response | PagletsError) -> Response | PagletsError:
    """Return the outcome of a forwarded request as if it had been sent directly.

    If the forwarding host replied with Unreachable or CallOutcomeUnknown, return that error. If another host has taken
    its address, return Unreachable, because nobody handled the request.
    """
    if isinstance(outcome, PeerReplaced):
        return Unreachable(f"{relay.name}, which should forward the request, is unreachable: {outcome.message}")
    if isinstance(outcome, Response) and outcome.status >= 400:
        try:
            outcome.json()
        except (Unreachable, CallOutcomeUnknown) as error:
            return error
        except PagletsError:
            return outcome
    return outcome
