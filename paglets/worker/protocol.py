"""The frames between a host and the process of a paglet (the child).

Frames have the format of `worker.frames` and travel over a socket pair. A child runs one *entry*: a method of the
paglet, or `message`, which only handles messages. The host sends these frames, with the token of the run as `run`:

- `{"go": Go}`: the first frame, sent once.
- `{"deliver": Deliver}`: a message to handle. The host may send several. The child handles them one after the other,
  and sends a request `handled` for each. Entries in LONG_ENTRIES handle messages while their method runs; other
  entries, except `message`, ignore them.
- `{"finish": true}`: the end of the entry `message`. The child handles the messages that came before, sends `done` and
  exits. Other entries ignore the frame. A child may send `done` before it gets this frame. The next process then gets
  the messages that the child has not handled.
- `{"reply": id, "ok": value}` or `{"reply": id, "error": PagletsError.to_wire()}`: the reply to a request.

The child sends requests `{"op", "id", "stamp", "args"}`. OPERATIONS lists `op` and the record of `args`. `stamp` is
copied from `go`. If the stamp is out of date, the reply is the error `fenced`, and the child exits at once. A request
without `id` gets no reply. After a report, the child sends a `done` that changes nothing without `id`. A warm worker
sends a report that ends its job in the field `report` of a `done` without `id`.

If the reply to `handled` or `done` is an error, the host committed nothing of the request. The child then drops the
changes and repeats the request once with that error as `fault`. `sys.exit(n)` in user code ends the process with exit
code `n`, without `done` or `handled`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from paglets.api.paglets import NewPaglet
from paglets.codec.envelope import WireMessage
from paglets.core.refs import BlobRef, FileRef, HostRef, ProxyRef
from paglets.worker.requests import Find, HookLimit, NewClone, NewNote, Rest

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
"""The method of the paglet that each entry calls. The entry `message` calls none and only handles messages."""

HOOK_ENTRIES = ("creation", "clone", "arrival", "activation", "dispatching", "disposing")
"""Entries that call a hook. `Paglet.hook_timeout_seconds` limits the time that a hook may take."""

LONG_ENTRIES = ("run", "attempt")
"""Entries that handle messages while their method runs. Each change, except of the state, is committed immediately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """The identity of a run and its paglet. The host rejects requests with an outdated stamp."""

    agent_id: str
    epoch: int
    generation: int
    attempt: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """A message for the paglet. The request `handled` repeats its `message_id`.

    `waited_seconds`: the time since this call was first parked, or 0. The timeout of `wait_state` includes this time.
    """

    message_id: str
    message: WireMessage
    is_call: bool
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoFile:
    """A file that travels with the paglet. `path`: the host's copy of the file, which must not be changed.

    The child copies the file into the scratch directory before any code of the paglet runs, unless an earlier process
    did so. `source_*`: the original file, if it was registered on this host, as in RegisteredFile. If the original
    still exists, the paglet uses it instead of a copy.
    """

    file: FileRef
    path: str
    source_path: str = ""
    source_mtime_ns: int = 0
    source_inode: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoCode:
    """The bundle with the paglet's class. `path`: the bundle's file. `folder`: the cache of unpacked bundles."""

    bundle: BlobRef
    path: str
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """The first frame, with everything that a child needs to start.

    `system`: values that replace the fields of the same names in the state. `came_from`: for the entry `arrival`, the
    name of the previous host; otherwise "". `code_paths`: folders of code on the host. `memory_bytes`: of the request.
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
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A failure of user code. `cause`: a failure cause; in `done` it may also be HOST_FILES_MISSING or DISK_FULL.

    `code`: the code of a PagletsError, else "". `scratch_bytes`: the size of the scratch directory, for DISK_FULL.
    """

    cause: str
    message: str
    traceback: str = ""
    code: str = ""
    scratch_bytes: int = 0


BAD_RESULT = "bad_result"
"""Cause of a failed attempt whose result cannot be encoded. Its scratch directory is kept for KEPT_DAYS."""

