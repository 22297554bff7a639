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


@dataclass(kw_only=True)
class PagletState:
    """The state of a paglet: derive a dataclass from this class and add fields, each with a default.

    All fields travel with the paglet. The host sets these two before each entry into the paglet's code:

        home_host_name = ""    Name of the host where the paglet was created.
        home_host_url = ""     URL of that host.
    """

    home_host_name: str = ""
    home_host_url: str = ""


if TYPE_CHECKING:  # Type variables with defaults, which make `class Hello(Paglet)` complete, need Python 3.13.
    import typing_extensions

    S = typing_extensions.TypeVar("S", bound=PagletState, default=PagletState)
else:
    S = TypeVar("S", bound=PagletState)


class Paglet(Generic[S]):
    """An object with an identity and a durable state that lives on one host, gets messages and can move.

    Set `State` to the dataclass of the state, and override what you need:

        handle_message                        answer a call or take a post
        run                                   work without being asked
        on_creation on_disposing              begin and end of the paglet
        on_dispatching on_arrival             before and after a move
        on_cloning on_clone                   on the original and on its copy
        on_deactivating on_activation         before and after a rest

    In these methods, use:

        state, storage                        durable values; locked_state, wait_state, checkpoint
        call, post, notify_user               messages to other paglets, notes for the user
        dispatch_to, clone, deactivate, dispose
        work_dir, register_file, file_path    files that move with the paglet
        upload_artifact, download_artifact, send_artifact, delete_artifact

    The code runs in a process of its own, and only while one of these methods is at work. In between, a paglet is a row
    in the database of its host. `HostClient.create` makes a paglet and returns its `PagletProxy`.
    """

    State: ClassVar[type[PagletState]] = PagletState

    kind: ClassVar[Kind] = "paglet"
    """The kind of rows that the host keeps for the paglet: "paglet", "job" or "collector"."""

    hook_timeout_seconds: ClassVar[float | None] = None
    """The time limit of each hook of the class; a hook that takes longer is killed and fails. None means no limit."""

    service_name: ClassVar[str] = ""
    """The name under which `Context.lookup` finds paglets of this class, from their creation to their end."""

    _handling: Message | None = None
    """The last message that was passed to `handle_message`."""

    @classmethod
    def creation_request(cls, state: PagletState) -> dict[str, Any] | None:
        """Return `slots.model.SlotRequest` as JSON if the paglet runs in a slot, else None. Raise Invalid."""
        return None

    def __init__(self, state: S, context: Context | None = None) -> None:
        """Hosts create paglets. Raise TypeError in a script, which gives a host the class and a state."""
        if context is None:
            raise TypeError(f"only hosts create a {type(self).__qualname__}: pass the class itself, and its state")
        self.state = state
        self.context = context

    # Hooks. Each runs to its end before the next; changes are committed when it returns. A hook may also take its
    # event: `def on_arrival(self, event: HookEvent)`.

    def on_creation(self) -> None:
        """Run once, after the paglet was created."""

    def on_dispatching(self) -> None:
        """Run on the old host, before a move that code or a user requested."""

    def on_arrival(self) -> None:
        """Run on the new host, after such a move."""

    def on_cloning(self) -> None:
        """Run on the original, before its state is copied for a clone."""

    def on_clone(self) -> None:
        """Run once on the clone, before any other hook; `on_creation` does not run there."""

    def on_deactivating(self) -> None:
        """Run last in the handler, hook or `run` that called `deactivate`; its changes are committed together."""

    def on_activation(self) -> None:
        """Run when an inactive paglet is activated, before any other code, on its current host."""

    def on_disposing(self) -> None:
        """Run before the paglet ends."""

    def run(self) -> None:
        """Work without being asked: after creation, `on_clone`, each arrival and each activation.

        Handlers may run at the same time (see `locked_state`).
        """

    def handle_message(self, message: Message) -> Any:
        """Answer a call (the value is the reply) or take a post (the value is dropped).

        Override it, and end it with `return self.not_handled(message)` for kinds that you do not know.
        """
        return self.not_handled(message)

    def take_message(self, message: Message) -> Any:
        """Take any message; the host calls this. Messages of the program's own kinds never reach `handle_message`."""
        request = REQUESTS.get(message.kind)
        if request is not None:
            return request(self, message)
        self._handling = message
        return call_method(self, "handle_message", message)

    def not_handled(self, message: Message | None = None) -> Any:
        """Refuse a message of an unknown kind, by default the current one: its caller gets NotHandled."""
        refused = message or self._handling
        kind = "this kind" if refused is None else f"kind {refused.kind!r}"
        raise NotHandled(f"{type(self).__qualname__} has no handler for messages of {kind}")

    # Identity and durable things.

    @property
    def agent_id(self) -> str:
        """Id of this paglet in the whole mesh; it never changes."""
        return self.context.ref.agent_id

    @property
    def ref(self) -> ProxyRef:
        """Reference to this paglet, for use in messages and with `call` and `post`."""
        return self.context.ref

    @property
    def storage(self) -> Storage:
        """A durable map (string -> value) that moves with the paglet, a row for each key."""
        return self.context.storage

    def work_dir(self) -> Path:
        """Return the paglet's scratch directory on this host; it is removed when the paglet leaves or ends.

        The process starts in it. Relative paths count from there until your code changes the working directory.
        """
        return self.context.work_dir()

    def checkpoint(self) -> None:
        """Store the state now; a later attempt of a job starts from the last checkpoint."""
        self.context.checkpoint()

    def locked_state(self) -> AbstractContextManager[S]:
        """Lock the state against handlers that run at the same time; store it at the end of the `with` block."""
        return self.context.locked_state()

    def wait_state(self, predicate: Callable[[S], bool], timeout_seconds: float | None = None) -> bool:
        """Wait until `predicate(state)` is true. Return False after `timeout_seconds`; None means no limit.

        In `run` it blocks. In the handler of a call it commits all changes, parks the call, and restarts the handler
        after each later change of the state. So code before it in the handler must be safe to repeat.
        """
        return self.context.wait_state(predicate, timeout_seconds)

    # Files that travel with the paglet.

    def register_file(self, path: str | Path, name: str | None = None, mode: str = "copy") -> FileRef:
        """Let a file travel with this paglet: each later host has it in the scratch directory, under `name`.

        The bytes are captured now. The file is registered when the current hook or handler commits, in `run` and
        `run_compute_job` at once. A file that changes later is captured again after `on_dispatching`; one that is
        removed travels as it was. With `mode` "move", the file at `path` is removed once another host has the paglet,
        unless it changed. `name` defaults to that of the file; registering a name again replaces it. A new attempt of
        a job starts without the files that earlier attempts registered, unless a checkpoint followed.

        Raises Invalid for anything but a regular file, a name that not every system accepts or that differs from a
        registered one only in case, an unknown mode, or a link with "move". Raises FileChanged if the file keeps
        changing, and NoRoom if the host's disk or quota is full. An attempt of a job waits for space instead, and gets
        NoRoom only for a file that can never fit.
        """
        return self.context.register_file(path, name, mode)

    def registered_files(self) -> tuple[FileRef, ...]:
        """Return the files that arrived with this paglet or are registered, sorted by name."""
        return self.context.registered_files()

    def file_path(self, name: str) -> Path:
        """Return the path of a file that arrived with this paglet or is registered. Raise Unknown.

        Files that arrived are in the scratch directory before any code of the paglet runs, dated in 2000 and 2001.
        """
        return self.context.file_path(name)

    # Artifacts: named files on hosts; every host of the mesh finds them by id.

    def upload_artifact(
        self,
        path: str | Path,
        name: str | None = None,
        move: bool = False,
        expires_in_seconds: float | None = None,
    ) -> ArtifactRef:
        """Store a file as an artifact of this paglet, and return once it is stored. It moves and ends with the paglet.

        `move` removes the file at `path` afterwards. On Linux, a job's file in its scratch directory is then not even
        copied if nobody has it open for writing. Close it first: later writes are not in the artifact.
        `expires_in_seconds` deletes the artifact after that time; None keeps it. Raises Invalid, FileChanged and NoRoom
        like `register_file`, and then leaves the file in place.
        """
        return self.context.upload_artifact(path, name, move, expires_in_seconds)

    def download_artifact(
        self, ref_or_id: ArtifactRef | str, target: str | Path, move: bool = False, replace: bool = False
    ) -> Path:
        """Fetch an artifact from its host to the file or folder `target`. Return the path of the file.

        A `target` that ends with "/" is a folder, which is created. An existing file with the same bytes is kept. One
        with other bytes raises Conflict, unless `replace` is set. `move` deletes the artifact afterwards.
        Raises Unknown (no online host has it), Invalid (`target` cannot be written), NoRoom.
        """
        return self.context.download_artifact(ref_or_id, target, move, replace)

    def delete_artifact(self, ref_or_id: ArtifactRef | str) -> None:
        """Delete an artifact on its host at once. Raises Unknown if no online host has it."""
        self.context.delete_artifact(ref_or_id)

    def send_artifact(
        self, target: ProxyRef, path: str | Path, message: Message, name: str | None = None, move: bool = False
    ) -> ArtifactRef:
        """Post `message` with a file. `target` gets both together; it owns the artifact, one of `message.artifacts`.

        The file is captured now, and the post is stored with the changes of this handler. `move` removes the file, at
        the latest when they are committed. Raises like `upload_artifact`.
        """
        return self.context.send_artifact(target, path, message, name, move)

    # Messages.

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

        Artifacts of `message` on this host are sent along, each as a copy that `target` owns.
        """
        self.context.post(target, message)

    @overload
    def notify_user(self, text: str, level: str = "info") -> None: ...
    @overload
    def notify_user(self, severity: str, title: str, message: str) -> None: ...
    def notify_user(self, *words: str, **named: str) -> None:
        """Send a note for the user to the home host, where `paglets notes` shows it.

        `level`, or `severity`, is "info", "warning" or "error"; `title` and `message` make the text `TITLE: MESSAGE`.
        A text over 2,000 characters is cut. A home keeps the newest 2,000 notes, at most 4 MiB; each host keeps as
        many for homes that are unreachable. Raises Invalid for another level.
        """
        self.context.notify_user(*text_and_level(*words, **named))

    # Copies and inactivity.

    def clone(self, name: str | None = None) -> Any:
        """Create a copy of this paglet on this host, and return its PagletProxy at once.

        The copy has the state, storage and registered files that the current handler commits (in `run`: now). It also
        has this paglet's code, home and service, but not its messages and artifacts. `on_cloning` runs here now, and
        `on_clone` runs first in the copy. Raises Invalid for a job or a collector, and NameTaken.
        """
        return self.context.clone(name, None)

    def clone_to(self, host_name: str, name: str | None = None) -> Any:
        """Create a copy that moves to the host with that name or URL after its `on_clone`.

        Raises Unknown if the mesh has no such host.
        """
        return self.context.clone(name, self.context.resolve_host(host_name))

    def deactivate(self, seconds: float | None = None) -> None:
        """Become inactive until a message arrives, somebody activates this paglet, or `seconds` have passed.

        An inactive paglet does not `run`, not even after a restart of its host or a move. This takes effect like a move
        (see below), after `on_deactivating`. A message that already waits activates the paglet at once. Raises Invalid
        for a job or a collector, and for a time out of range.
        """
        self.context.intend_sleep(seconds)

    # Moves and the end. These methods check their arguments at once, and take effect when the current hook, handler or
    # `run` returns. The last request wins; an exception cancels it.

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
    """Do nothing: the arrival of the message has activated the paglet."""


REQUESTS: Mapping[str, Callable[[Paglet[Any], Message], Any]] = {
    CLONE: _clone,
    DEACTIVATE: _deactivate,
    ACTIVATE: _activate,
}
"""The handlers of the kinds of messages that every paglet answers."""

HookEvent.__module__ = __name__
