"""Calls by the paglets of this host to any paglet, and the search for a paglet that has moved.

A call is sent again only if that cannot run its handler twice: the host is unreachable, the paglet is not on that host
or is moving, or the reply says that the handler still waits. Any other error goes to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from paglets.api.calls import Call, CallReply
from paglets.api.limits import MAX_CALL_SECONDS
from paglets.api.paglets import Located
from paglets.client.mesh_client import paglet_route
from paglets.codec.envelope import WireMessage
from paglets.core.errors import Moved, Moving, PagletsError, TimedOut, Unknown, Unreachable
from paglets.core.record import from_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.host.network.locator import PagletLocator
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.wire.request import Request, Response, dump_json, parsed

MAX_HOPS = 8
RETRY_SECONDS = 0.2
LOCATE_AFTER_SECONDS = 5.0
"""Seconds for which a host must be unreachable before the other hosts are asked for the paglet.

This is longer than a host takes to restart.
"""

MARGIN_SECONDS = 10.0
"""Seconds by which the HTTP timeout of a call exceeds the time for which the other host may hold the call."""

CallDone = Callable[["CallReply | PagletsError"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingCall:
    target: ProxyRef
    message: WireMessage
    deadline: float
    done: CallDone
    call_id: str
    again: bool = False
    hops: int = 0
    unreachable_since: float | None = None


class Calls:
    """The runner part `calls`, which sends calls and repeats those that may safely be sent again."""

    name = "calls"

    def __init__(
        self,
        services: HostServices,
        gossip: Gossiper,
        paglet_locator: PagletLocator,
        local: Callable[[OutgoingCall], bool],
    ) -> None:
        self._services = services
        self._gossip = gossip
        self._locator = paglet_locator
        self._local = local
        self._later: list[tuple[float, OutgoingCall]] = []

    def start(self, target: ProxyRef, message: WireMessage, timeout_seconds: float | None, done: CallDone) -> None:
        """Send a call. Used only on the runner. `done` is called once, with the reply or the error."""
        now = self._services.clock.monotonic()
        deadline = now + (timeout_seconds if timeout_seconds is not None else 365 * 86400.0)
        call_id = self._services.entropy.token()
        self._send(OutgoingCall(target=target, message=message, deadline=deadline, done=done, call_id=call_id))

    def tick(self, now: float) -> float | None:
        due = [call for at, call in self._later if at <= now]
        self._later = [(at, call) for at, call in self._later if at > now]
        for call in due:
            self._send(call)
        return min((at for at, _ in self._later), default=None)

    def _send(self, call: OutgoingCall) -> None:
        left = call.deadline - self._services.clock.monotonic()
        if left <= 0:
            call.done(TimedOut(f"paglet {call.target.agent_id} did not answer {call.message.kind!r} in time"))
            return
        if call.target.host.store_id in ("", self._services.own.store_id) and self._local(call):
            return
        wait = min(left, MAX_CALL_SECONDS)
        body = dump_json(Call(message=call.message, call_id=call.call_id, again=call.again, wait_seconds=wait))
        request = Request(method="POST", target=paglet_route(call.target.agent_id, "call"), body=body)
        self._services.transport.send(
            self._gossip.address(call.target.host),
            request,
            lambda result: self.answered(call, result),
            timeout_seconds=wait + MARGIN_SECONDS,
        )

    def answered(self, call: OutgoingCall, result: Response | PagletsError) -> None:
        """Process the result of one try: end the call or schedule the next try."""
        try:
            reply = parsed(result, CallReply)
        except Moved as error:
            self._follow(call, from_json(HostRef, error.details["host"]))
        except Moving:
            self._again(call)
        except (Unreachable, Unknown) as error:
            self._search(call, error)
        except PagletsError as error:
            call.done(error)
        else:
            if reply.waiting:
                self._send(replace(call, again=True, hops=0, unreachable_since=None))
            else:
                call.done(reply)

    def _follow(self, call: OutgoingCall, host: HostRef) -> None:
        if call.hops >= MAX_HOPS:
            self._again(replace(call, hops=0))
        else:
            self._send(replace(call, target=ProxyRef(agent_id=call.target.agent_id, host=host), hops=call.hops + 1))

    def _again(self, call: OutgoingCall) -> None:
        self._later.append((self._services.clock.monotonic() + RETRY_SECONDS, call))
        self._services.runner.wake(self.name)

    def _search(self, call: OutgoingCall, error: PagletsError) -> None:
        now = self._services.clock.monotonic()
        since = call.unreachable_since if call.unreachable_since is not None else now
        waiting = replace(call, unreachable_since=since)
        if isinstance(error, Unreachable) and now - since < LOCATE_AFTER_SECONDS:
            self._again(waiting)
            return
        agent_id = call.target.agent_id
        self._locator.locate((agent_id,), lambda located: self._located(waiting, located, error))

    def _located(self, call: OutgoingCall, located: Located, error: PagletsError) -> None:
        for row in located.rows:
            if row.status == "here" and row.peer is not None and row.peer != call.target.host:
                self._follow(call, row.peer)
                return
            if row.status == "leaving":
                self._again(call)
                return
        call.done(error)
