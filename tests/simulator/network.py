"""A network that loses, delays, duplicates, reorders, cuts and partitions.

Senders learn no more than on a real network. A request ends with `Unreachable` only if no copy of it was taken or will
be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from paglets.core.clock import Entropy
from paglets.core.errors import CallOutcomeUnknown, PagletsError, PeerReplaced, Unreachable
from paglets.core.refs import HostRef
from paglets.wire.request import Completion, Request, Response
from tests.fakes.clock import FakeClock
from tests.simulator.story import Story
from tests.simulator.tampering import Tampering
from tests.simulator.traffic import Traffic

QUICK_SECONDS = (0.0005, 0.01)
SLOW_SECONDS = (0.05, 4.0)
LATE_COPY_SECONDS = (0.01, 20.0)
CONNECT_SECONDS = 3.0

ONCE_ONLY = ("/call", "/dispatch")
"""Requests that a real client repeats only if it knows that they were not taken.

The network never duplicates them, nor relayed requests that may not be repeated.
"""

PASSED_ON = "/v1/via/"

QUIET = ("/v1/mesh/gossip", "/v1/outbox/pull")
"""Requests that are left out of the story, because they are too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """The shares of messages that suffer each fault, from 0 to 1."""

    lost: float = 0.0
    cut: float = 0.0
    refused: float = 0.0
    doubled: float = 0.0
    slow: float = 0.0


class Station(Protocol):
    """A machine as seen by the network."""

    name: str
    store_id: str
    reachable: bool
    """False if no other machine can connect to it. Its own users can."""

    @property
    def is_up(self) -> bool: ...

    def take(self, request: Request, answer: Callable[[Response], None]) -> bool:
        """Hand a request to the host. Return False if the host crashed."""
        ...


class Network:
    """A network of `stations` by URL, which the world maintains. `traffic` sees all requests and replies."""

    def __init__(
        self, clock: FakeClock, entropy: Entropy, story: Story, traffic: Traffic, tampering: Tampering
    ) -> None:
        self.clock = clock
        self.entropy = entropy
        self.story = story
        self.traffic = traffic
        self.weather = Weather()
        self.stations: dict[str, Station] = {}
        self.tampering = tampering
        self._blocked: dict[tuple[str, str], int] = {}
        self._holes: dict[str, None] = {}
        self.under_way = 0

    def readdress(self, station: Station, old: str, new: str) -> None:
        """Move a station to another URL."""
        del self.stations[old]
        self.stations[new] = station

    def block(self, sender: str, receiver: str) -> None:
        """Drop all messages from one store to another until `unblock`."""
        self._blocked[(sender, receiver)] = self._blocked.get((sender, receiver), 0) + 1

    def unblock(self, sender: str, receiver: str) -> None:
        left = self._blocked.get((sender, receiver), 0) - 1
        if left > 0:
            self._blocked[(sender, receiver)] = left
        else:
            self._blocked.pop((sender, receiver), None)

    def open_hole(self, receiver: str) -> None:
        """Let a machine accept connections and answer none, until `close_hole`.

        Its own requests go on, so others still receive its heartbeats. They only know that their requests may have been
        taken.
        """
        self._holes[receiver] = None

    def close_hole(self, receiver: str) -> None:
        self._holes.pop(receiver, None)

    def is_hole(self, receiver: str) -> bool:
        return receiver in self._holes

    def heal(self) -> None:
        """End all faults: every message arrives quickly and once."""
        self.weather = Weather()
        self._blocked.clear()
        self._holes.clear()

    @property
    def is_empty(self) -> bool:
        """Return True if no copy of a request that could change something is under way."""
        return self.under_way == 0

    def is_blocked(self, sender: str, receiver: str) -> bool:
        return (sender, receiver) in self._blocked

    def happens(self, share: float) -> bool:
        return share > 0 and self.entropy.uniform(0, 1) < share

    def delay(self) -> float:
        return self.entropy.uniform(*(SLOW_SECONDS if self.happens(self.weather.slow) else QUICK_SECONDS))

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.clock.call_at(self.clock.monotonic() + seconds, action)

    def send(
        self, sender: str, who: str, host: HostRef, request: Request, done: Completion, timeout_seconds: float
    ) -> None:
        """Send a request. `sender` is the store that signs it ("" for a client), `who` its name in the story."""
        exchange = Exchange(self, who, host, replace(request, sender=sender), done)
        exchange.begin(timeout_seconds)


