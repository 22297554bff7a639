"""Upload, send, download, list and delete artifacts. `HostClient` has the public methods and their documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace as replace_fields
from pathlib import Path

from paglets.api.blobs import AddArtifact, Artifacts, ArtifactView
from paglets.api.calls import PostMessage
from paglets.api.paglets import Done
from paglets.client.destination import destination_for, is_downloaded, make_durable
from paglets.client.download import Download, artifact_route, find_artifact, listed_host
from paglets.client.mesh_client import MeshClient, quoted
from paglets.client.messages import Target, resolve
from paglets.client.pacing import READING, Progress, no_progress
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
"""Maximum number of pages from one host, in case a faulty host sends a list without end."""

SEND_ATTEMPTS = 3
"""Maximum number of uploads of the same bytes. A host that still lacks them is faulty.

A working host keeps new bytes for an hour.
"""


class ArtifactTransfers:
    """Transfers of artifacts to and from the hosts of a mesh.

    `timeout`: seconds until a single request fails. A transfer fails after this time without progress.
    """

    def __init__(self, mesh: MeshClient, timeout: float) -> None:
        self._mesh = mesh
        self._timeout = timeout
        self._uploader = BlobUploader(mesh, timeout)

    def publish_bytes(self, data: bytes) -> BlobRef:
        return self._uploader.publish(BytesSource(data))

    def publish_file(self, path: str | Path, progress: Progress = no_progress) -> BlobRef:
        with FileSource(Path(path), progress) as source:
            return self._uploader.publish(source, progress=progress)

    def missing(self, blobs: Iterable[BlobRef]) -> tuple[BlobRef, ...]:
        return self._uploader.missing(blobs)

    # The methods below upload files.

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
        target = resolve(self._mesh, to, self._timeout)
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
        self, source: UploadSource, progress: Progress, store: Callable[[], ArtifactRef | HostRef]
    ) -> ArtifactRef:
        """Call `store` until it returns an artifact. If it returns a host, that host lacks the bytes: send them.

        Raises Conflict after SEND_ATTEMPTS calls.
        """
        for _ in range(SEND_ATTEMPTS):
            stored = store()
            if isinstance(stored, ArtifactRef):
                return stored
            self._uploader.publish(source, stored, progress)
        raise Conflict(
            f"host {stored.name} lost the uploaded bytes {SEND_ATTEMPTS} times",
            hint=["look for disk errors on that machine, or use another host"],
        )

    def _add(self, wanted: AddArtifact, owner: ProxyRef | str | None) -> ArtifactRef | HostRef:
        """Add the artifact and return it. If the host lacks the bytes, return the host instead."""
        if owner is None:
            return self._add_at(self._mesh.host(), wanted, self._timeout)
        return self._mesh.follow(owner, lambda host, left: self._add_at(host, wanted, left), self._timeout)

    def _add_at(self, host: HostRef, wanted: AddArtifact, timeout: float) -> ArtifactRef | HostRef:
        try:
            return self._mesh.ask("POST", "/v1/artifacts", wanted, ArtifactRef, host=host, timeout=timeout)
        except CallOutcomeUnknown as error:
            # A retry is safe, also on another host, because it has the same artifact id.
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

    # The methods below download artifacts.

    def download(
        self, artifact: ArtifactRef | str, target: str | Path, *, move: bool, replace: bool, progress: Progress
    ) -> Path:
        ref = artifact if isinstance(artifact, ArtifactRef) else self.find(artifact).artifact
        blob = check_blob(ref.blob)
        place = destination_for(target, ref.name)
        # An earlier attempt may have downloaded the file and deleted the artifact, so check the file first.
        if not replace and is_downloaded(place, blob, lambda done: progress(READING, done, blob.size_bytes)):
            if move:
                make_durable(place)
        else:
            Download(self._mesh, self._view_of(ref), self._timeout, progress).into(place, replace=replace)
        if move:
            self._delete(ref.artifact_id)
        return place

    def _view_of(self, ref: ArtifactRef) -> ArtifactView:
        """Return the artifact with its current host. Raises Conflict if its bytes are not those of `ref`."""
        view = self.find(ref)
        if view.artifact.blob != ref.blob:
            text = f"artifact {ref.artifact_id} has other bytes than the reference says"
            raise Conflict(text, hint=["list artifacts again"])
        return replace_fields(view, host=listed_host(self._mesh, view))

    # The methods below find, list and delete artifacts.

    def find(self, artifact: ArtifactRef | str) -> ArtifactView:
        return find_artifact(self._mesh, _artifact_id(artifact), self._timeout)

    def listed(self, host: HostRef, owner: str | None, group_id: str = "") -> tuple[ArtifactRef, ...]:
        """Return the artifacts on that host. `owner`: only those of this paglet. `group_id`: only files of its jobs.

        With both, return artifacts that match one of them. Raises BadRequest after MOST_PAGES pages.
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
        raise BadRequest(f"the host's list of artifacts has no end ({len(found):,} so far); the host is faulty")

    def delete(self, artifact: ArtifactRef | str) -> None:
        self._delete(self.find(artifact).artifact.artifact_id)

    def _delete(self, artifact_id: str) -> None:
        """Delete an artifact that the caller has just found."""
        # Unknown means that an earlier request, whose reply was lost, has deleted the artifact.
        with suppress(Unknown):
            self._mesh.ask("DELETE", artifact_route(artifact_id), None, Done, timeout=self._timeout)


def once_each(found: tuple[tuple[ArtifactRef, ...], ...]) -> tuple[ArtifactRef, ...]:
    """Return each artifact once, sorted by id. Two hosts may list an artifact that moves between them."""
    by_id = {artifact.artifact_id: artifact for artifacts in found for artifact in artifacts}
    return tuple(by_id[artifact_id] for artifact_id in sorted(by_id))


def _name(path: str | Path, name: str | None) -> str:
    """Return `name`, or the file name of `path` if it is None. Raises Invalid for a bad name or a missing file."""
    stat_of(Path(path))
    if name is not None:
        return check_file_name(name)
    try:
        return check_file_name(Path(path).name)
    except Invalid as error:
        raise Invalid(error.message, hint=["give the artifact another name (--name, or name=...)"]) from None


def _check_owner(owner: ProxyRef | str | None) -> None:
    if _id_of(owner):
        check_agent_id(_id_of(owner))


def _artifact_id(artifact: ArtifactRef | str) -> str:
    return check_artifact_id(artifact if isinstance(artifact, str) else artifact.artifact_id)


def _id_of(owner: ProxyRef | str | None) -> str:
    if owner is None:
        return ""
    return owner if isinstance(owner, str) else owner.agent_id
