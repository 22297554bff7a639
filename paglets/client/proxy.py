"""A paglet seen from elsewhere: what one can say to it and do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from paglets.api.paglets import PagletView
from paglets.core.errors import Conflict
from paglets.core.messages import ACTIVATE, CLONE, DEACTIVATE, Message, one_timeout
from paglets.core.record import from_json, to_json
from paglets.core.refs import ArtifactRef, ProxyRef


class Sender(Protocol):
    """What carries messages: a paglet's `Context`, or a `HostClient`."""

    def call(self, target: ProxyRef, message: Message, *, timeout_seconds: float | None = None) -> Any: ...

    def post(self, target: ProxyRef, message: Message) -> None: ...


@runtime_checkable
class Manager(Sender, Protocol):
    """A sender that also moves, ends and shows other paglets: a `HostClient`."""

    def dispatch(self, target: ProxyRef, host: str) -> None: ...

    def dispose(self, target: ProxyRef) -> None: ...

    def paglet(self, target: ProxyRef) -> PagletView: ...


@runtime_checkable
class ArtifactSender(Sender, Protocol):
    """A sender that also sends files: a `HostClient`, and a `Context` but that of a collector's handlers."""

    def send_artifact(
        self, target: ProxyRef, path: str | Path, message: Message, name: str | None, move: bool
    ) -> ArtifactRef: ...


class PagletProxy:
    """A handle of one paglet, wherever that is. Two proxies of the same paglet are equal.

    `call` sends a message and waits for the reply, `post` does not wait; `info` shows where the paglet is. A proxy
    belongs to the client or context that made it: put its `ref` into messages and states.
    """

    __slots__ = ("_sender", "ref")

    def __init__(self, ref: ProxyRef, sender: Sender) -> None:
        self.ref = ref
        self._sender = sender

    @property
    def agent_id(self) -> str:
        """Id of the paglet in the whole mesh."""
        return self.ref.agent_id

    @property
    def host_name(self) -> str:
        """Name of the host where the paglet was last known to live."""
        return self.ref.host.name

    @property
    def host_url(self) -> str:
        """URL of that host."""
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
        """Send a message without waiting: it is stored until it is delivered, and handled once."""
        self._sender.post(self.ref, as_message(message, args))

    def send_artifact(
        self, path: str | Path, *, name: str | None = None, kind: str = "artifact", move: bool = False, **args: Any
    ) -> ArtifactRef:
        """Send a file with a message of that kind, as `post` does: stored until it is delivered, taken once.

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
        """End the paglet, after its `on_disposing`."""
        self._manager("disposed of").dispose(self.ref)

    def clone(self, name: str | None = None, host: str | None = None) -> PagletProxy:
        """Let the paglet clone itself (`Paglet.clone`); the clone moves to `host` if one is given.

        Raise the errors of a call: HandlerFailed with Invalid for a job, NameTaken, Unknown.
        """
        return PagletProxy(self.call(CLONE, name=name, host=host), self._sender)

    def deactivate(self, seconds: float | None = None) -> None:
        """Let the paglet rest (`Paglet.deactivate`) once none of its code is at work; a `run` continues to its end."""
        self.call(DEACTIVATE, seconds=seconds)

    def activate(self) -> None:
        """Wake the paglet if it is inactive; return after its `on_activation`."""
        self.call(ACTIVATE)

    def info(self) -> PagletView:
        """Return where the paglet is and what it does."""
        return self._manager("shown").paglet(self.ref)

    def to_wire(self) -> dict[str, Any]:
        """Return `ref` as a JSON object."""
        wire: dict[str, Any] = to_json(self.ref)
        return wire

    @classmethod
    def from_wire(cls, wire: ProxyRef | dict[str, Any], sender: Sender) -> PagletProxy:
        """Return a proxy for what `to_wire` wrote, or for a reference; it sends through `sender`."""
        return cls(wire if isinstance(wire, ProxyRef) else from_json(ProxyRef, wire), sender)

    def _manager(self, verb: str) -> Manager:
        if isinstance(self._sender, Manager):
            return self._sender
        raise Conflict(
            f"{self.agent_id} cannot be {verb} through this proxy: other paglets are managed through a "
            "HostClient; within a paglet send it a message that makes it do so itself"
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
    """Return the Message of a call and its time. `timeout` is the time beside a Message, and an argument else."""
    if isinstance(message, Message):
        timeout_seconds = one_timeout(timeout_seconds, args.pop("timeout", None))
    return as_message(message, args), timeout_seconds


def as_message(message: Message | str, args: dict[str, Any]) -> Message:
    """The Message of a kind and named arguments. Raises TypeError where a Message comes with arguments."""
    if isinstance(message, str):
        return Message(message, args)
    if args:
        raise TypeError(f"a Message carries its own args; {', '.join(args)} came beside it")
    return message
