"""Downloads of artifacts and blobs, piece by piece, from the host that stores them."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from paglets.api.blobs import ArtifactView, AskBlobs, BlobStates
from paglets.api.limits import MAX_PIECE_BYTES
from paglets.client.mesh_client import MeshClient, quoted
from paglets.client.pacing import READING, RECEIVING, ChunkSizer, Progress, RetryBudget
from paglets.client.partial_file import PartialFile, partial_file
from paglets.core.errors import Conflict, FileChanged, PagletsError, TooLarge, Unreachable
from paglets.core.refs import BlobRef, HostRef, check_blob

MAX_READ_BYTES = 80 << 20
"""The maximum size of a blob that is read into memory, such as a bundle."""


class Download:
    """A download of one artifact to one file. It fails after `timeout` seconds without progress."""

    def __init__(self, mesh: MeshClient, view: ArtifactView, timeout: float, progress: Progress) -> None:
        self._mesh = mesh
        self._artifact = view.artifact
        self._host: HostRef | None = view.host
        self._timeout = timeout
        self._progress = progress

    def into(self, target: Path, *, replace: bool) -> None:
        """Download the artifact to `target`. The file appears in one step, when it is complete and synced to the disk.

        If an earlier attempt left a partial file, resume it. Raises NoRoom, Invalid, Conflict, FileChanged.
        """
        blob = self._artifact.blob
        with partial_file(target, blob) as part:
            part.resume(lambda done: self._progress(READING, done, blob.size_bytes))
            try:
                self._receive_and_check(part, blob)
            except PagletsError as error:
                if not _may_be_elsewhere(error):
                    raise
                kept = f"{part.offset:,} of {blob.size_bytes:,} bytes are kept; the next attempt resumes there"
                raise type(error)(f"{error.message}; {kept}", **error.details) from None
            if not part.is_right():
                part.remove()
                self._request_check(blob)
                raise FileChanged(
                    f"the bytes of {self._artifact.artifact_id} do not match its hash; nothing was kept",
                    hint=[f"the disk of {self._artifact.host_name} may be damaged"],
                )
            part.finish(replace=replace)

    def _request_check(self, blob: BlobRef) -> None:
        """Ask the host to check its copy of the blob, and to delete a damaged copy so that it can be uploaded again."""
        if self._host is not None:
            asked = AskBlobs(sha256s=(blob.sha256,), check=True)
            with suppress(PagletsError):
                self._mesh.ask("POST", "/v1/blobs/state", asked, BlobStates, host=self._host, timeout=self._timeout)

    def _receive_and_check(self, part: PartialFile, blob: BlobRef) -> None:
        """Receive the blob. If a resumed file does not match its hash, receive it again from the start."""
        resumed = part.offset > 0
        self._receive(part, blob)
        if not part.is_right() and resumed:
            part.restart()
            self._receive(part, blob)

    def _receive(self, part: PartialFile, blob: BlobRef) -> None:
        """Receive the remaining bytes of the blob.

        While this thread requests a piece, a second one hashes and writes the previous piece, and a third one syncs.
        """
        pace = ChunkSizer(self._mesh.clock)
        patience = RetryBudget(self._mesh.clock, self._mesh.pause, self._timeout)
        offset = part.offset
        writing: Future[None] | None = None
        cut: PagletsError | None = None
        syncing: Future[None] | None = None
        with (
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="sync") as disk,
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="download") as writer,
        ):
            while offset < blob.size_bytes:
                self._progress(RECEIVING, offset, blob.size_bytes)
                length = min(pace.piece_bytes, blob.size_bytes - offset)
                pace.begin()
                try:
                    piece = self._piece(blob, offset, length, patience.left())
                except PagletsError as error:
                    if not _may_be_elsewhere(error):
                        raise
                    # Report that the host was unreachable rather than that no other host has the artifact.
                    cut = error if error.retryable else cut
                    patience.wait(cut or error)
                    pace.failed()
                    self._host = None
                    continue
                pace.done()
                patience.progressed()
                cut = None
                if writing is not None:
                    writing.result()
                    if syncing is None or syncing.done():
                        syncing = disk.submit(part.sync)
                writing = writer.submit(part.append, piece)
                offset += len(piece)
            if writing is not None:
                writing.result()
        self._progress(RECEIVING, blob.size_bytes, blob.size_bytes)

    def _piece(self, blob: BlobRef, offset: int, length: int, timeout: float) -> bytes:
        host = self._host or self._look_up(timeout)
        piece = self._mesh.fetch(host, f"/v1/blobs/{blob.sha256}?offset={offset}&length={length}", timeout)
        if not 0 < len(piece) <= length:
            raise Conflict(f"{host.name} sent {len(piece):,} bytes of blob {blob.sha256[:8]} instead of {length:,}")
        return piece

    def _look_up(self, timeout: float) -> HostRef:
        """Look up the current host of the artifact, and return it with the address that the mesh lists."""
        view = find_artifact(self._mesh, self._artifact.artifact_id, timeout)
        if view.artifact.sha256 != self._artifact.sha256:
            text = f"the bytes of artifact {view.artifact.artifact_id} changed"
            raise Conflict(text, hint=["start the download again"])
        self._host = listed_host(self._mesh, view)
        return self._host


def _may_be_elsewhere(error: PagletsError) -> bool:
    """Return True if a retry may get the piece, from this host or another.

    The artifact existed when the download began, so Unknown means that it is moving to another host.
    """
    return error.retryable or error.needs_lookup


def find_artifact(mesh: MeshClient, artifact_id: str, timeout: float) -> ArtifactView:
    """Return an artifact and the host that has its bytes. Raises Unknown."""
    return mesh.ask("GET", artifact_route(artifact_id), None, ArtifactView, timeout=timeout)


def listed_host(mesh: MeshClient, view: ArtifactView) -> HostRef:
    """Return the host of `view` with the address that the mesh lists now. Raises Unreachable if it is not listed.

    Addresses in replies are never contacted.
    """
    mesh.hosts()
    found = mesh.listed(view.host)
    if found is None:
        raise Unreachable(
            f"{view.artifact.artifact_id} is on {view.host.name}, which {mesh.base.name} does not list as a host"
        )
    return found


def artifact_route(artifact_id: str) -> str:
    return f"/v1/artifacts/{quoted(artifact_id)}"


def read_blob(mesh: MeshClient, blob: BlobRef, host: HostRef, timeout: float) -> bytes:
    """Return all bytes of a blob on `host`. Raises Unknown, TooLarge, FileChanged, Unreachable."""
    if check_blob(blob).size_bytes > MAX_READ_BYTES:
        raise TooLarge(
            f"blob {blob.sha256[:8]} has {blob.size_bytes:,} bytes; at most {MAX_READ_BYTES:,} are read into memory"
        )
    at = mesh.listed(host)
    if at is None:
        raise Unreachable(f"blob {blob.sha256[:8]} is on {host.name}, which {mesh.base.name} does not list as a host")
    data = bytearray()
    while len(data) < blob.size_bytes:
        length = min(MAX_PIECE_BYTES, blob.size_bytes - len(data))
        piece = mesh.fetch(at, f"/v1/blobs/{blob.sha256}?offset={len(data)}&length={length}", timeout)
        if not 0 < len(piece) <= length:
            raise FileChanged(f"{host.name} sent {len(piece):,} bytes of blob {blob.sha256[:8]} instead of {length:,}")
        data += piece
    if hashlib.sha256(data).hexdigest() != blob.sha256:
        raise FileChanged(f"the bytes of blob {blob.sha256[:8]} on {host.name} do not match its hash")
    return bytes(data)
