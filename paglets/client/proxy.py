"""Proxies of paglets: send messages to a paglet and manage it, on whichever host it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from paglets.api.paglets import PagletView
from paglets.core.errors import Conflict
from paglets.core.messages import ACTIVATE, CLONE, DEACTIVATE, Message, one_timeout
from paglets.core.record import from_json, to_json
from paglets.core.refs import ArtifactRef, ProxyRef


class Sender(Protocol):
    """A sender of messages: the `Context` of a paglet, or a `HostClient`."""

    def call(self, target: ProxyRef, message: Message, *, timeout_seconds: float | None = None) -> Any: ...

    def post(self, target: ProxyRef, message: Message) -> None: ...


@runtime_checkable
class Manager(Sender, Protocol):
    """A sender that also moves, disposes of and shows other paglets: a `HostClient`."""

    def dispatch(self, target: ProxyRef, host: str) -> None: ...

    def dispose(self, target: ProxyRef) -> None: ...

    def paglet(self, target: ProxyRef) -> PagletView: ...


@runtime_checkable
class ArtifactSender(Sender, Protocol):
    """A sender that also sends files: a `HostClient`, and any `Context` except in the handlers of a collector."""

    def send_artifact(
        self, target: ProxyRef, path: str | Path, message: Message, name: str | None, move: bool
    ) -> ArtifactRef: ...


class PagletProxy:
    """A handle of one paglet, on whichever host it is. Two proxies of the same paglet are equal.

    `call` sends a message and waits for the reply, `post` does not wait; `info` shows where the paglet is. A proxy
    belongs to the client or context that created it. In messages and states, store its `ref` instead.
    """

    __slots__ = ("_sender", "ref")

    def __init__(self, ref: ProxyRef, sender: Sender) -> None:
        self.ref = ref
        self._sender = sender

    @property
    def agent_id(self) -> str:
        """Return the id of the paglet, which is unique in the mesh."""
        return self.ref.agent_id

    @property
    def host_name(self) -> str:
        """Return the name of the last known host of the paglet."""
        return self.ref.host.name

    @property
    def host_url(self) -> str:
        """Return the URL of the last known host of the paglet."""
        return self.ref.host.url

    def call(self, message: Message | str, *, timeout_seconds: float | None = None, **args: Any) -> Any:
        """Send a message and return the reply: `call("add", left=1, right=2)` or `call(Message(...))`.

        Raise NotHandled, HandlerFailed, Unknown, Unreachable, TimedOut, or CallOutcomeUnknown if the connection broke
        after the message was sent. Beside a Message, `timeout` means `timeout_seconds`.
        """
        sent, seconds = message_and_timeout(message, args, timeout_seconds)
        return self._sender.call(self.ref, sent, timeout_seconds=seconds)

    send = call

    def post(self, message: Message | str, **args: Any) -> None:
        """Send a message without waiting. It is stored until it is delivered, and handled once."""
        self._sender.post(self.ref, as_message(message, args))

    def send_artifact(
        self, path: str | Path, *, name: str | None = None, kind: str = "artifact", move: bool = False, **args: Any
    ) -> ArtifactRef:
        """Send a file with a message of that kind. Like `post`, both are stored until they are delivered.

        The paglet finds it in `message.artifacts`, and owns it from then on. `move` removes the file here once it is
        stored. Raises Invalid, FileChanged, NoRoom.
        """
        if not isinstance(self._sender, ArtifactSender):
            raise Conflict(f"no file can be sent to {self.agent_id} from here")
        return self._sender.send_artifact(self.ref, path, Message(kind, args), name, move)

    def dispatch_to(self, host: str) -> None:
        """Ask the paglet's host to move it to the host of that name or URL."""
        self._manager("moved").dispatch(self.ref, host)

    dispatch = dispatch_to

    def dispose(self) -> None:
        """Run `on_disposing` of the paglet, then remove it."""
        self._manager("disposed of").dispose(self.ref)

    def clone(self, name: str | None = None, host: str | None = None) -> PagletProxy:
        """Ask the paglet to clone itself (`Paglet.clone`). With `host`, the clone moves there.

        Raises the errors of `call`: HandlerFailed (caused by Invalid) for a job, NameTaken, and Unknown.
        """
        return PagletProxy(self.call(CLONE, name=name, host=host), self._sender)

    def deactivate(self, seconds: float | None = None) -> None:
        """Deactivate the paglet (`Paglet.deactivate`) when none of its code runs. A current `run` continues."""
        self.call(DEACTIVATE, seconds=seconds)

    def activate(self) -> None:
        """Activate the paglet if it is inactive, and return after its `on_activation`."""
        self.call(ACTIVATE)

    def info(self) -> PagletView:
        """Return the location and the activity of the paglet."""
        return self._manager("shown").paglet(self.ref)

    def to_wire(self) -> dict[str, Any]:
        """Return `ref` as a JSON object."""
        wire: dict[str, Any] = to_json(self.ref)
        return wire

    @classmethod
    def from_wire(cls, wire: ProxyRef | dict[str, Any], sender: Sender) -> PagletProxy:
        """Return a proxy for the result of `to_wire`, or for a reference. It sends through `sender`."""
        return cls(wire if isinstance(wire, ProxyRef) else from_json(ProxyRef, wire), sender)

    def _manager(self, verb: str) -> Manager:
        if isinstance(self._sender, Manager):
            return self._sender
        raise Conflict(
            f"{self.agent_id} cannot be {verb} through this proxy: only a HostClient manages other paglets",
            hint=["within a paglet, send it a message whose handler does this"],
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PagletProxy) and other.agent_id == self.agent_id

    def __hash__(self) -> int:
        return hash(self.agent_id)

    def __repr__(self) -> str:
        return f"<PagletProxy {self.agent_id} at {self.host_name}>"


PagletProxy.__module__ = "paglets.remote.proxy"
"""The public import path."""


def message_and_timeout(
    message: Message | str, args: dict[str, Any], timeout_seconds: float | None
) -> tuple[Message, float | None]:
    """Return the Message of a call and its timeout in seconds.

    With a Message, a `timeout` in `args` is the timeout of the call. With a kind, it is an argument of the message.
    """
    if isinstance(message, Message):
        timeout_seconds = one_timeout(timeout_seconds, args.pop("timeout", None))
    return as_message(message, args), timeout_seconds


def as_message(message: Message | str, args: dict[str, Any]) -> Message:
    """Return a Message of a kind and named arguments. Raises TypeError if a Message comes with arguments."""
    if isinstance(message, str):
        return Message(message, args)
    if args:
        raise TypeError(f"a Message has its own args; {', '.join(args)} must be among them")
    return message