class Exchange:
    """A request, its copies and its single outcome."""

    def __init__(self, net: Network, who: str, host: HostRef, request: Request, done: Completion) -> None:
        self._net = net
        self._who = who
        self._host = host
        self._request = request
        self._done = done
        self._copies = 0
        self._taken = False
        self._ended = False
        self._quiet = request.target in QUIET

    def begin(self, timeout_seconds: float) -> None:
        net, weather = self._net, self._net.weather
        net.traffic.sent(self._request, self._host.store_id)
        station = net.stations.get(self._host.url)
        if station is not None and net.is_blocked(self._request.sender, station.store_id):
            self._tell("blocked")
            late = net.delay() if net.happens(0.5) else min(timeout_seconds, CONNECT_SECONDS)
            net.later(late, lambda: self._end(self._unreachable()))
        elif station is not None and not station.reachable and self._request.sender not in ("", station.store_id):
            self._tell("not reachable")
            net.later(net.delay(), lambda: self._end(self._unreachable()))
        elif station is not None and net.is_hole(station.store_id):
            self._tell("swallowed")
            net.traffic.swallowed()
            net.later(timeout_seconds, self._time_out)
        elif net.happens(weather.refused):
            self._tell("refused on the way")
            net.later(net.delay(), lambda: self._end(self._unreachable()))
        elif net.happens(weather.lost):
            self._tell("lost")
            net.later(timeout_seconds, self._time_out)
        else:
            self._travel(net.delay())
            if net.happens(weather.doubled) and not self._is_once_only():
                self._travel(net.entropy.uniform(*LATE_COPY_SECONDS))
            net.later(timeout_seconds, self._time_out)

    def _is_once_only(self) -> bool:
        target = self._request.target
        return target.endswith(ONCE_ONLY) or (target.startswith(PASSED_ON) and not self._request.repeatable)

    def _travel(self, seconds: float) -> None:
        self._copies += 1
        if not self._quiet:
            self._net.under_way += 1
        self._net.later(seconds, self._arrive)

    def _arrive(self) -> None:
        net = self._net
        self._copies -= 1
        if not self._quiet:
            net.under_way -= 1
        station = net.stations.get(self._host.url)
        if station is None or not station.is_up:
            self._tell("nobody there")
            if not self._taken and self._copies == 0:
                self._end(self._unreachable())
        elif net.is_blocked(self._request.sender, station.store_id):
            self._tell("lost in a parted network")
        elif self._host.store_id not in ("", station.store_id):
            if not self._taken and self._copies == 0:
                self._end(PeerReplaced(f"another host than {self._host.name} answers at {self._host.url}"))
        else:
            self._taken = True
            self._tell("arrives" if not self._ended else "arrives late")
            if not station.take(self._request, lambda response: self._answered(station, response)):
                self._break_off()

    def _answered(self, station: Station, response: Response) -> None:
        net = self._net
        net.traffic.answered(self._request, station.store_id, response)
        response = net.tampering.filter_reply(self._request, response)
        if net.happens(net.weather.cut):
            self._tell("reply cut")
            self._break_off()
        elif net.happens(net.weather.lost) or net.is_blocked(station.store_id, self._request.sender):
            self._tell("reply lost")
        else:
            net.later(net.delay(), lambda: self._return(station, response))

    def _return(self, station: Station, response: Response) -> None:
        if not station.is_up:
            self._break_off()
            return
        if not self._quiet and response.status >= 400 and not self._ended:
            self._tell(f"answered {response.status} {response.body[:120].decode(errors='replace')}")
        if not self._ended:
            self._net.traffic.heard(self._request, self._host.store_id, response)
        self._end(response)

    def _break_off(self) -> None:
        self._end(CallOutcomeUnknown(f"{self._host.url} broke off before it answered"))

    def _time_out(self) -> None:
        self._end(CallOutcomeUnknown(f"{self._host.url} did not answer in time"))

    def _unreachable(self) -> PagletsError:
        return Unreachable(f"{self._host.url} does not answer")

    def _end(self, outcome: Response | PagletsError) -> None:
        if not self._ended:
            self._ended = True
            self._done(outcome if isinstance(outcome, Response) else self._net.tampering.lie(outcome))

    def _tell(self, what: str) -> None:
        if not self._quiet:
            request = self._request
            self._net.story.tell(self._who, f"{request.method} {request.target} -> {self._host.name}: {what}")
