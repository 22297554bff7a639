"""Records of the routes about bytes: blobs and artifacts."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.refs import ArtifactRef, HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class AskBlobs:
    """`POST /v1/blobs/state`: which of these has the host? What it has is kept for an hour at least.

    `check`: it got wrong bytes who asks; the host is to compare all of them with their names.
    """

    sha256s: tuple[str, ...]
    check: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobState:
    """`PUT /v1/blobs/SHA256?offset=N&size=TOTAL` replies this, too.

    `offset`: how many bytes, from the beginning, are confirmed; the next piece begins there. `complete`: all are
    there, hashed and safe on the disk.
    """

    sha256: str
    offset: int
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobStates:
    """One for each blob asked for, in order."""

    blobs: tuple[BlobState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddArtifact:
    """`POST /v1/artifacts`: a blob that is here becomes an artifact. The same id again changes nothing.

    `owner`: the id of a paglet here, with which it moves and ends; "": the host's own, kept until it is deleted.
    Replies its ArtifactRef.
    """

    artifact_id: str
    name: str
    sha256: str
    size_bytes: int
    owner: str = ""
    expires_in_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactView:
    """`GET /v1/artifacts/ID`: an artifact, and the host whose blobs have its bytes."""

    artifact: ArtifactRef
    host: HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """`GET /v1/artifacts?owner=ID&group=ID&after=ID&limit=N`: a page; `next` is the `after` of the next one, or null.

    `owner`: those of that paglet; `group`: files of that group's finished jobs that no hook took; both: either.
    """

    artifacts: tuple[ArtifactRef, ...]
    next: str | None = None
