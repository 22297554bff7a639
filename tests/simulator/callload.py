"""Calls of users to paglets, some of which follow one another within seconds."""

from __future__ import annotations

from functools import partial
from typing import Any

from paglets.api.calls import Call
from paglets.codec.envelope import WireMessage
from paglets.core.clock import Entropy
from tests.fakes.clock import FakeClock
from tests.simulator.client import MAX_TRIES, Client, Then
from tests.simulator.machine import Machine

AGAIN_SECONDS = (0.2, 7.0)
"""The time between two calls of one user to a paglet. Its process ends after 5 s without a message."""

MOST_FURTHER_CALLS = 3


class CallLoad:
    """The calls of a run. Users call the hosts `machines`."""

    def __init__(self, entropy: Entropy, clock: FakeClock, machines: tuple[Machine, ...], client: Client) -> None:
        self._entropy = entropy
        self._clock = clock
        self._machines = machines
        self._client = client

    def call(self, agent_id: str) -> None:
        """Call a counter through one host, now and some more times."""
        machine = self._any()
        self._call(agent_id, machine)
        for _ in range(self._entropy.pick(MOST_FURTHER_CALLS + 1)):
            at = self._clock.monotonic() + self._entropy.uniform(*AGAIN_SECONDS)
            self._clock.call_at(at, partial(self._call, agent_id, machine))

    def _call(self, agent_id: str, machine: Machine) -> None:
        kind = ("get", "bump", "wait")[self._entropy.pick(3)]
        args = {"count": self._entropy.pick(4)} if kind == "wait" else {}
        self._ask(machine, agent_id, WireMessage(kind=kind, args=args), lambda reply: None, MAX_TRIES)

    def ask(self, agent_id: str, message: WireMessage, then: Then, tries: int = MAX_TRIES) -> None:
        """Call a paglet through any host."""
        self._ask(self._any(), agent_id, message, then, tries)

    def _ask(self, machine: Machine, agent_id: str, message: WireMessage, then: Then, tries: int) -> None:
        body: Any = Call(message=message, call_id=self._entropy.token(), wait_seconds=10.0)
        self._client.ask(machine, f"/v1/paglets/{agent_id}/call", body, then, tries=tries)

    def _any(self) -> Machine:
        return self._machines[self._entropy.pick(len(self._machines))]
