"""The frames between a host and the process of a paglet: one table that both sides use.

Frames have the format of `worker.frames` and travel over a socket pair. Host to child, each an object with one key:

- `{"go": Go}`: once, as the first frame.
- `{"deliver": Deliver}`: a message to handle. The host may send several. The child handles one after the other, and
  answers each with a request `handled`. In the entry `message` the child does nothing else. In LONG_ENTRIES it handles
  messages while the entry runs. Other entries ignore messages.
- `{"finish": true}`: ends the entry `message`. The child handles the messages sent before, sends `done` and exits.
  Other entries ignore the frame.
- `{"reply": id, "ok": value}` or `{"reply": id, "error": PagletsError.to_wire()}`: the answer to a request.

Child to host: requests `{"op", "id", "stamp", "args"}`, with `op` and `args` from OPERATIONS. `stamp` is the one from
`go` (agent_id, epoch, generation, attempt, token). The host answers a stale stamp with the error `fenced`, and the
child exits at once.

An error in the reply to `handled` or `done` means that the host committed none of it. The child drops the changes and
repeats the request once with that error as `fault`. `sys.exit(n)` in the paglet's code ends the process with that code,
without `done` or `handled`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from paglets.api.paglets import NewPaglet
from paglets.codec.envelope import WireMessage
from paglets.core.refs import BlobRef, FileRef, HostRef, ProxyRef
from paglets.worker.requests import Find, NewClone, NewNote, Rest

Entry = Literal["creation", "clone", "arrival", "activation", "run", "dispatching", "disposing", "attempt", "message"]

ENTRY_METHODS: dict[str, str] = {
    "creation": "on_creation",
    "clone": "on_clone",
    "arrival": "on_arrival",
    "activation": "on_activation",
    "run": "run",
    "dispatching": "on_dispatching",
    "disposing": "on_disposing",
    "attempt": "compute_attempt",
    "message": "",
}
"""The method of the paglet that each entry calls. `message` only waits for `deliver`."""

HOOK_ENTRIES = ("creation", "clone", "arrival", "activation", "dispatching", "disposing")
"""Entries that call a hook. `Paglet.hook_timeout_seconds` limits them."""

LONG_ENTRIES = ("run", "attempt")
"""Entries during which handlers run, and whose changes are committed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """The identity of a run and its paglet."""

    agent_id: str
    epoch: int
    generation: int
    attempt: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """A message for the paglet. `handled` returns its `message_id`.

    `waited_seconds`: the time since this call was first parked; 0 if it was not. It counts for `wait_state`.
    """

    message_id: str
    message: WireMessage
    is_call: bool
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoFile:
    """A file that travels with the paglet. `path`: the host's file with its bytes, which must not be changed.

    The child copies the file into the scratch directory before any code of the paglet runs, unless an earlier process
    did so. `source_*`: the source of a file that was registered on this host, as in RegisteredFile. While the source
    exists, it is used itself, without a copy.
    """

    file: FileRef
    path: str
    source_path: str = ""
    source_mtime_ns: int = 0
    source_inode: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoCode:
    """The bundle with the paglet's class. `folder`: the cache of unpacked bundles, one subfolder per SHA-256."""

    bundle: BlobRef
    path: str
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """The first frame: all that a child needs to start. `system` replaces fields of the state with the same names.

    `came_from`: the name of the host from which a paglet arrived; "" for other entries.
    """

    stamp: Stamp
    class_name: str
    kind: str
    entry: Entry
    state: Any
    system: dict[str, Any]
    host: HostRef
    work_dir: str
    code_paths: tuple[str, ...] = ()
    deliver: Deliver | None = None
    code: GoCode | None = None
    files: tuple[GoFile, ...] = ()
    collector: ProxyRef | None = None
    came_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A failure of user code. `cause`: from a closed list; in `done` also HOST_FILES_MISSING and DISK_FULL.

    `scratch_bytes`: with DISK_FULL, the size of the scratch directory.
    """

    cause: str
    message: str
    traceback: str = ""
    code: str = ""
    scratch_bytes: int = 0


BAD_RESULT = "bad_result"
"""Cause of an attempt whose result cannot be encoded. Its scratch directory is kept."""

KEPT_DAYS = 7
"""Days for which such a scratch directory is kept, unless all of them use too much of the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingPost:
    """A post that the host is to send."""

    target: ProxyRef
    message: WireMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredFile:
    """A file registered with `register_file`, its bytes published. `source_*`: the file that was read."""

    file: FileRef
    source_path: str
    source_mtime_ns: int
    source_inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewArtifact:
    """A new artifact whose blob is published. Its id comes from the run's token and a count."""

    artifact_id: str
    name: str
    blob: BlobRef
    created_at: float
    expires_in_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Changes of one hook, handler or step, committed together. `has_state`: `state` is to be stored."""

    has_state: bool = False
    state: Any = None
    storage_set: dict[str, Any] = field(default_factory=dict)
    storage_deleted: tuple[str, ...] = ()
    posts: tuple[OutgoingPost, ...] = ()
    files: tuple[RegisteredFile, ...] = ()
    notes: tuple[NewNote, ...] = ()
    clones: tuple[NewClone, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A request of user code for a move, disposal or rest; `stay` cancels an earlier one. At most one is set."""

    move: HostRef | None = None
    dispose: bool = False
    stay: bool = False
    rest: Rest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """`commit`, `checkpoint`: store changes of a long entry now."""

    changes: Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`report`: store the outcome of this attempt. The first report counts. Replies `{"accepted": bool}`.

    `stored`: artifacts that the result names with `$stored`. They go to the collector, like `artifact`.
    """

    success: bool
    result: Any = None
    fault: Fault | None = None
    artifact: NewArtifact | None = None
    stored: tuple[NewArtifact, ...] = ()
    changes: Changes = field(default_factory=Changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveSpace:
    """`reserve_space`: reserve space for a file. Replies `{"folder": PATH}`: write the file there, named `staged`.

    The reservation lasts ten minutes. `moved`: the file is on that disk and will be renamed. `problem`: the error of
    the last try to write the file.
    """

    staged: str
    size_bytes: int
    moved: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """`publish`: make a blob of the file `staged` in that folder, which the child has hashed and synced. Replies `{}`.

    The blob is kept until the run commits a reference to it or ends, and for an hour at least.
    """

    staged: str
    blob: BlobRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactAdd:
    """`artifact_add`: store an artifact of this paglet. Replies its ArtifactRef."""

    artifact: NewArtifact


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFetch:
    """`artifact_fetch`: get the bytes to this host. Replies `{"artifact": ArtifactRef, "path": PATH}` afterwards."""

    artifact_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactDelete:
    """`artifact_delete`: delete an artifact anywhere in the mesh. Replies the error Unknown if there is none."""

    artifact_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOut:
    """`call`: call a paglet. Replies the tagged value of its handler. `target.host`: a hint; the id may be a name."""

    target: ProxyRef
    message: WireMessage
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Create(NewPaglet):
    """`create`: create a paglet. Replies its ProxyRef. `nth`: a count in this run, which makes repeats idempotent."""

    nth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """`submit`: submit a group. `request`: `api.SubmitGroup` as JSON. Replies `api.GroupView` as JSON."""

    nth: int
    request: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """`resolve_host`: name or URL to HostRef. `resolve_paglet`: id or name on this host to ProxyRef."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageGet:
    """`storage_get`: read an entry of the storage. Replies `{"found": bool, "value": tagged}`."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageScan:
    """`storage_scan`: like `core.context.Storage.scan`. Replies `{"entries": [[key, tagged], ...]}`."""

    prefix: str
    after: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoArguments:
    """No arguments. `hosts` replies `{"hosts": [core.context.HostInfo as JSON]}`; `storage_keys` `{"keys": [...]}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookLimit:
    """`hook_limit`: end the hook that starts now after `seconds`, as its class says. Replies `{}`."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """`handled`: the end of a handler. With a fault the host drops changes and intent.

    `parked`: the handler waits in `wait_state`, and its changes are committed. The host delivers the call again after
    each later change of the state, and after `wait_seconds` at the latest (None: no limit).
    """

    message_id: str
    value: Any = None
    fault: Fault | None = None
    parked: bool = False
    wait_seconds: float | None = None
    changes: Changes = field(default_factory=Changes)
    intent: Intent = field(default_factory=Intent)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryDone:
    """`done`: the end of the entry. The child exits 0 after the reply. With a fault the host drops changes and intent.

    `then_run`: the class overrides `run`, which is due after `creation`, `clone`, `arrival` or `activation`.
    `is_default`: the class does not override the method of this entry.
    `keep_scratch`: the scratch directory of this attempt has a file that could not be sent.
    """

    then_run: bool = False
    is_default: bool = False
    keep_scratch: bool = False
    fault: Fault | None = None
    changes: Changes = field(default_factory=Changes)
    intent: Intent = field(default_factory=Intent)


OPERATIONS: dict[str, type] = {
    "commit": Commit,
    "checkpoint": Commit,
    "report": Report,
    "reserve_space": ReserveSpace,
    "publish": Publish,
    "artifact_add": ArtifactAdd,
    "artifact_fetch": ArtifactFetch,
    "artifact_delete": ArtifactDelete,
    "call": CallOut,
    "create": Create,
    "submit": Submit,
    "hosts": NoArguments,
    "resolve_host": Resolve,
    "resolve_paglet": Resolve,
    "find": Find,
    "storage_get": StorageGet,
    "storage_keys": NoArguments,
    "storage_scan": StorageScan,
    "hook_limit": HookLimit,
    "handled": Handled,
    "done": EntryDone,
}
"""Operations of a child, with the records of their `args`. The host answers each with one `reply` frame,
`{"reply": id, "ok": value}` or `{"reply": id, "error": PagletsError.to_wire()}`."""
