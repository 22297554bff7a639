"""Artifacts through one link: sent, fetched, listed, deleted. The methods of `HostClient` say what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace as replace_fields
from pathlib import Path

from paglets.api.blobs import AddArtifact, Artifacts, ArtifactView
from paglets.api.calls import PostMessage
from paglets.api.paglets import Done
from paglets.client.destination import destination_for, is_downloaded, make_durable
from paglets.client.download import Download, artifact_route, find_artifact, listed_host
from paglets.client.mesh_client import MeshClient, quoted
from paglets.client.pacing import READING, Progress, no_progress
from paglets.client.targets import Target, addressee
from paglets.client.upload import BlobUploader, BytesSource, FileSource, UploadSource
from paglets.codec.envelope import WireMessage
from paglets.core.content import stat_of
from paglets.core.errors import BadRequest, CallOutcomeUnknown, Conflict, Invalid, Unknown, Unreachable
from paglets.core.refs import (
    ArtifactRef,
    BlobRef,
    HostRef,
    ProxyRef,
    check_agent_id,
    check_artifact_id,
    check_blob,
    check_file_name,
    check_lifetime,
)

PAGE_ARTIFACTS = 1000
MOST_PAGES = 1000
"""A million artifacts; a host that goes on is at fault, and shall not fill our memory."""
TRIES_TO_SEND = 3
"""Bytes that were just sent are kept for an hour: that they are missing again and again is a fault."""


class ArtifactTransfers:
    """`timeout`: seconds without progress after which a transfer is given up, and bound of everything else."""

    def __init__(self, mesh: MeshClient, timeout: float) -> None:
        self._mesh = mesh
        self._timeout = timeout
        self._publisher = BlobUploader(mesh, timeout)

    def publish_bytes(self, data: bytes) -> BlobRef:
        return self._publisher.publish(BytesSource(data))

    def publish_file(self, path: str | Path, progress: Progress = no_progress) -> BlobRef:
        with FileSource(Path(path), progress) as source:
            return self._publisher.publish(source, progress=progress)

    def missing(self, blobs: Iterable[BlobRef]) -> tuple[BlobRef, ...]:
        return self._publisher.missing(blobs)

    # Sending.

    def upload(
        self,
        path: str | Path,
        *,
        name: str | None,
        owner: ProxyRef | str | None,
        expires_in_seconds: float | None,
        move: bool,
        progress: Progress,
    ) -> ArtifactRef:
        artifact_name = _name(path, name)
        check_lifetime(expires_in_seconds)
        _check_owner(owner)
        with FileSource(Path(path), progress) as source:
            wanted = AddArtifact(
                artifact_id=self._new_id(),
                name=artifact_name,
                sha256=source.blob.sha256,
                size_bytes=source.blob.size_bytes,
                owner=_id_of(owner),
                expires_in_seconds=expires_in_seconds,
            )
            made = self._with_bytes(source, progress, lambda: self._add(wanted, owner))
            if move:
                source.remove(made.artifact_id)
            return made

    def send(self, to: Target, path: str | Path, message: WireMessage, *, name: str | None, move: bool) -> ArtifactRef:
        artifact_name = _name(path, name)
        target = addressee(self._mesh, to, self._timeout)
        with FileSource(Path(path)) as source:
            artifact = ArtifactRef(
                artifact_id=self._new_id(),
                name=artifact_name,
                size_bytes=source.blob.size_bytes,
                sha256=source.blob.sha256,
                host_name=self._mesh.host().name,
                owner=target.agent_id,
                created_at=self._mesh.clock.wall(),
            )
            carrying = replace_fields(message, artifacts=(*message.artifacts, artifact))
            post = PostMessage(target=target, message=carrying, token=self._mesh.entropy.token())
            self._with_bytes(source, no_progress, lambda: self._post(post))
            if move:
                source.remove(artifact.artifact_id)
            return artifact

    def _with_bytes(
        self, source: UploadSource, progress: Progress, tell: Callable[[], ArtifactRef | HostRef]
    ) -> ArtifactRef:
        """What `tell` gives; before that the bytes go to each host of which it says that they are missing there."""
        for _ in range(TRIES_TO_SEND):
            told = tell()
            if isinstance(told, ArtifactRef):
                return told
            self._publisher.publish(source, told, progress)
        raise Conflict(f"{told.name} does not keep the bytes that it was sent")

    def _add(self, wanted: AddArtifact, owner: ProxyRef | str | None) -> ArtifactRef | HostRef:
        """The artifact; or the host which must have the bytes first."""
        if owner is None:
            return self._add_at(self._mesh.host(), wanted, self._timeout)
        return self._mesh.pursue(owner, lambda host, left: self._add_at(host, wanted, left), self._timeout)

    def _add_at(self, host: HostRef, wanted: AddArtifact, timeout: float) -> ArtifactRef | HostRef:
        try:
            return self._mesh.ask("POST", "/v1/artifacts", wanted, ArtifactRef, host=host, timeout=timeout)
        except CallOutcomeUnknown as error:  # by its id it may be added again, there or where its owner went
            raise Unreachable(error.message) from error
        except Conflict as error:
            if "missing" in error.details:
                return host
            raise

    def _post(self, post: PostMessage) -> ArtifactRef | HostRef:
        try:
            self._mesh.ask("POST", "/v1/outbox", post, Done, timeout=self._timeout)
        except Conflict as error:
            if "missing" in error.details:
                return self._mesh.host()
            raise
        return post.message.artifacts[-1]

    def _new_id(self) -> str:
        return f"art-{self._mesh.entropy.token()}"

    # Fetching.

    def download(
        self, artifact: ArtifactRef | str, target: str | Path, *, move: bool, replace: bool, progress: Progress
    ) -> Path:
        ref = artifact if isinstance(artifact, ArtifactRef) else self.find(artifact).artifact
        blob = check_blob(ref.blob)
        place = destination_for(target, ref.name)
        # An earlier try may have done it, and deleted the artifact: so this is looked at first.
        if not replace and is_downloaded(place, blob, lambda done: progress(READING, done, blob.size_bytes)):
            if move:
                make_durable(place)
        else:
            Download(self._mesh, self._view_of(ref), self._timeout, progress).into(place, replace=replace)
        if move:
            self._delete(ref.artifact_id)
        return place

    def _view_of(self, ref: ArtifactRef) -> ArtifactView:
        """Where its bytes are."""
        view = self.find(ref)
        if view.artifact.blob != ref.blob:
            raise Conflict(f"{ref.artifact_id} is not what the ref says: it has other bytes")
        return replace_fields(view, host=listed_host(self._mesh, view))

    # What there is.

    def find(self, artifact: ArtifactRef | str) -> ArtifactView:
        return find_artifact(self._mesh, _artifact_id(artifact), self._timeout)

    def listed(self, host: HostRef, owner: str | None, group_id: str = "") -> tuple[ArtifactRef, ...]:
        """All artifacts on that host, or those of one owner, and files of one group's finished jobs, there.

        Raises BadRequest where they have no end.
        """
        filtered = "" if owner is None else f"&owner={quoted(owner)}"
        filtered += f"&group={quoted(group_id)}" if group_id else ""
        found: list[ArtifactRef] = []
        after = ""
        for _ in range(MOST_PAGES):
            route = f"/v1/artifacts?after={quoted(after)}&limit={PAGE_ARTIFACTS}{filtered}"
            page = self._mesh.ask("GET", route, None, Artifacts, host=host, timeout=self._timeout)
            found.extend(page.artifacts)
            if not (page.artifacts and page.next and page.next > after):
                return tuple(found)
            after = page.next
        raise BadRequest(f"it lists artifacts without an end, {len(found):,} so far: that host is at fault")

    def delete(self, artifact: ArtifactRef | str) -> None:
        self._delete(self.find(artifact).artifact.artifact_id)

    def _delete(self, artifact_id: str) -> None:
        """One that was there a moment ago: not to be found means that it is done, perhaps by a request whose reply
        was lost."""
        try:
            self._mesh.ask("DELETE", artifact_route(artifact_id), None, Done, timeout=self._timeout)
        except Unknown:
            return


def once_each(found: tuple[tuple[ArtifactRef, ...], ...]) -> tuple[ArtifactRef, ...]:
    """By id; one that moves just now may be listed by two hosts."""
    by_id = {artifact.artifact_id: artifact for artifacts in found for artifact in artifacts}
    return tuple(by_id[artifact_id] for artifact_id in sorted(by_id))


def _name(path: str | Path, name: str | None) -> str:
    """Of the artifact that the file at `path` becomes. Raises Invalid, also where there is no such file."""
    stat_of(Path(path))
    if name is not None:
        return check_file_name(name)
    try:
        return check_file_name(Path(path).name)
    except Invalid as error:
        raise Invalid(f"{error.message}; give the artifact a name of its own (--name, or name=...)") from None


def _check_owner(owner: ProxyRef | str | None) -> None:
    if _id_of(owner):
        check_agent_id(_id_of(owner))


def _artifact_id(artifact: ArtifactRef | str) -> str:
    return check_artifact_id(artifact if isinstance(artifact, str) else artifact.artifact_id)


def _id_of(owner: ProxyRef | str | None) -> str:
    if owner is None:
        return ""
    return owner if isinstance(owner, str) else owner.agent_id
