"""Requests and replies of the routes for bytes: blobs and artifacts."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.refs import ArtifactRef, HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class AskBlobs:
    """A request for the states of blobs: `POST /v1/blobs/state`. For an hour, the host does not delete these blobs.

    `check`: compare the blobs with their hashes, because the sender received wrong bytes.
    """

    sha256s: tuple[str, ...]
    check: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobState:
    """The state of a blob on a host, also the reply to `PUT /v1/blobs/SHA256?offset=N&size=TOTAL`.

    `offset`: the number of bytes received so far, at which the next piece begins. `complete`: all bytes are received,
    match the hash and are synced to the disk.
    """

    sha256: str
    offset: int
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobStates:
    """The state of each requested blob, in the same order."""

    blobs: tuple[BlobState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddArtifact:
    """A request to create an artifact from a blob on the receiver: `POST /v1/artifacts`. The reply is its ArtifactRef.

    A second request with the same `artifact_id` changes nothing. `owner`: the id of a paglet on the receiver; the
    artifact moves and is deleted with it. With "", the host owns the artifact and keeps it until it is deleted.
    """

    artifact_id: str
    name: str
    sha256: str
    size_bytes: int
    owner: str = ""
    expires_in_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactView:
    """An artifact, and the host that has its bytes: `GET /v1/artifacts/ID`."""

    artifact: ArtifactRef
    host: HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """A page of artifacts: `GET /v1/artifacts?owner=ID&group=ID&after=ID&limit=N`.

    Query: `owner` selects artifacts of that paglet, `group` selects files of the group's finished jobs that no hook has
    collected. With both, the page has artifacts that match one of them. `next`: the `after` of the next page, or null.
    """

    artifacts: tuple[ArtifactRef, ...]
    next: str | None = None