KEPT_DAYS = 7
"""Days to keep the scratch directory of an attempt with a bad result. It is removed earlier if disk space is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingPost:
    """A message that the host is to send as a post, without waiting for a reply."""

    target: ProxyRef
    message: WireMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredFile:
    """A file that was registered with `register_file` and published as a blob. `source_*`: the original file."""

    file: FileRef
    source_path: str
    source_mtime_ns: int
    source_inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewArtifact:
    """A new artifact whose blob is published. `artifact_id`: a hash of the token of the run and a count."""

    artifact_id: str
    name: str
    blob: BlobRef
    created_at: float
    expires_in_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Changes by the code of a paglet, to be committed together. `has_state`: True to store `state`."""

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
    """A request of user code to move, dispose of or deactivate the paglet, or to drop an earlier one (`stay`).

    At most one field is set.
    """

    move: HostRef | None = None
    dispose: bool = False
    stay: bool = False
    rest: Rest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """`commit` and `checkpoint`: store changes before the end of the entry or handler."""

    changes: Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`report`: store the outcome of this attempt. Only the first is accepted. The reply is `{"accepted": bool}`.

    `artifact`: the file that is reported with the result. `stored`: the artifacts to which `$stored` tags in the result
    refer. All these artifacts are sent to the collector.
    """

    success: bool
    result: Any = None
    fault: Fault | None = None
    artifact: NewArtifact | None = None
    stored: tuple[NewArtifact, ...] = ()
    changes: Changes = field(default_factory=Changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveSpace:
    """`reserve_space`: reserve disk space for a file with the name `staged`. The reply is `{"folder": PATH}`.

    The reservation lasts ten minutes. `moved`: True if an existing file on the same disk will be renamed to `staged`.
    `problem`: the error of the previous try to write the file.
    """

    staged: str
    size_bytes: int
    moved: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """`publish`: turn the file `staged`, written after `reserve_space`, into a blob. The reply is `{}`.

    The child has hashed and synced the file. The host keeps the blob until the run commits a reference to it or ends,
    and for at least an hour.
    """

    staged: str
    blob: BlobRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactAdd:
    """`artifact_add`: store an artifact of this paglet. The reply is its ArtifactRef."""

    artifact: NewArtifact


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFetch:
    """`artifact_fetch`: copy an artifact to this host. The reply is `{"artifact": ArtifactRef, "path": PATH}`."""

    artifact_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactDelete:
    """`artifact_delete`: delete an artifact of any host. If it does not exist, the reply is the error Unknown."""

    artifact_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOut:
    """`call`: call a paglet. The reply is the return value of the handler, as tagged JSON.

    `target`: its host is only a hint, and its id may be the name of a paglet.
    """

    target: ProxyRef
    message: WireMessage
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Create(NewPaglet):
    """`create`: create a paglet. The reply is its ProxyRef. `nth`: the number of this request in the run."""

    nth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """`submit`: submit a group. `nth`: as in Create. `request`: a SubmitGroup as JSON. The reply is a GroupView."""

    nth: int
    request: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """`resolve_host`: find the host with this name or URL. The reply is its HostRef.

    `resolve_paglet`: find the paglet of this host with this id or name. The reply is its ProxyRef.
    """

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageGet:
    """`storage_get`: read an entry of the paglet's storage. The reply is `{"found": bool, "value": TAGGED_JSON}`."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageScan:
    """`storage_scan`: like `core.context.Storage.scan`. The reply is `{"entries": [[KEY, TAGGED_JSON], ...]}`."""

    prefix: str
    after: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoArguments:
    """No arguments. The reply to `hosts` is `{"hosts": [HostInfo, ...]}`, that to `storage_keys` `{"keys": [...]}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """`handled`: the end of a handler. If `fault` is set, the host drops `changes` and `intent`.

    `parked`: True if the handler waits in `wait_state`. Its changes are committed. The host delivers the call again
    after each later change of the state, and after `wait_seconds` at the latest (None: no limit).
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
    """`done`: the end of the entry.

    If `fault` is set, the host drops `changes` and `intent`. `then_run`: True if the class overrides `run`, which then
    follows `creation`, `clone`, `arrival` or `activation`. `is_default`: True if the class does not override the
    method of this entry. `keep_scratch`: True if the scratch directory has a file that could not be sent. `report`: the
    outcome of the attempt, if it was not reported before. All other fields then have their defaults.
    """

    then_run: bool = False
    is_default: bool = False
    keep_scratch: bool = False
    fault: Fault | None = None
    report: Report | None = None
    changes: Changes = field(default_factory=Changes)
    intent: Intent = field(default_factory=Intent)

    @property
    def is_empty(self) -> bool:
        """Return True if there is nothing to store, once the run has reported its outcome."""
        return self == EntryDone(then_run=self.then_run, is_default=self.is_default)


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
"""The operations that a child may request from its host, with the records of their `args`."""
