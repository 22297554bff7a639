"""What a host and the process of a paglet say to each other: one table, used by both sides.

In frames of `worker.frames`, over a socket pair. Host to child, each an object with one of these keys:

- `{"go": Go}` once, first.
- `{"deliver": Deliver}`: a message to handle. Messages are handled one after the other, each answered by
  a request `handled`; several may be under way. In the entry `message` they are all that the child does, in
  the LONG_ENTRIES they are handled beside the entry, elsewhere they are left alone.
- `{"finish": true}`: the entry `message` ends: the child asks `done` when the messages sent before it are
  handled, and exits. Nothing elsewhere.
- `{"reply": id, "ok": value}` or `{"reply": id, "error": PagletsError.to_wire()}`: to a request of the child.

Child to host: requests, each `{"op", "id", "stamp", "args"}`, with `op` and `args` of OPERATIONS. `stamp` is
the one that came with `go` (agent_id, epoch, generation, attempt, token); a request with a stale stamp is
answered by the error `fenced`, upon which the child exits at once.

An error in the reply to `handled` or `done` means that nothing of it was committed: the child drops the
changes and asks the same once more with that error as `fault`. `sys.exit(n)` in the paglet's code ends the
process with that code and without `done` or `handled`.
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
"""Which method of the paglet an entry calls; `message` only waits for `deliver`."""

HOOK_ENTRIES = ("creation", "clone", "arrival", "activation", "dispatching", "disposing")
"""Entries that call a hook, for which `Paglet.hook_timeout_seconds` counts."""

LONG_ENTRIES = ("run", "attempt")
"""Entries beside which handlers run, and whose deferred operations are committed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Which run of which paglet speaks."""

    agent_id: str
    epoch: int
    generation: int
    attempt: int
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """A message for the paglet. `message_id` comes back in `handled`.

    `waited_seconds`: how long ago this call was first parked (0: never); its `wait_state` counts from there.
    """

    message_id: str
    message: WireMessage
    is_call: bool
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoFile:
    """A file that travels with the paglet: its bytes lie in `path`, a file of the host that is not to be changed.

    The child puts a copy under its name into the scratch directory before any code of the paglet runs, unless one
    is there that it put there before. `source_*`: of a file that was registered on this host, as RegisteredFile
    has them; while it is there, it is the file, and no copy is put anywhere.
    """

    file: FileRef
    path: str
    source_path: str = ""
    source_mtime_ns: int = 0
    source_inode: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoCode:
    """The bundle with the paglet's class, and the folder under which bundles are unpacked, each under its SHA-256."""

    bundle: BlobRef
    path: str
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """All that a child needs to begin. `system` is laid over the state's fields of the same names.

    `came_from` is the name of the host from which a paglet arrived, "" for other entries.
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

    `scratch_bytes`: what the scratch directory had, with DISK_FULL.
    """

    cause: str
    message: str
    traceback: str = ""
    code: str = ""
    scratch_bytes: int = 0


BAD_RESULT = "bad_result"
"""Cause of an attempt whose result cannot travel. Its scratch directory is kept."""

KEPT_DAYS = 7
"""For such a directory, unless all of them take too much of the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingPost:
    target: ProxyRef
    message: WireMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredFile:
    """`register_file`: the bytes are published already. `source_*` say which file they were read from."""

    file: FileRef
    source_path: str
    source_mtime_ns: int
    source_inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewArtifact:
    """A blob that is published already, and what it is to be called. The id is made of the run's token and a count."""

    artifact_id: str
    name: str
    blob: BlobRef
    created_at: float
    expires_in_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What one hook, handler or step changed; committed as one. `has_state` says whether `state` counts."""

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
    """A move, disposal or rest asked for from within, or (`stay`) an earlier one taken back; at most one of them."""

    move: HostRef | None = None
    dispose: bool = False
    stay: bool = False
    rest: Rest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """`commit`, `checkpoint`: changes of a long entry, at once."""

    changes: Changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`report`: the outcome of this attempt, first one wins; replies `{"accepted": bool}`.

    `stored`: the artifacts that the result names with `$stored`. They go to the collector as `artifact` does.
    """

    success: bool
    result: Any = None
    fault: Fault | None = None
    artifact: NewArtifact | None = None
    stored: tuple[NewArtifact, ...] = ()
    changes: Changes = field(default_factory=Changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """`room`: may a file of that size be published? Replies `{"folder": PATH}`: where to write it first, as `staged`.

    It is kept for ten minutes. `moved`: the file is there, to be renamed. `problem`: of the last try to write it.
    """

    staged: str
    size_bytes: int
    moved: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """`publish`: the file `staged` in that folder, hashed and synced by the child, becomes a blob. Replies nothing.

    It is kept until the run has committed something that refers to it, or has ended, and for an hour at least.
    """

    staged: str
    blob: BlobRef


@dataclass(frozen=True, slots=True, kw_only=True)
class AddArtifact:
    """`artifact_add`: an artifact of this paglet; replies its ArtifactRef."""

    artifact: NewArtifact


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchArtifact:
    """`artifact_fetch`: replies `{"artifact": ArtifactRef, "path": PATH}` once the bytes are on this host."""

    artifact_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteArtifact:
    """`artifact_delete`: wherever in the mesh it is; Unknown where it is not."""

    artifact_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOut:
    """`call`: replies the tagged value of the handler. `target.host` is a hint; a name is allowed as id."""

    target: ProxyRef
    message: WireMessage
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Create(NewPaglet):
    """`create`: replies a ProxyRef. `nth` counts creations in this run, so that a repeat is the same thing."""

    nth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """`submit`: `request` is `api.SubmitGroup` as JSON; replies `api.GroupView` as JSON."""

    nth: int
    request: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolve:
    """`resolve_host`: name or URL -> HostRef. `resolve_paglet`: id or name on this host -> ProxyRef."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageGet:
    """`storage_get`: replies `{"found": bool, "value": tagged}`."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageScan:
    """`storage_scan`: as `core.context.Storage.scan`; replies `{"entries": [[key, tagged], ...]}`."""

    prefix: str
    after: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """`hosts` replies `{"hosts": [core.context.HostInfo as JSON]}`; `storage_keys` `{"keys": [...]}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookLimit:
    """`hook_limit`: the hook that begins now is to be ended after `seconds`, as its class says. Replies nothing."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """`handled`: the end of a handler. A fault drops changes and intent.

    `parked`: it waits in `wait_state`; its changes are committed. The call is to be delivered again after
    each later change of the state, and in `wait_seconds` (None: no bound) at the latest.
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
    """`done`: the end of the entry; the child exits 0 after the reply. A fault drops changes and intent.

    `then_run`: the class overrides `run`, so that it is due next (after `creation`, `clone`, `arrival`, `activation`).
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
    "room": Room,
    "publish": Publish,
    "artifact_add": AddArtifact,
    "artifact_fetch": FetchArtifact,
    "artifact_delete": DeleteArtifact,
    "call": CallOut,
    "create": Create,
    "submit": Submit,
    "hosts": Nothing,
    "resolve_host": Resolve,
    "resolve_paglet": Resolve,
    "find": Find,
    "storage_get": StorageGet,
    "storage_keys": Nothing,
    "storage_scan": StorageScan,
    "hook_limit": HookLimit,
    "handled": Handled,
    "done": EntryDone,
}
"""What a child may ask, and the record of its `args`. All are answered by one `reply` frame
`{"reply": id, "ok": value}` or `{"reply": id, "error": PagletsError.to_wire()}`."""
