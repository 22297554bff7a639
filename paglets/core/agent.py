"""The Paglet: an object with an identity, durable state, hooks and message handlers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from paglets.core.context import Context, Storage
from paglets.core.errors import NotHandled
from paglets.core.messages import Message
from paglets.core.refs import ProxyRef


@dataclass(kw_only=True)
class PagletState:
    """Base of every paglet's state: a dataclass whose fields travel with the paglet.

    `home_host_name` and `home_host_url` name the host where the paglet was created; the host writes
    them over the state before each entry into the paglet's code.
    """

    home_host_name: str = ""
    home_host_url: str = ""


S = TypeVar("S", bound=PagletState)


class Paglet(Generic[S]):
    """Base class of everything that lives in the mesh.

    A subclass names its state's dataclass in `State` and overrides the hooks it needs. Code runs in a
    process of its own, and only while a hook, a handler or `run` is at work; between these the
    paglet is a row in its host's store.
    """

    State: ClassVar[type[PagletState]] = PagletState

    kind: ClassVar[str] = "paglet"
    """What its host keeps beside it: "paglet", "job" or "collector" (`codec.envelope.Kind`)."""

    @classmethod
    def creation_request(cls, state: PagletState) -> dict[str, Any] | None:
        """`slots.model.SlotRequest` as JSON where the paglet runs in a slot, else None. Raises Invalid."""
        return None

    def __init__(self, state: S, context: Context) -> None:
        self.state = state
        self.context = context

    # Hooks. Each runs to its end before the next; changes are committed when it returns.

    def on_creation(self) -> None:
        """Once, after the paglet was created."""

    def on_dispatching(self) -> None:
        """On the old host, before a move that code or a user asked for."""

    def on_arrival(self) -> None:
        """On the new host, after such a move."""

    def on_disposing(self) -> None:
        """Before the paglet is disposed of."""

    def run(self) -> None:
        """After creation and after each arrival; handlers may run beside it (see `locked_state`)."""

    def handle_message(self, message: Message) -> Any:
        """Answer a call (the value is the reply) or take a post (the value is dropped)."""
        return self.not_handled(message)

    def not_handled(self, message: Message) -> Any:
        """What a handler returns for a kind that it does not know: the caller gets NotHandled."""
        raise NotHandled(f"{type(self).__qualname__} has no handler for messages of kind {message.kind!r}")

    # Identity and durable things.

    @property
    def agent_id(self) -> str:
        return self.context.ref.agent_id

    @property
    def ref(self) -> ProxyRef:
        return self.context.ref

    @property
    def storage(self) -> Storage:
        """A durable map (string -> value) that moves with the paglet, a row for each key."""
        return self.context.storage

    def work_dir(self) -> Path:
        """The paglet's scratch directory on this host; it is removed when the paglet leaves or ends."""
        return self.context.work_dir()

    def checkpoint(self) -> None:
        """Commit the state now; a later attempt of a job begins from the last checkpoint."""
        self.context.checkpoint()

    def locked_state(self) -> AbstractContextManager[S]:
        """Hold the state against handlers that run beside `run`; commits it on the way out."""
        return self.context.locked_state()

    def wait_state(self, predicate: Callable[[S], bool], timeout_seconds: float | None = None) -> bool:
        """Wait until `predicate(state)` holds; False when the time is over.

        In `run` it blocks. In a call's handler it commits what changed so far, parks the call, and
        begins the handler anew after each later change; so what stands before it must bear repetition.
        """
        return self.context.wait_state(predicate, timeout_seconds)

    # Speaking.

    def call(self, target: ProxyRef, message: Message, timeout_seconds: float | None = None) -> Any:
        """Send and wait for the reply; raises what the handler raised as HandlerFailed, or CallOutcomeUnknown."""
        return self.context.call(target, message, timeout_seconds)

    def post(self, target: ProxyRef, message: Message) -> None:
        """Send without waiting: stored with this handler's changes, delivered at least once, taken once."""
        self.context.post(target, message)

    # Moving. These check their arguments at once and take effect when the present hook, handler or
    # run returns; the last one wins, an exception drops it.

    def dispatch(self, target: str) -> None:
        """Move to the host of that name or URL. Raises Unknown where the mesh has none."""
        self.context.intend_move(self.context.resolve_host(target))

    def dispatch_to(self, host_name: str) -> None:
        """Move to the host of that name. Raises Unknown where the mesh has none."""
        self.context.intend_move(self.context.resolve_host(host_name))

    def dispose(self) -> None:
        """End this paglet, after `on_disposing`."""
        self.context.intend_dispose()
