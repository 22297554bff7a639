"""A user's program: asks hosts, repeats what it may, and tells the witness what was acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paglets.core.errors import CallOutcomeUnknown, Moved, PagletsError, Unknown, Unreachable
from paglets.core.record import from_json
from paglets.core.refs import HostRef
from paglets.remote.exchange import Request, Response, dump_json
from paglets.testing.simulation.machine import Machine
from paglets.testing.simulation.network import Network

RETRY_SECONDS = (0.2, 3.0)
MAX_TRIES = 12
WITHOUT_END = 1_000_000
TIMEOUT_SECONDS = 20.0

Then = Callable[[Any], None]
"""What is done with the JSON of a good reply."""


class Client:
    """Asks machines over the network, signed by nobody's store."""

    def __init__(self, network: Network, machines: tuple[Machine, ...]) -> None:
        self._network = network
        self._machines = machines

    def ask(
        self, machine: Machine, target: str, body: Any, then: Then, *, method: str = "POST", tries: int = MAX_TRIES
    ) -> None:
        """Repeat until there is an answer, or patience ends after so many `tries`."""
        request = Request(method=method, target=target, body=b"" if body is None else dump_json(body))
        self._try(self._ref(machine), request, then, tries)

    def _ref(self, machine: Machine) -> HostRef:
        return HostRef(store_id=machine.store_id, name=machine.name, url=machine.url)

    def _try(self, host: HostRef, request: Request, then: Then, tries: int) -> None:
        def done(outcome: Response | PagletsError) -> None:
            try:
                if isinstance(outcome, PagletsError):
                    raise outcome
                value = outcome.json()
            except Moved as moved:
                self._again(from_json(HostRef, moved.details["host"]), request, then, tries)
            except Unknown:
                asks_one_host = request.target == "/v1/groups"
                self._again(host if asks_one_host else self._ref(self._any()), request, then, tries)
            except (Unreachable, CallOutcomeUnknown):
                self._again(host, request, then, tries)
            except PagletsError as error:
                if error.status >= 500:
                    self._again(host, request, then, tries)
            else:
                then(value)

        self._network.send("", "client", host, request, done, TIMEOUT_SECONDS)

    def _any(self) -> Machine:
        return self._machines[self._network.entropy.pick(len(self._machines))]

    def _again(self, host: HostRef, request: Request, then: Then, tries: int) -> None:
        if tries > 1:
            pause = self._network.entropy.uniform(*RETRY_SECONDS)
            self._network.later(pause, lambda: self._try(self._now(host), request, then, tries - 1))

    def _now(self, host: HostRef) -> HostRef:
        """A user sees when a machine has got another address."""
        return next(self._ref(machine) for machine in self._machines if machine.store_id == host.store_id)
