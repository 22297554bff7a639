"""The in-host collector: run the collector's handlers in the host process, inside a transaction of the store.

The handlers only use state, storage, posts and a reply, so they need no process of their own. Message arguments,
storage values and replies stay tagged JSON, because the host does not decode user data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from paglets.api.groups import DEFAULT_COLLECTOR
from paglets.codec.class_names import resolve_class
from paglets.codec.envelope import WireMessage
from paglets.codec.strict_json import dumps, loads
from paglets.codec.tagged_json import decode_state, encode_state
from paglets.core.agent import Paglet
from paglets.core.context import HostInfo
from paglets.core.errors import Invalid
from paglets.core.messages import Message
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef, HostRef, ProxyRef
from paglets.host.records.in_host_storage import InHostStorage
from paglets.store import artifacts, paglets, posts, residence, sqlite_errors
from paglets.store.db import Tx
from paglets.store.posts import UnhandledPost

IN_HOST_CLASSES = (DEFAULT_COLLECTOR,)
"""The built-in classes whose handlers run in the host process. Subclasses that users define run in child processes."""


class CallParked(BaseException):
    """An exception that parks a call whose handler waits for a change of state.

    The host stores the changes that the handler made. It repeats the call when the state changes, at the latest after
    `wait_seconds`. None means no limit.
    """

    def __init__(self, wait_seconds: float | None) -> None:
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """The part of the host that in-host code may use. `resolve` finds a host by name or URL, or raises Unknown."""

    own: HostRef
    wall: Callable[[], float]
    resolve: Callable[[str], HostRef]
    hosts: Callable[[], tuple[HostInfo, ...]]


class InHostContext:
    """The context of a paglet whose code runs in the host process, in one transaction."""

    def __init__(self, tx: Tx, host: HostView, agent_id: str) -> None:
        self._tx = tx
        self._host = host
        self._storage = InHostStorage(tx, agent_id)
        self.ref = ProxyRef(agent_id=agent_id, host=host.own)
        self.paglet: Paglet[Any] | None = None
        self.is_call = False
        self.waited_seconds = 0.0
        self.intent: dict[str, Any] | None = None
        self.intent_set = False

    @property
    def name(self) -> str:
        return self._host.own.name

    @property
    def address(self) -> str:
        return self._host.own.url

    @property
    def storage(self) -> InHostStorage:
        return self._storage

    def wall_time(self) -> float:
        return self._host.wall()

    def hosts(self) -> tuple[HostInfo, ...]:
        return self._host.hosts()

    def resolve_host(self, target: str) -> HostRef:
        return self._host.resolve(target)

    def post(self, target: ProxyRef, message: Message) -> None:
        if message.artifacts:
            self._refuse("a message with artifacts")
        wire = WireMessage(kind=message.kind, args=dict(message.args), sender=self.ref, priority=message.priority)
        posts.send(self._tx, target, wire, self._host.wall())

    def intend_move(self, target: HostRef) -> None:
        self.intent, self.intent_set = {"move": to_json(target)}, True

    def intend_dispose(self) -> None:
        self.intent, self.intent_set = {"dispose": True}, True

    def intend_stay(self) -> None:
        self.intent, self.intent_set = None, True

    def checkpoint(self) -> None:
        """Do nothing: the state is committed together with the handler."""

    @contextmanager
    def locked_state(self) -> Iterator[Any]:
        assert self.paglet is not None
        yield self.paglet.state

    def wait_state(self, predicate: Callable[[Any], bool], timeout_seconds: float | None) -> bool:
        assert self.paglet is not None
        if predicate(self.paglet.state):
            return True
        if not self.is_call:
            raise Invalid("the handler of a post may not wait for the state to change")
        if timeout_seconds is None:
            raise CallParked(None)
        if self.waited_seconds >= timeout_seconds:
            return False
        raise CallParked(timeout_seconds - self.waited_seconds)

    def delete_artifact(self, artifact: ArtifactRef | str) -> None:
        """Delete an artifact of this paglet in this transaction, if the artifact is on this host."""
        artifact_id = artifact if isinstance(artifact, str) else artifact.artifact_id
        artifacts.delete_owned(self._tx, self.ref.agent_id, (artifact_id,))

    def create(
        self, cls: type, state: Any = None, *, name: str | None = None, inputs: Mapping[str, str | Path] | None = None
    ) -> NoReturn:
        self._refuse("create")

    def proxy(self, target: ProxyRef | str) -> NoReturn:
        self._refuse("proxy")

    def find(self, name: str) -> NoReturn:
        self._refuse("find")

    def lookup(self, service_name: str) -> NoReturn:
        self._refuse("lookup")

    def clone(self, name: str | None, target: HostRef | None) -> NoReturn:
        self._refuse("clone")

    def intend_sleep(self, seconds: float | None) -> NoReturn:
        self._refuse("deactivate")

    def notify_user(self, text: str, level: str) -> NoReturn:
        self._refuse("notify_user")

    def call(
        self,
        target: ProxyRef,
        message: Message,
        timeout_seconds: float | None = None,
        *,
        timeout: float | None = None,
    ) -> NoReturn:
        self._refuse("call")

    send = call

    def submit_group(self, request: Mapping[str, Any]) -> NoReturn:
        self._refuse("submit_group")

    def work_dir(self) -> Path:
        self._refuse("work_dir")

    def publish_bytes(self, data: bytes) -> NoReturn:
        self._refuse("publish_bytes")

    def publish_file(self, path: str | Path) -> NoReturn:
        self._refuse("publish_file")

    def register_file(self, path: str | Path, name: str | None, mode: str) -> NoReturn:
        self._refuse("register_file")

    def registered_files(self) -> NoReturn:
        self._refuse("registered_files")

    def file_path(self, name: str) -> NoReturn:
        self._refuse("file_path")

    def upload_artifact(
        self, path: str | Path, name: str | None, move: bool, expires_in_seconds: float | None
    ) -> NoReturn:
        self._refuse("upload_artifact")

    def download_artifact(self, artifact: ArtifactRef | str, target: str | Path, move: bool, replace: bool) -> NoReturn:
        self._refuse("download_artifact")

    def send_artifact(
        self, target: ProxyRef, path: str | Path, message: Message, name: str | None, move: bool
    ) -> NoReturn:
        self._refuse("send_artifact")

    def report(self, report: Mapping[str, Any]) -> NoReturn:
        self._refuse("report")

    def warn(self, text: str) -> NoReturn:
        self._refuse("warn")

    def keep_unsent(self, path: str | Path) -> NoReturn:
        self._refuse("keep_unsent")

    def _refuse(self, what: str) -> NoReturn:
        raise Invalid(f"{what} is not available to a paglet whose handlers run inside its host")


class InHostPaglet:
    """An in-host paglet that is loaded and saved in one transaction."""

    def __init__(self, tx: Tx, host: HostView, agent_id: str) -> None:
        residence.get_here(tx, agent_id)
        row = tx.one(
            "SELECT class_name, state, home FROM paglets JOIN paglet_states USING (agent_id) WHERE agent_id = ?",
            agent_id,
        )
        assert row is not None
        self._tx = tx
        self._agent_id = agent_id
        self._class = resolve_class(row["class_name"], Paglet)
        self._text = row["state"]
        self._intent: tuple[dict[str, Any] | None, bool] = (None, False)
        self._context = InHostContext(tx, host, agent_id)
        self._load()
        # `save` compares the state with this text. The text in the row may come from another version, which encodes the
        # same state differently. Then the state would look changed, and the save after a read-only handler would fail.
        self._stored = dumps(encode_state(self._paglet.state))

    def _load(self) -> None:
        state = decode_state(self._class.State, loads(self._text), import_classes=False)
        paglet = self._class(state, self._context)
        self._context.paglet = paglet
        self._paglet = paglet

    def hook(self, name: str) -> None:
        """Call the hook method with this name, such as `on_arrival`."""
        getattr(self._paglet, name)()

    def handle(self, message: WireMessage, is_call: bool, waited_seconds: float = 0.0) -> Any:
        """Pass a message to its handler. Return the reply as tagged JSON.

        Raises CallParked, and any error of the handler. `waited_seconds` is the time since the call was first parked.
        """
        self._context.is_call = is_call
        self._context.waited_seconds = waited_seconds
        each = message
        return self._paglet.take_message(
            Message(each.kind, each.args, each.sender, each.artifacts, priority=each.priority)
        )

    def restore(self) -> None:
        """Undo the changes that a failed handler made in memory to the state and to the pending action."""
        self._context.intent, self._context.intent_set = self._intent
        self._load()

    def keep(self) -> None:
        """Let `restore` return to the current state and pending action if a later handler fails."""
        self._text = dumps(encode_state(self._paglet.state))
        self._intent = (self._context.intent, self._context.intent_set)

    def hold_storage(self, messages: Iterable[WireMessage]) -> None:
        """Read what the handlers of these messages will read, and hold what they write until `save`."""
        keys_read = getattr(self._class, "keys_read", lambda kind, args: ())
        self._context.storage.hold([key for each in messages for key in keys_read(each.kind, each.args)])

    def save(self) -> None:
        """Store the state, the intent and the held storage entries of the paglet, if they changed."""
        self._context.storage.flush()
        text = dumps(encode_state(self._paglet.state))
        if text != self._stored:
            paglets.set_state(self._tx, self._agent_id, text)
            self._tx.touch(self._agent_id)
        if self._context.intent_set:
            intent = self._context.intent
            # A pending disposal is not replaced, whatever the code requests.
            self._tx.run(
                "UPDATE paglets SET intent = ? WHERE agent_id = ?"
                " AND (intent IS NULL OR json_extract(intent, '$.dispose') IS NULL)",
                None if intent is None else dumps(intent),
                self._agent_id,
            )
            self._tx.wake("mailbox")


@dataclass(frozen=True, slots=True, kw_only=True)
class InHostReply:
    """The result of a call. If `done` is True, `value` is the reply.

    Otherwise the call waits for a change of state, for at most `wait_seconds`. None means no limit.
    """

    done: bool
    value: Any = None
    wait_seconds: float | None = None


def call(tx: Tx, host: HostView, agent_id: str, message: WireMessage, waited_seconds: float = 0.0) -> InHostReply:
    """Call an in-host paglet. Store the changes that its handler made, even if the call is parked."""
    paglet = InHostPaglet(tx, host, agent_id)
    try:
        value = paglet.handle(message, is_call=True, waited_seconds=waited_seconds)
    except CallParked as parked:
        paglet.save()
        return InHostReply(done=False, wait_seconds=parked.wait_seconds)
    paglet.save()
    return InHostReply(done=True, value=value)


def is_read_only(class_name: str, message: WireMessage) -> bool:
    """Return True if the handler of this message kind changes nothing and can run on a read-only connection."""
    return message.kind in getattr(resolve_class(class_name, Paglet), "READ_ONLY_KINDS", ())


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPost:
    """A post whose handler has raised `tries` times."""

    seq: int
    tries: int
    text: str


def take_posts(
    tx: Tx, host: HostView, agent_id: str, most: int, skip: Iterable[int] = ()
) -> tuple[int, list[FailedPost]]:
    """Handle up to `most` waiting posts. Return their number and the failed posts.

    The posts share their reads and writes. If a handler raises, each post is handled again in its own savepoint.
    """
    waiting = posts.unhandled(tx, agent_id, most, skip)
    if not waiting:
        return 0, []
    try:
        with tx.savepoint():
            _take_together(tx, host, agent_id, waiting)
        return len(waiting), []
    except Exception as error:
        if sqlite_errors.is_store_error(error):
            raise
    return len(waiting), _take_one_by_one(tx, host, agent_id, waiting)


def _take_together(tx: Tx, host: HostView, agent_id: str, waiting: list[UnhandledPost]) -> None:
    paglet = InHostPaglet(tx, host, agent_id)
    paglet.hold_storage([post.message for post in waiting])
    for post in waiting:
        paglet.handle(post.message, is_call=False)
    paglet.save()
    posts.remove_all_handled(tx, [post.seq for post in waiting])


def _take_one_by_one(tx: Tx, host: HostView, agent_id: str, waiting: list[UnhandledPost]) -> list[FailedPost]:
    paglet = InHostPaglet(tx, host, agent_id)
    errors: list[FailedPost] = []
    for post in waiting:
        try:
            with tx.savepoint():
                paglet.handle(post.message, is_call=False)
                paglet.keep()
                posts.remove_handled(tx, post.seq)
        except Exception as error:
            if sqlite_errors.is_store_error(error):
                raise
            paglet.restore()
            text = f"post {post.message.kind!r} to {agent_id}: {error!r}"
            errors.append(FailedPost(seq=post.seq, tries=posts.record_error(tx, post.seq, repr(error)), text=text))
    paglet.save()
    return errors


def run_hook(tx: Tx, host: HostView, agent_id: str, method: str) -> None:
    """Run the hook method of an in-host paglet, and store the changes that it made."""
    paglet = InHostPaglet(tx, host, agent_id)
    paglet.hook(method)
    paglet.save()
