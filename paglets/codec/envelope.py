"""The envelope of a paglet: all data that a host needs to store, schedule and move a paglet without its class.

Values of user code (`state`, message arguments, results) are trees of tagged JSON (`paglets.codec.tagged_json`). The
host forwards these trees without decoding them. It decodes only the state of a collector that runs inside the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.core.errors import Invalid
from paglets.core.messages import check_priority
from paglets.core.refs import (
    MAX_LIFETIME_SECONDS,
    ArtifactRef,
    BlobRef,
    FileRef,
    HostRef,
    Kind,
    ProxyRef,
    check_agent_id,
    check_artifact_id,
    check_blob,
    check_file_name,
    check_lifetime,
)

MAX_COUNT = 1 << 40
"""Limit of epochs, generations and attempts: never reached in practice, and far below SQLite's largest integer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireMessage:
    """A message to a paglet. `args`: the arguments, each as tagged JSON. `artifacts`: files for the receiver.

    A host accepts a post only if it has all blobs of the artifacts.
    """

    kind: str
    args: dict[str, Any]
    sender: ProxyRef | None = None
    artifacts: tuple[ArtifactRef, ...] = ()
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A message that is stored until it is delivered. (`sender_store`, `n`) identifies it permanently."""

    sender_store: str
    n: int
    agent_id: str
    message: WireMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxPost:
    """A post that a paglet has accepted and not handled. `dead`: it is not retried, because it failed too often."""

    post: Post
    dead: bool = False
    tries: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenPosts:
    """The posts of one sender that the paglet has accepted: those with an `n` below `settled_below` or in `ids`."""

    sender_store: str
    settled_below: int
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPart:
    """The fields that a compute job has in addition to those of a paglet.

    `request`: a `slots.model.SlotRequest` as JSON. `disk_fulls`: the number of attempts that failed because the disk of
    their host was full.
    """

    group_id: str | None
    job_key: str
    collector: ProxyRef | None
    generation: int
    attempt: int
    status: str
    request: dict[str, Any]
    submitted_state: Any
    checkpoint: Any = None
    failed_attempts: int = 0
    losses: int = 0
    disk_fulls: int = 0
    waited_seconds: float = 0.0
    stolen: bool = False
    outcome: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedArtifact:
    """An artifact that moves with its owner. Its lifetime is relative, because the clocks of two hosts may differ."""

    artifact_id: str
    name: str
    sha256: str
    size_bytes: int
    created_at: float
    expires_in_seconds: float | None = None

    @property
    def blob(self) -> BlobRef:
        return BlobRef(sha256=self.sha256, size_bytes=self.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A paglet in serialised form for a hand-off. `epoch`: the epoch of the paglet on the target host.

    `hook`: the entry to run first, such as `arrival`. `service`: the service that the paglet offers; "" for none.
    `inactive`: the paglet is inactive until a message arrives, or for `wakes_in_seconds`. `launcher_deaths`: how many
    times in a row the zygote died while code of the paglet ran.
    """

    agent_id: str
    epoch: int
    class_name: str
    kind: Kind
    state: Any
    home: HostRef
    created_at: float
    name: str | None = None
    hook: str | None = None
    storage: dict[str, Any]
    inbox: tuple[InboxPost, ...] = ()
    taken: tuple[TakenPosts, ...] = ()
    job: JobPart | None = None
    bundle: BlobRef | None = None
    files: tuple[FileRef, ...] = ()
    artifacts: tuple[CarriedArtifact, ...] = ()
    service: str = ""
    inactive: bool = False
    wakes_in_seconds: float | None = None
    launcher_deaths: int = 0

    def blobs(self) -> tuple[BlobRef, ...]:
        """Return the blobs that a host must have before it accepts the paglet, each once."""
        own = () if self.bundle is None else (self.bundle,)
        return tuple(dict.fromkeys((*own, *(f.blob for f in self.files), *(a.blob for a in self.artifacts))))


def check_envelope(envelope: Envelope) -> Envelope:
    """Return `envelope` if its ids, names and numbers are valid. Raises Invalid otherwise.

    The check protects the host: for example, the id of the paglet becomes the name of a directory.
    """
    check_agent_id(envelope.agent_id)
    check_count("epoch", envelope.epoch, least=1)
    check_count("launcher_deaths", envelope.launcher_deaths, least=0)
    job = envelope.job
    if (job is not None) != (envelope.kind == "job"):
        raise Invalid(f"an envelope of kind {envelope.kind!r} {'lacks' if job is None else 'has'} the fields of a job")
    if job is not None:
        check_count("generation", job.generation, least=1)
        for name in ("attempt", "failed_attempts", "losses", "disk_fulls"):
            check_count(name, getattr(job, name), least=0)
        if job.status in ("ASSIGNED", "RUNNING"):
            raise Invalid("a running job cannot move")
    if envelope.wakes_in_seconds is not None:
        check_seconds(envelope.wakes_in_seconds, is_left=True)
    for waiting in envelope.inbox:
        check_priority(waiting.post.message.priority)
    for blob in envelope.blobs():
        check_blob(blob)
    for file in envelope.files:
        check_file(file)
    for artifact in envelope.artifacts:
        check_artifact_id(artifact.artifact_id)
        check_file_name(artifact.name)
        check_lifetime(artifact.expires_in_seconds, is_left=True)
    return envelope


def check_file(file: FileRef) -> FileRef:
    """Return `file` if its name, blob and mode are valid. Raises Invalid otherwise."""
    check_file_name(file.name)
    check_blob(file.blob)
    if file.mode not in ("copy", "move"):
        raise Invalid(f"mode is {file.mode[:20]!r}: it must be 'copy' or 'move'")
    check_count("attempt", file.attempt, least=0)
    return file


def check_message(message: WireMessage) -> WireMessage:
    """Return `message` if its priority and artifacts are valid. Raises Invalid otherwise."""
    check_priority(message.priority)
    for artifact in message.artifacts:
        check_artifact_id(artifact.artifact_id)
        check_file_name(artifact.name)
        check_blob(artifact.blob)
        lasts = None if artifact.expires_at is None else artifact.expires_at - artifact.created_at
        check_lifetime(lasts, is_left=True)
    return message


def check_seconds(seconds: float, *, is_left: bool = False) -> float:
    """Return `seconds` if a paglet may be inactive for that time. Raises Invalid otherwise.

    `is_left`: `seconds` is the remaining time of an earlier request, and may be 0.
    """
    if not (0 <= seconds <= MAX_LIFETIME_SECONDS * (2 if is_left else 1) and (seconds or is_left)):
        raise Invalid(f"seconds is {seconds!r:.40}: it must be more than 0 and at most {MAX_LIFETIME_SECONDS:.0f}")
    return seconds


def check_count(name: str, count: int, *, least: int) -> int:
    """Return `count` if it is from `least` to MAX_COUNT. Raises Invalid, which names `name`, otherwise."""
    if not least <= count <= MAX_COUNT:
        raise Invalid(f"{name} is {count}: it must be from {least} to {MAX_COUNT}")
    return count
