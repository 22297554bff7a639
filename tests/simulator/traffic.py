"""Checks of byte transfers: no bytes go to a host that said that it has them, and no correct bytes are refused."""

from __future__ import annotations

from collections import Counter

from paglets.core.errors import FileChanged, PagletsError
from paglets.wire.request import Request, Response
from tests.fakes.clock import FakeClock
from tests.simulator.content import PIN_SECONDS
from tests.simulator.seen import Seen
from tests.simulator.witness import Witness

STATE = "/v1/blobs/state"
BLOBS = "/v1/blobs/"
NEEDS_BYTES = ("/v1/transfers", "/v1/posts")

SURE_SECONDS = PIN_SECONDS / 2
"""The time for which a host believes that another has a blob."""

Road = tuple[str, str]
"""The stores of a sender and of a receiver."""


class Traffic:
    """An observer of all requests and replies. `pieces` counts the pieces of each blob by sender and receiver.

    A host sends no part of a blob to a host that said in the last SURE_SECONDS that it has all of it. This does not
    hold after a restart of the sender, or after the other host reported missing bytes. Without faults each host thus
    receives a blob once.
    """

    def __init__(self, clock: FakeClock, witness: Witness) -> None:
        self.pieces: Counter[tuple[str, str, str]] = Counter()
        self._clock = clock
        self._witness = witness
        self._has: dict[Road, dict[str, float]] = {}

    def restarted(self, store_id: str) -> None:
        """Forget everything that a restarted host knew about others."""
        for road in [road for road in self._has if road[0] == store_id]:
            del self._has[road]

    def sent(self, request: Request, receiver: str) -> None:
        """Check a request that a host is about to send."""
        sha256 = _piece_of(request)
        if not sha256 or not request.sender:
            return
        road = (request.sender, receiver)
        self.pieces[(*road, sha256)] += 1
        self._witness.saw(Seen.SENT)
        told = self._has.get(road, {}).get(sha256)
        if told is not None and self._clock.monotonic() < told + SURE_SECONDS:
            self._witness.violated(f"{road[0]} sends {sha256} to {road[1]}, which said that it has all of it")

    def swallowed(self) -> None:
        """Count a request that was taken and that nobody will handle."""
        self._witness.saw(Seen.SWALLOWED)

    def answered(self, request: Request, receiver: str, response: Response) -> None:
        """Check the reply of a host. It may yet be lost."""
        sha256 = _piece_of(request)
        if not sha256 or response.status < 400:
            return
        try:
            response.json()
        except FileChanged:
            self._witness.saw(Seen.WRONG)
            if (receiver, sha256) not in self._witness.spoiled:
                self._witness.violated(f"{receiver} took honest bytes of {sha256} for wrong ones")
        except PagletsError as error:
            if error.code == "no_room":
                self._witness.saw(Seen.FULL)

    def heard(self, request: Request, receiver: str, response: Response) -> None:
        """Record the reply that a host has received."""
        if not request.sender or response.status >= 400:
            return
        road = (request.sender, receiver)
        if request.target in NEEDS_BYTES:
            if b'"missing"' in response.body:
                self._witness.saw(Seen.LACKED)
                self._has.pop(road, None)
        elif request.target == STATE:
            for state in response.json()["blobs"]:
                self._note(road, state)
                if state["offset"] and not state["complete"]:
                    self._witness.saw(Seen.WENT_ON)
        elif _piece_of(request):
            self._note(road, response.json())

    def _note(self, road: Road, state: dict[str, object]) -> None:
        told, sha256 = self._has.setdefault(road, {}), str(state["sha256"])
        if state["complete"]:
            told[sha256] = self._clock.monotonic()
        else:
            told.pop(sha256, None)


def _piece_of(request: Request) -> str:
    """Return the SHA-256 of the blob whose piece a request carries, or ""."""
    if request.method != "PUT" or not request.target.startswith(BLOBS):
        return ""
    return request.target[len(BLOBS) :].partition("?")[0]
