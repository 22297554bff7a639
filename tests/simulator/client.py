"""A user's program: it sends requests to hosts, repeats them if that is safe, and records acknowledgements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paglets.api.blobs import ArtifactView, AskBlobs, BlobState, BlobStates
from paglets.core.errors import CallOutcomeUnknown, Moved, PagletsError, Unknown, Unreachable
from paglets.core.record import from_json
from paglets.core.refs import BlobRef, HostRef
from paglets.wire.request import Request, Response, dump_json
from tests.simulator.content import PIECE_BYTES, blob_of
from tests.simulator.machine import Machine
from tests.simulator.network import Network

RETRY_SECONDS = (0.2, 3.0)
MAX_TRIES = 12
MAX_PIECES = 80
"""The most requests that a client makes for one blob."""

WITHOUT_END = 1_000_000
TIMEOUT_SECONDS = 20.0

Then = Callable[[Any], None]
"""A function that receives the JSON of a successful reply."""

Refused = Callable[[PagletsError], None]
"""A function that receives an error that a retry cannot fix."""


class Client:
    """A client that sends requests to machines over the network. They are not signed by a host."""

    def __init__(self, network: Network, machines: tuple[Machine, ...]) -> None:
        self._network = network
        self._machines = machines

    def ask(
        self,
        machine: Machine,
        target: str,
        body: Any,
        then: Then,
        *,
        method: str = "POST",
        tries: int = MAX_TRIES,
        refused: Refused = lambda error: None,
    ) -> None:
        """Repeat a request until there is an answer, or `tries` attempts have failed."""
        request = Request(method=method, target=target, body=b"" if body is None else dump_json(body))
        self._try(self._ref(machine), request, then, refused, tries)

    def upload(self, machine: Machine, contents: Sequence[bytes], then: Callable[[], None]) -> None:
        """Upload blobs to a machine one after the other, then call `then`.

        Like `ask` it may give up; `then` is not called in this case.
        """
        if contents:
            rest = contents[1:]
            Upload(self, machine, contents[0], lambda: self.upload(machine, rest, then)).ask(MAX_PIECES)
        else:
            then()

    def put_piece(
        self, machine: Machine, blob: BlobRef, offset: int, piece: bytes, then: Then, refused: Refused
    ) -> None:
        target = f"/v1/blobs/{blob.sha256}?offset={offset}&size={blob.size_bytes}"
        request = Request(method="PUT", target=target, body=piece)
        self._try(self._ref(machine), request, then, refused, MAX_TRIES)

    def download(self, machine: Machine, artifact_id: str, then: Callable[[bytes], None]) -> None:
        """Ask a machine for an artifact, then download its bytes from the host that has it."""

        def found(tree: Any) -> None:
            view = from_json(ArtifactView, tree)
            blob = view.artifact.blob
            request = Request(method="GET", target=f"/v1/blobs/{blob.sha256}?offset=0&length={blob.size_bytes}")
            self._network.send("", "client", view.host, request, read, TIMEOUT_SECONDS)

        def read(outcome: Response | PagletsError) -> None:
            if isinstance(outcome, Response) and outcome.status < 400:
                then(outcome.body)

        self.ask(machine, f"/v1/artifacts/{artifact_id}", None, found, method="GET")

    def _ref(self, machine: Machine) -> HostRef:
        return HostRef(store_id=machine.store_id, name=machine.name, url=machine.url)

    def _try(self, host: HostRef, request: Request, then: Then, refused: Refused, tries: int) -> None:
        def done(outcome: Response | PagletsError) -> None:
            try:
                if isinstance(outcome, PagletsError):
                    raise outcome
                value = outcome.json()
            except Moved as moved:
                self._again(from_json(HostRef, moved.details["host"]), request, then, refused, tries)
            except Unknown:
                asks_one_host = request.target == "/v1/groups"
                self._again(host if asks_one_host else self._ref(self._any()), request, then, refused, tries)
            except (Unreachable, CallOutcomeUnknown):
                self._again(host, request, then, refused, tries)
            except PagletsError as error:
                if error.status >= 500:
                    self._again(host, request, then, refused, tries)
                else:
                    refused(error)
            else:
                then(value)

        self._network.send("", "client", host, request, done, TIMEOUT_SECONDS)

    def _any(self) -> Machine:
        there = [machine for machine in self._machines if not machine.is_gone]
        return there[self._network.entropy.pick(len(there))]

    def _again(self, host: HostRef, request: Request, then: Then, refused: Refused, tries: int) -> None:
        if tries > 1:
            pause = self._network.entropy.uniform(*RETRY_SECONDS)
            self._network.later(pause, lambda: self._try(self._now(host), request, then, refused, tries - 1))

    def _now(self, host: HostRef) -> HostRef:
        """Return the machine with its current address and store. If it is gone for good, return another one."""
        machine = next(machine for machine in self._machines if machine.name == host.name)
        return self._ref(self._any() if machine.is_gone else machine)


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload of one blob to a host. Like the real client it starts at the offset that the host reports."""

    client: Client
    machine: Machine
    data: bytes
    then: Callable[[], None]

    def ask(self, left: int) -> None:
        """Ask the host for the offset and go on from there, with at most `left` more requests."""
        blob = blob_of(self.data)

        def heard(tree: Any) -> None:
            self._go_on(from_json(BlobStates, tree).blobs[0], left)

        self.client.ask(self.machine, "/v1/blobs/state", AskBlobs(sha256s=(blob.sha256,)), heard)

    def _go_on(self, state: BlobState, left: int) -> None:
        if state.complete:
            self.then()
        elif left > 0:
            piece = self.data[state.offset : state.offset + PIECE_BYTES]
            self.client.put_piece(
                self.machine,
                blob_of(self.data),
                state.offset,
                piece,
                lambda tree: self._go_on(from_json(BlobState, tree), left - 1),
                lambda error: self.ask(left - 1),
            )
