"""The base class `Paglet`: an object with an identity, durable state, hooks and message handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

from paglets.core.context import Context, Storage
from paglets.core.errors import NotHandled
from paglets.core.messages import ACTIVATE, CLONE, DEACTIVATE, Message, one_timeout, text_and_level
from paglets.core.refs import ArtifactRef, FileRef, Kind, ProxyRef
from paglets.core.signatures import HookEvent as HookEvent
from paglets.core.signatures import call_method
from paglets.core.text import with_article


@dataclass(kw_only=True)
class PagletState:
    """The state of a paglet: derive a dataclass from this class and add fields, each with a default.

    All fields move with the paglet. The host sets these two before each call of the paglet's code:

        home_host_name = ""    Name of the host where the paglet was created.
        home_host_url = ""     URL of that host.
    """

    home_host_name: str = ""
    home_host_url: str = ""


if TYPE_CHECKING:  # The default lets type checkers accept `class Hello(Paglet)`. `typing.TypeVar` has it since 3.13.
    import typing_extensions

    S = typing_extensions.TypeVar("S", bound=PagletState, default=PagletState)
else:
    S = TypeVar("S", bound=PagletState)


class Paglet(Generic[S]):
    """An object with an identity and a durable state that lives on one host, gets messages and can move.

    Set `State` to the dataclass of the state, and override what you need:

        handle_message                        answer a call or take a post
        run                                   do work of its own
        on_creation on_disposing              after creation, before the end
        on_dispatching on_arrival             before and after a move
        on_cloning on_clone                   on the original and on its clone
        on_deactivating on_activation         before and after inactivity

    In these methods, use:

        state, storage                        durable values; locked_state, wait_state, checkpoint
        call, post, notify_user               messages to other paglets, notes for the user
        dispatch_to, clone, deactivate, dispose
        work_dir, register_file, file_path    files that move with the paglet
        upload_artifact, download_artifact, send_artifact, delete_artifact

    The code runs in a process of its own, and only while one of these methods runs. At other times a paglet is a row in
    the database of its host. `HostClient.create` creates a paglet and returns its `PagletProxy`.
    """

    State: ClassVar[type[PagletState]] = PagletState

    kind: ClassVar[Kind] = "paglet"
    """The kind of the paglet in the host's database: "paglet", "job" or "collector"."""

    hook_timeout_seconds: ClassVar[float | None] = None
    """The time limit of each hook of the class. A hook that exceeds it is killed and fails. None means no limit."""

    service_name: ClassVar[str] = ""
    """The name under which `Context.lookup` finds paglets of this class, from their creation to their end."""

    _handling: Message | None = None
    """The last message that was passed to `handle_message`."""

    @classmethod
    def creation_request(cls, state: PagletState) -> dict[str, Any] | None:
        """Return a `slots.model.SlotRequest` as JSON if the paglet needs a slot, else None. Raises Invalid."""
        return None

    def __init__(self, state: S, context: Context | None = None) -> None:
        """Initialise a paglet; only hosts call this. Raises TypeError if `context` is missing, as in a script."""
        if context is None:
            named = with_article(type(self).__qualname__)
            raise TypeError(f"only a host can create {named}: pass the class and a state to HostClient.create")
        self.state = state
        self.context = context

    # Hooks. One hook runs at a time, and its changes are committed when it returns. A hook can take its event as an
    # argument: `def on_arrival(self, event: HookEvent)`.

    def on_creation(self) -> None:
        """Run once, after the paglet was created."""

    def on_dispatching(self) -> None:
        """Run on the old host, before a move that code or a user requested."""

    def on_arrival(self) -> None:
        """Run on the new host, after a move that code or a user requested."""

    def on_cloning(self) -> None:
        """Run on the original, before its state is copied for a clone."""

    def on_clone(self) -> None:
        """Run once on the clone, before any other hook. `on_creation` does not run on a clone."""

    def on_deactivating(self) -> None:
        """Run at the end of the handler, hook or `run` that called `deactivate`, in the same commit."""

    def on_activation(self) -> None:
        """Run when an inactive paglet is activated, before any other code, on its current host."""

    def on_disposing(self) -> None:
        """Run before the paglet ends."""

    def run(self) -> None:
        """Do the paglet's own work. The host calls `run` after creation, `on_clone`, each arrival and each activation.

        Message handlers may run at the same time (see `locked_state`).
        """

    def handle_message(self, message: Message) -> Any:
        """Handle a message. The returned value is the reply to a call; for a post it is discarded.

        Override this method, and end it with `return self.not_handled(message)` for unknown kinds of messages.
        """
        return self.not_handled(message)

    def take_message(self, message: Message) -> Any:
        """Handle a message of any kind; the host calls this. Kinds in `REQUESTS` do not reach `handle_message`."""
        request = REQUESTS.get(message.kind)
        if request is not None:
            return request(self, message)
        self._handling = message
        return call_method(self, "handle_message", message)

    def not_handled(self, message: Message | None = None) -> Any:
        """Raise NotHandled for a message of an unknown kind, by default the current one. A caller gets this error."""
        refused = message or self._handling
        kind = "this kind" if refused is None else f"kind {refused.kind!r}"
        raise NotHandled(f"{type(self).__qualname__} has no handler for messages of {kind}")

    # The properties and methods below give the identity and the durable data of the paglet.

    @property
    def agent_id(self) -> str:
        """The id of this paglet, which is unique in the mesh and never changes."""
        return self.context.ref.agent_id

    @property
    def ref(self) -> ProxyRef:
        """A reference to this paglet, for use in messages and with `call` and `post`."""
        return self.context.ref

    @property
    def storage(self) -> Storage:
        """A durable map from strings to values that moves with the paglet. The host stores each key as a row."""
        return self.context.storage

    def work_dir(self) -> Path:
        """Return the paglet's scratch directory on this host. It is removed when the paglet leaves or ends.

        The paglet's process starts with this directory as its working directory.
        """
        return self.context.work_dir()

    def checkpoint(self) -> None:
        """Store the state now. A later attempt of a job starts from the last checkpoint."""
        self.context.checkpoint()

    def locked_state(self) -> AbstractContextManager[S]:
        """Lock the state against concurrent handlers. In `run` and jobs, store it at the end of the `with` block.

        In a hook or handler it is stored with the other changes, when the hook or handler returns.
        """
        return self.context.locked_state()

    def wait_state(self, predicate: Callable[[S], bool], timeout_seconds: float | None = None) -> bool:
        """Wait until `predicate(state)` is true. Return False after `timeout_seconds`; None means no limit.

        In `run` this method blocks. In the handler of a call it commits all changes, parks the call, and restarts the
        handler after each later change of the state. So the code before this call must be safe to repeat.
        """
        return self.context.wait_state(predicate, timeout_seconds)

    # The methods below handle files that move with the paglet.

    def register_file(self, path: str | Path, name: str | None = None, mode: str = "copy") -> FileRef:
        """Register a file that moves with this paglet. Each further host puts it into the scratch directory as `name`.

        The content is captured now. The file is registered when the current hook or handler commits, but at once in
        `run` and `run_compute_job`. If the file changes later, it is captured again after `on_dispatching`; if it is
        removed, the captured content moves. With `mode` "move", the file at `path` is removed once another host has the
        paglet, unless the file changed. `name` defaults to that of the file. A registered file of the same name is
        replaced. A new attempt of a job starts without the files that earlier attempts registered, unless a checkpoint
        followed.

        Raises Invalid if `path` is not a regular file, or is a link and `mode` is "move"; if `name` is invalid on some
        system or differs from a registered name only in case; and for an unknown mode. Raises FileChanged if the file
        keeps changing, and NoRoom if the host's disk or quota is full. A job's attempt waits for space instead, and
        gets NoRoom only for a file that can never fit.
        """
        return self.context.register_file(path, name, mode)

    def registered_files(self) -> tuple[FileRef, ...]:
        """Return the files that arrived with this paglet or are registered, sorted by name."""
        return self.context.registered_files()

    def file_path(self, name: str) -> Path:
        """Return the path of a file that arrived with this paglet or is registered. Raises Unknown for any other.

        Files that arrived are in the scratch directory before any code of the paglet runs. Their modification times are
        in 2000 and 2001.
        """
        return self.context.file_path(name)

    # The methods below handle artifacts: named files on hosts. Every host of the mesh can find an artifact by its id.

    def upload_artifact(
        self,
        path: str | Path,
        name: str | None = None,
        move: bool = False,
        expires_in_seconds: float | None = None,
    ) -> ArtifactRef:
        """Store a file as an artifact, and return once it is stored. The artifact moves and ends with this paglet.

        `move` removes the file at `path` afterwards. On Linux, a file in a job's scratch directory is not copied if no
        process has it open for writing. Close the file first, because later writes are not in the artifact. The
        artifact is deleted after `expires_in_seconds`; None keeps it. Raises Invalid, FileChanged and NoRoom like
        `register_file`; the file then stays in place.
        """
        return self.context.upload_artifact(path, name, move, expires_in_seconds)

    def download_artifact(
        self, ref_or_id: ArtifactRef | str, target: str | Path, move: bool = False, replace: bool = False
    ) -> Path:
        """Fetch an artifact from its host to the file or folder `target`. Return the path of the file.

        A `target` that ends with "/" is a folder, which is created. An existing file with the same bytes is kept. A
        file with other bytes raises Conflict, unless `replace` is set. `move` deletes the artifact afterwards.
        Raises Unknown if no online host has the artifact, Invalid if `target` cannot be written, and NoRoom.
        """
        return self.context.download_artifact(ref_or_id, target, move, replace)

    def delete_artifact(self, ref_or_id: ArtifactRef | str) -> None:
        """Delete an artifact on its host now. Raises Unknown if no online host has it."""
        self.context.delete_artifact(ref_or_id)

    def send_artifact(
        self, target: ProxyRef, path: str | Path, message: Message, name: str | None = None, move: bool = False
    ) -> ArtifactRef:
        """Post `message` together with a file. `target` gets it in `message.artifacts` and owns the artifact.

        The file is captured now, and the post is stored with the changes of this handler. `move` removes the file, at
        the latest when these changes are committed. Raises the same errors as `upload_artifact`.
        """
        return self.context.send_artifact(target, path, message, name, move)

    # The methods below send messages.

    def call(
        self,
        target: ProxyRef,
        message: Message,
        timeout_seconds: float | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Send a message and return the reply. `timeout` is another name for `timeout_seconds`.

        Raises HandlerFailed if the handler raised an exception, and CallOutcomeUnknown if no reply came.
        """
        return self.context.call(target, message, one_timeout(timeout_seconds, timeout))

    def post(self, target: ProxyRef, message: Message) -> None:
        """Send a message without waiting. It is stored with the changes of this handler and accepted exactly once.

        The artifacts of `message` that are on this host are sent with it, each as a copy that `target` owns.
        """
        self.context.post(target, message)

    @overload
    def notify_user(self, text: str, level: str = "info") -> None: ...
    @overload
    def notify_user(self, severity: str, title: str, message: str) -> None: ...
    def notify_user(self, *words: str, **named: str) -> None:
        """Send a note for the user to the home host, where `paglets notes` shows it.

        `level`, or `severity`, is "info", "warning" or "error"; `title` and `message` make the text `TITLE: MESSAGE`.
        A text of more than 2,000 characters is truncated. A home host keeps the newest 2,000 notes, at most 4 MiB. Each
        host also keeps up to 2,000 notes for unreachable home hosts. Raises Invalid for another level.
        """
        self.context.notify_user(*text_and_level(*words, **named))

    # The methods below clone the paglet or make it inactive.

    def clone(self, name: str | None = None) -> Any:
        """Create a clone of this paglet on this host, and return the clone's PagletProxy at once.

        The clone has the state, storage and registered files that the current handler commits, or that `run` has now.
        It also has this paglet's code, home host and service name, but not its messages and artifacts. `on_cloning`
        runs now in the original, and `on_clone` later in the clone. Raises Invalid for a job or a collector, and
        NameTaken if another paglet has that name.
        """
        return self.context.clone(name, None)

    def clone_to(self, host_name: str, name: str | None = None) -> Any:
        """Create a clone that moves to the host with that name or URL after its `on_clone`.

        Raises Unknown if the mesh has no such host.
        """
        return self.context.clone(name, self.context.resolve_host(host_name))

    def deactivate(self, seconds: float | None = None) -> None:
        """Become inactive until a message arrives, somebody activates this paglet, or `seconds` have passed.

        The paglet becomes inactive when the current hook, handler or `run` returns, after `on_deactivating`. `run` does
        not run in an inactive paglet, not even after a restart of its host. A message that already waits activates the
        paglet at once. Raises Invalid for a job or a collector, and for a time out of range.
        """
        self.context.intend_sleep(seconds)

    # Moves and disposal. These methods check their arguments at once, and take effect when the current hook, handler or
    # `run` returns. The last request wins; an exception in the hook, handler or `run` cancels the request.

    def dispatch(self, target: str) -> None:
        """Move to the host with that name or URL. Raises Unknown if the mesh has none."""
        self.context.intend_move(self.context.resolve_host(target))

    def dispatch_to(self, host_name: str) -> None:
        """Move to the host with that name or URL, like `dispatch`. Raises Unknown if the mesh has none."""
        self.context.intend_move(self.context.resolve_host(host_name))

    def dispose(self) -> None:
        """End this paglet, after `on_disposing`."""
        self.context.intend_dispose()


def _clone(paglet: Paglet[Any], message: Message) -> ProxyRef:
    host, name = message.get("host"), message.get("name")
    made = paglet.clone(name) if host is None else paglet.clone_to(host, name)
    ref: ProxyRef = made.ref
    return ref


def _deactivate(paglet: Paglet[Any], message: Message) -> None:
    paglet.deactivate(message.get("seconds"))


def _activate(paglet: Paglet[Any], message: Message) -> None:
    """Do nothing, because the arrival of the message has activated the paglet already."""


REQUESTS: Mapping[str, Callable[[Paglet[Any], Message], Any]] = {
    CLONE: _clone,
    DEACTIVATE: _deactivate,
    ACTIVATE: _activate,
}
"""The kinds of messages that every paglet supports, each with its handler."""

HookEvent.__module__ = __name__
