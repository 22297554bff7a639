"""Uploads of bytes to a host: hash the bytes, then send those that the host lacks, piece by piece."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from paglets.api.blobs import AskBlobs, BlobState, BlobStates
from paglets.api.limits import MAX_ASKED_BLOBS
from paglets.client.mesh_client import MeshClient
from paglets.client.pacing import READING, SENDING, ChunkSizer, Progress, RetryBudget, no_progress
from paglets.core.content import hash_file, stat_of
from paglets.core.databases import database_at, remove_file, whole_file
from paglets.core.errors import Conflict, FileChanged, Invalid, PagletsError
from paglets.core.refs import BlobRef, HostRef
from paglets.core.text import printable


class UploadSource(Protocol):
    """A source of bytes whose hash is known."""

    blob: BlobRef

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` bytes, from byte `offset` on."""
        ...

    def changed(self) -> str:
        """Return a problem text if the bytes have changed since they were hashed, else ""."""
        ...


class BytesSource:
    """A source of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self.blob = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        self._data = memoryview(data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length])

    def changed(self) -> str:
        return ""


class FileSource:
    """An upload source that reads a file. The file is hashed when this object is created. Use it in a `with` block.

    If the file is an SQLite database with companion files, such as a WAL file, a complete copy is read instead. Raises
    Invalid, FileChanged.
    """

    def __init__(self, path: Path, progress: Progress = no_progress) -> None:
        self.path = path
        self._stat = stat_of(path)
        with whole_file(path) as (whole, self._database):
            size = self._stat.size_bytes if self._database is None else stat_of(whole).size_bytes
            self.blob = hash_file(whole, lambda done: progress(READING, done, size))
            try:
                self._descriptor = os.open(whole, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise _unreadable(path, error) from error

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def changed(self) -> str:
        try:
            same = stat_of(self.path) == self._stat and database_at(self.path) == self._database
        except PagletsError as error:
            return error.message
        return (
            "" if same else f"{printable(self.path)} changed during the upload: finish writing it, then send it again"
        )

    def remove(self, instead: str) -> None:
        """Remove the file, which is now stored as the artifact `instead`. Raises FileChanged, Invalid."""
        if self.changed():
            raise FileChanged(f"{printable(self.path)} was not removed: it changed after it was stored as {instead}")
        try:
            remove_file(self.path, self._database)
        except OSError as error:
            raise Invalid(
                f"{printable(self.path)} was stored as {instead}, but it cannot be removed: {error.strerror}"
            ) from error


def _unreadable(path: Path, error: OSError) -> Invalid:
    return Invalid(f"{printable(path)} cannot be read: {error.strerror}")


class BlobUploader:
    """Uploads to hosts of the mesh. An upload fails after `timeout` seconds without progress."""

    def __init__(self, mesh: MeshClient, timeout: float) -> None:
        self._mesh = mesh
        self._timeout = timeout

    def publish(self, source: UploadSource, host: HostRef | None = None, progress: Progress = no_progress) -> BlobRef:
        """Upload all bytes to `host` (default: the client's host).

        The host keeps them for an hour, and longer while a paglet, artifact or message uses them. Raises FileChanged,
        NoRoom.
        """
        host = host or self._mesh.base
        state = self._state(source.blob, host)
        try:
            self._send_rest(source, host, state, progress)
        except FileChanged as error:
            self._check_unchanged(source, state, error)
            # The partial bytes of an earlier upload were wrong, and the host has deleted them. Start again.
            state = self._state(source.blob, host)
            self._send_rest(source, host, state, progress)
        return source.blob

    def missing(self, blobs: Iterable[BlobRef]) -> tuple[BlobRef, ...]:
        """Return those of `blobs` that the client's host lacks. The host keeps the others for another hour."""
        wanted = tuple(dict.fromkeys(blobs))
        there: set[str] = set()
        for begin in range(0, len(wanted), MAX_ASKED_BLOBS):
            asked = AskBlobs(sha256s=tuple(blob.sha256 for blob in wanted[begin : begin + MAX_ASKED_BLOBS]))
            states = self._mesh.ask("POST", "/v1/blobs/state", asked, BlobStates, timeout=self._timeout)
            there.update(state.sha256 for state in states.blobs if state.complete)
        return tuple(blob for blob in wanted if blob.sha256 not in there)

    def _check_unchanged(self, source: UploadSource, first: BlobState, error: FileChanged) -> None:
        problem = source.changed()
        if problem or first.offset == 0:
            raise FileChanged(problem or error.message) from error

    def _state(self, blob: BlobRef, host: HostRef) -> BlobState:
        asked = AskBlobs(sha256s=(blob.sha256,))
        states = self._mesh.ask("POST", "/v1/blobs/state", asked, BlobStates, host=host, timeout=self._timeout)
        if len(states.blobs) != 1 or states.blobs[0].sha256 != blob.sha256:
            raise Conflict(f"host {host.name or host.url} sent the states of other blobs than requested")
        return states.blobs[0]

    def _send_rest(self, source: UploadSource, host: HostRef, state: BlobState, progress: Progress) -> None:
        size = source.blob.size_bytes
        pace = ChunkSizer(self._mesh.clock)
        patience = RetryBudget(self._mesh.clock, self._mesh.pause, self._timeout)
        offset = furthest = state.offset
        while not state.complete:
            progress(SENDING, offset, size)
            piece = _piece(source, offset, pace.piece_bytes)
            pace.begin()
            try:
                state = self._put(source.blob, host, offset, piece, patience.left())
                offset = _within(state.offset, size)
                pace.done()
            except FileChanged:
                raise
            except Conflict as error:  # the host has more bytes than expected, or fewer after a restart
                offset = _other_offset(error, offset, size)
                if offset <= furthest:
                    patience.wait(error)
            except PagletsError as error:
                if not error.retryable:
                    raise
                patience.wait(error)
                pace.failed()
            if offset > furthest:
                furthest = offset
                patience.progressed()
        progress(SENDING, size, size)

    def _put(self, blob: BlobRef, host: HostRef, offset: int, piece: bytes, timeout: float) -> BlobState:
        route = f"/v1/blobs/{blob.sha256}?offset={offset}&size={blob.size_bytes}"
        return self._mesh.once(host, "PUT", route, piece, BlobState, timeout)


def _piece(source: UploadSource, offset: int, most: int) -> bytes:
    wanted = min(most, source.blob.size_bytes - offset)
    piece = source.read(offset, wanted)
    if len(piece) < wanted:
        raise FileChanged(source.changed() or "the file became shorter during the upload")
    return piece


def _other_offset(error: Conflict, offset: int, size: int) -> int:
    """Return the offset that the host expects, from the details of `error`.

    Raises `error` if it has no valid offset, or the offset is the one that the host has just refused.
    """
    other = error.details.get("offset")
    if type(other) is not int or other == offset or not 0 <= other <= size:
        raise error
    return other


def _within(offset: int, size: int) -> int:
    if not 0 <= offset <= size:
        raise Conflict(f"the host reports an offset of {offset:,} in a blob of {size:,} bytes")
    return offset
