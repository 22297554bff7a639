"""The bytes of an artifact into a file: piece by piece, from wherever the artifact is by then."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from paglets.api.blobs import ArtifactView, AskBlobs, BlobStates
from paglets.client.mesh_client import MeshClient, quoted
from paglets.client.pacing import READING, RECEIVING, ChunkSizer, Progress, RetryBudget
from paglets.client.partial_file import PartialFile, partial_file
from paglets.core.errors import Conflict, FileChanged, PagletsError, Unreachable
from paglets.core.refs import BlobRef, HostRef


class Download:
    """One artifact on its way to one file, until `timeout` seconds went by without progress."""

    def __init__(self, mesh: MeshClient, view: ArtifactView, timeout: float, progress: Progress) -> None:
        self._mesh = mesh
        self._artifact = view.artifact
        self._host: HostRef | None = view.host
        self._timeout = timeout
        self._progress = progress

    def into(self, target: Path, *, replace: bool) -> None:
        """The whole file is at `target`, safe on the disk, when this returns; until then nothing of it is.

        What an earlier try left beside it is used. Raises NoRoom, Invalid, Conflict, FileChanged.
        """
        blob = self._artifact.blob
        with partial_file(target, blob) as part:
            part.resume(lambda done: self._progress(READING, done, blob.size_bytes))
            try:
                self._receive_right(part, blob)
            except PagletsError as error:
                if not _may_be_elsewhere(error):
                    raise
                kept = f"{part.offset:,} of {blob.size_bytes:,} bytes are kept: another try goes on there"
                raise type(error)(f"{error.message}; {kept}", **error.details) from None
            if not part.is_right():
                part.remove()
                self._doubt(blob)
                raise FileChanged(
                    f"the bytes of {self._artifact.artifact_id} are not the ones that it was made of: "
                    f"the disk of {self._artifact.host_name} may be damaged; nothing was kept"
                )
            part.finish(replace=replace)

    def _doubt(self, blob: BlobRef) -> None:
        """Have the host look at what it has: if that is damaged, the same file may be put there anew."""
        if self._host is not None:
            asked = AskBlobs(sha256s=(blob.sha256,), check=True)
            with suppress(PagletsError):
                self._mesh.ask("POST", "/v1/blobs/state", asked, BlobStates, host=self._host, timeout=self._timeout)

    def _receive_right(self, part: PartialFile, blob: BlobRef) -> None:
        """Once more where what an earlier try left was something else."""
        resumed = part.offset > 0
        self._receive(part, blob)
        if not part.is_right() and resumed:
            part.restart()
            self._receive(part, blob)

    def _receive(self, part: PartialFile, blob: BlobRef) -> None:
        """This thread asks for a piece while others hash and write the one before, and sync those before that."""
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
                    # That no other host has it says less than why its own does not answer.
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
            raise Conflict(f"{host.name} answered {len(piece):,} bytes where {length:,} were asked for")
        return piece

    def _look_up(self, timeout: float) -> HostRef:
        """Where the artifact is now, at the address that the mesh knows."""
        view = find_artifact(self._mesh, self._artifact.artifact_id, timeout)
        if view.artifact.sha256 != self._artifact.sha256:
            raise Conflict(f"another artifact has the id {view.artifact.artifact_id} now")
        self._host = listed_host(self._mesh, view)
        return self._host


def _may_be_elsewhere(error: PagletsError) -> bool:
    """Return True if the next try may get the piece, from this host or another.

    The artifact existed when the download began, so Unknown means that it is moving to another host.
    """
    return error.retryable or error.needs_lookup


def find_artifact(mesh: MeshClient, artifact_id: str, timeout: float) -> ArtifactView:
    """The artifact, and the host that has its bytes. Raises Unknown."""
    return mesh.ask("GET", artifact_route(artifact_id), None, ArtifactView, timeout=timeout)


def listed_host(mesh: MeshClient, view: ArtifactView) -> HostRef:
    """The host of `view` as the mesh lists it just now: an address in a reply is never contacted."""
    mesh.hosts()
    found = mesh.member(view.host)
    if found is None:
        raise Unreachable(
            f"{view.artifact.artifact_id} is on {view.host.name}, which is not in the mesh as {mesh.base.name} knows it"
        )
    return found


def artifact_route(artifact_id: str) -> str:
    return f"/v1/artifacts/{quoted(artifact_id)}"
