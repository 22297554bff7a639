"""Upload, download and deletion of artifacts by the process of a paglet."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from paglets.client.destination import check_replaceable, destination_for, is_downloaded, make_durable, put_in_place
from paglets.core.content import copy_hashed
from paglets.core.errors import FileChanged, Invalid, Unknown
from paglets.core.messages import Message
from paglets.core.record import from_json
from paglets.core.refs import ArtifactRef, BlobRef, ProxyRef, check_artifact_id, check_file_name, check_lifetime
from paglets.core.text import printable
from paglets.worker.child.publishing import BlobPublisher, Publication, absolute
from paglets.worker.child.storage import Request
from paglets.worker.protocol import ArtifactAdd, ArtifactDelete, ArtifactFetch, NewArtifact


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingArtifact:
    """A published file for another paglet, which owns the artifact `ref` once the message is committed."""

    publication: Publication
    ref: ArtifactRef

    @property
    def new(self) -> NewArtifact:
        return NewArtifact(
            artifact_id=self.ref.artifact_id,
            name=self.ref.name,
            blob=self.ref.blob,
            created_at=self.ref.created_at,
        )


class ChildArtifacts:
    """The artifact operations of one run. `token`: the token of the run. `wall`: returns the Unix time."""

    def __init__(self, token: str, request: Request, publisher: BlobPublisher, wall: Callable[[], float]) -> None:
        self._token = token
        self._request = request
        self._publisher = publisher
        self._wall = wall
        self._numbers = itertools.count(1)

    def upload(self, path: str | Path, name: str | None, move: bool, expires_in_seconds: float | None) -> ArtifactRef:
        source = absolute(path)
        name = check_file_name(source.name if name is None else name)
        check_lifetime(expires_in_seconds)
        publication = self._publisher.publish(source, move)
        artifact = NewArtifact(
            artifact_id=self._new_id(),
            name=name,
            blob=publication.blob,
            created_at=self._wall(),
            expires_in_seconds=expires_in_seconds,
        )
        try:
            ref = from_json(ArtifactRef, self._request("artifact_add", ArtifactAdd(artifact=artifact)))
        except BaseException:
            publication.rollback()
            raise
        publication.commit()
        return ref

    def download(self, artifact: ArtifactRef | str, target: str | Path, move: bool, replace: bool = False) -> Path:
        # Check the target before the download: `absolute` raises Invalid if it is not a path.
        absolute(target)
        if isinstance(artifact, ArtifactRef) and not replace:
            # Look for the file first: a handler may run twice, and may have deleted the artifact after its download.
            place = absolute(destination_for(target, artifact.name))
            if is_downloaded(place, artifact.blob):
                return self._fetched(artifact, place, move)
        answer = self._request("artifact_fetch", ArtifactFetch(artifact_id=_id_of(artifact)))
        ref = from_json(ArtifactRef, answer["artifact"])
        place = absolute(destination_for(target, ref.name))
        if replace:
            check_replaceable(place)
        if replace or not is_downloaded(place, ref.blob):
            self._write(ref, Path(answer["path"]), place, replace)
        return self._fetched(ref, place, move)

    def _fetched(self, artifact: ArtifactRef, place: Path, move: bool) -> Path:
        if move:
            make_durable(place)
            # Another process may have deleted the artifact already.
            with suppress(Unknown):
                self.delete(artifact)
        return place

    def delete(self, artifact: ArtifactRef | str) -> None:
        self._request("artifact_delete", ArtifactDelete(artifact_id=_id_of(artifact)))

    def outgoing(self, target: ProxyRef, path: str | Path, name: str | None, move: bool) -> OutgoingArtifact:
        """Publish a file as a new artifact for the paglet `target`. The artifact must then be sent in a message."""
        source = absolute(path)
        name = check_file_name(source.name if name is None else name)
        publication = self._publisher.publish(source, move)
        return OutgoingArtifact(publication=publication, ref=self._ref(target, name, publication.blob))

    def stored(self, data: bytes, name: str) -> NewArtifact:
        """Publish `data`, the JSON of a large value, as a new artifact."""
        blob = self._publisher.publish_bytes(data)
        return NewArtifact(artifact_id=self._new_id(), name=name, blob=blob, created_at=self._wall())

    def forwarded(self, target: ProxyRef, message: Message) -> tuple[ArtifactRef, ...]:
        """Return refs for the artifacts of a message, with new ids and with `target` as their owner."""
        host = target.host.name
        return tuple(
            replace(each, artifact_id=self._new_id(), owner=target.agent_id, host_name=host)
            for each in message.artifacts
        )

    def _ref(self, target: ProxyRef, name: str, blob: BlobRef) -> ArtifactRef:
        return ArtifactRef(
            artifact_id=self._new_id(),
            name=name,
            size_bytes=blob.size_bytes,
            sha256=blob.sha256,
            host_name=target.host.name,
            owner=target.agent_id,
            created_at=self._wall(),
        )

    def _new_id(self) -> str:
        """Return a new artifact id. It is a hash of the run's token and a count, because the token is secret."""
        return "art-" + hashlib.sha256(f"{self._token} {next(self._numbers)}".encode()).hexdigest()[:32]

    def _write(self, ref: ArtifactRef, blob_path: Path, place: Path, replace: bool) -> None:
        """Write the artifact's bytes to the file `place`. After an error, `place` is unchanged."""
        # The id is new, so no file of this name exists.
        part = place.with_name(f".{self._new_id()}.part")
        try:
            if copy_hashed(blob_path, part) != ref.blob:
                raise FileChanged(f"the artifact {ref.artifact_id} is damaged on this host")
            put_in_place(part, place, replace=replace)
        except OSError as error:
            raise Invalid(f"{printable(place)} cannot be written: {error.strerror or error}") from error
        finally:
            with suppress(OSError):
                os.unlink(part)


def _id_of(artifact: ArtifactRef | str) -> str:
    return check_artifact_id(artifact if isinstance(artifact, str) else artifact.artifact_id)
