"""Bytes to a host: hashed first, then only what the host does not have yet, piece by piece."""

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
    """Bytes whose hash is known."""

    blob: BlobRef

    def read(self, offset: int, length: int) -> bytes:
        """As many bytes as there are, up to `length`."""
        ...

    def changed(self) -> str:
        """In words, where these are no longer the bytes that were hashed; "" where nothing says so."""
        ...


class BytesSource:
    """Bytes at hand."""

    def __init__(self, data: bytes) -> None:
        self.blob = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        self._data = memoryview(data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length])

    def changed(self) -> str:
        return ""


class FileSource:
    """A file, hashed when this is made and open until it is left. Raises Invalid, FileChanged.

    Of a database with files beside it a copy that has all of its rows is read instead.
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
            "" if same else f"{printable(self.path)} changed while it was sent: write it completely, then send it again"
        )

    def remove(self, instead: str) -> None:
        """Remove the file, which `instead` now stands for. Raises FileChanged, Invalid: it is still there."""
        if self.changed():
            raise FileChanged(f"{printable(self.path)} is kept: it changed after it became {instead}")
        try:
            remove_file(self.path, self._database)
        except OSError as error:
            raise Invalid(
                f"{printable(self.path)} is now {instead}, but it cannot be removed: {error.strerror}"
            ) from error


def _unreadable(path: Path, error: OSError) -> Invalid:
    return Invalid(f"{printable(path)} cannot be read: {error.strerror}")


class BlobUploader:
    """Gives bytes to hosts of the mesh, until `timeout` seconds went by without progress."""

    def __init__(self, mesh: MeshClient, timeout: float) -> None:
        self._mesh = mesh
        self._timeout = timeout

    def publish(self, source: UploadSource, host: HostRef | None = None, progress: Progress = no_progress) -> BlobRef:
        """The bytes are whole on `host` (by default the link's own) when this returns.

        The host then keeps them for an hour, and for as long as something refers to them. Raises FileChanged, NoRoom.
        """
        host = host or self._mesh.base
        began = self._confirmed(source.blob, host)
        try:
            self._send_rest(source, host, began, progress)
        except FileChanged as error:
            self._check(source, began, error)
            # What the host kept of an earlier try was another file's: it has thrown that away.
            began = self._confirmed(source.blob, host)
            self._send_rest(source, host, began, progress)
        return source.blob

    def missing(self, blobs: Iterable[BlobRef]) -> tuple[BlobRef, ...]:
        """Those that are not whole on the link's own host; the others it keeps for an hour from now on."""
        wanted = tuple(dict.fromkeys(blobs))
        there: set[str] = set()
        for begin in range(0, len(wanted), MAX_ASKED_BLOBS):
            asked = AskBlobs(sha256s=tuple(blob.sha256 for blob in wanted[begin : begin + MAX_ASKED_BLOBS]))
            states = self._mesh.ask("POST", "/v1/blobs/state", asked, BlobStates, timeout=self._timeout)
            there.update(state.sha256 for state in states.blobs if state.complete)
        return tuple(blob for blob in wanted if blob.sha256 not in there)

    def _check(self, source: UploadSource, began: BlobState, error: FileChanged) -> None:
        problem = source.changed()
        if problem or began.offset == 0:
            raise FileChanged(problem or error.message) from error

    def _confirmed(self, blob: BlobRef, host: HostRef) -> BlobState:
        asked = AskBlobs(sha256s=(blob.sha256,))
        states = self._mesh.ask("POST", "/v1/blobs/state", asked, BlobStates, host=host, timeout=self._timeout)
        if len(states.blobs) != 1 or states.blobs[0].sha256 != blob.sha256:
            raise Conflict(f"{host.name or host.url} was asked for one blob and answered of others")
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
            except Conflict as error:  # the host has more than was heard of, or less after a restart
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
        raise FileChanged(source.changed() or "the file became shorter while it was sent")
    return piece


def _other_offset(error: Conflict, offset: int, size: int) -> int:
    """Where the host goes on; raises `error` where that is no news."""
    other = error.details.get("offset")
    if type(other) is not int or other == offset or not 0 <= other <= size:
        raise error
    return other


def _within(offset: int, size: int) -> int:
    if not 0 <= offset <= size:
        raise Conflict(f"the host has {offset:,} of {size:,} bytes, as it says")
    return offset
