"""Proxies of paglets: send messages to a paglet and manage it, on any host of the mesh."""

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
    """A sender that also sends files: a `HostClient`, and any `Context` except that of a default collector."""

    def send_artifact(
        self, target: ProxyRef, path: str | Path, message: Message, name: str | None, move: bool
    ) -> ArtifactRef: ...


class PagletProxy:
    """A handle of one paglet on any host of the mesh. Two proxies of the same paglet are equal.

    `call` sends a message and waits for the reply; `post` does not wait. `info` returns the location of the paglet. A
    proxy belongs to the client or context that created it. In messages and states, store its `ref` instead.
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

        Raises NotHandled, HandlerFailed, Unknown, Unreachable, TimedOut, and CallOutcomeUnknown if the connection broke
        after the message was sent. If `message` is a Message, `timeout` means `timeout_seconds`.
        """
        sent, seconds = message_and_timeout(message, args, timeout_seconds)
        return self._sender.call(self.ref, sent, timeout_seconds=seconds)

    send = call

    def post(self, message: Message | str, **args: Any) -> None:
        """Send a message without waiting for a reply. The message is stored, and delivered exactly once."""
        self._sender.post(self.ref, as_message(message, args))

    def send_artifact(
        self, path: str | Path, *, name: str | None = None, kind: str = "artifact", move: bool = False, **args: Any
    ) -> ArtifactRef:
        """Send a file with a message of the kind `kind`. As with `post`, both are stored until they are delivered.

        The receiver finds the artifact in `message.artifacts`, and owns it. `move` removes the local file after
        the artifact is stored. Raises Invalid, FileChanged, NoRoom, Conflict.
        """
        if not isinstance(self._sender, ArtifactSender):
            raise Conflict(
                f"this proxy of {self.agent_id} cannot send files",
                hint=["a collector cannot send files: send them from another paglet, or with a HostClient"],
            )
        return self._sender.send_artifact(self.ref, path, Message(kind, args), name, move)

    def dispatch_to(self, host: str) -> None:
        """Ask the paglet's current host to move the paglet to the host with the name or URL `host`."""
        self._manager("moved").dispatch(self.ref, host)

    dispatch = dispatch_to

    def dispose(self) -> None:
        """Run `on_disposing` of the paglet, then remove it."""
        self._manager("disposed of").dispose(self.ref)

    def clone(self, name: str | None = None, host: str | None = None) -> PagletProxy:
        """Ask the paglet to clone itself (`Paglet.clone`). With `host`, the clone moves to that host.

        Raises NameTaken, HandlerFailed if the paglet is a job, Unknown, and the other errors of `call`.
        """
        return PagletProxy(self.call(CLONE, name=name, host=host), self._sender)

    def deactivate(self, seconds: float | None = None) -> None:
        """Deactivate the paglet (see `Paglet.deactivate`). If its code is running, this happens when that code ends."""
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
        """Return a proxy for the result of `to_wire`, or for a reference. The proxy sends through `sender`."""
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
"""The module from which users import PagletProxy, as shown in its repr and in `help`."""


def message_and_timeout(
    message: Message | str, args: dict[str, Any], timeout_seconds: float | None
) -> tuple[Message, float | None]:
    """Return the Message of a call and its timeout in seconds.

    If `message` is a Message, `timeout` in `args` is the timeout of the call. If it is a kind, `timeout` is an argument
    of the message.
    """
    if isinstance(message, Message):
        timeout_seconds = one_timeout(timeout_seconds, args.pop("timeout", None))
    return as_message(message, args), timeout_seconds


def as_message(message: Message | str, args: dict[str, Any]) -> Message:
    """Return `message` if it is a Message, else a Message of that kind. Raises TypeError for a Message with `args`."""
    if isinstance(message, str):
        return Message(message, args)
    if args:
        raise TypeError(f"a Message has its own args: put {', '.join(args)} into Message(kind, args)")
    return message
