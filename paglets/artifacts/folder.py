"""The blobs on the disk of a host. The module implements `paglets.host.runtime.services.Blobs` with files.

    blobs/ab/<sha256>         complete blobs: hashed, synced, immutable
    blobs/incoming/<sha256>   partial blobs: the next piece starts at the current length
    blobs/staging/            files from processes of paglets; a rename turns them into complete blobs
    code/<sha256>/            unpacked bundles

A caller must hold the lock of a hash while it uses the blob with this hash.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import shutil
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paglets.core.content import closed, disk_error, sync_folder, write_all
from paglets.core.errors import Conflict, FileChanged, Invalid, NoRoom, Unknown
from paglets.core.failpoints import reach
from paglets.core.refs import SHA256, BlobRef, check_blob, check_file_name, check_sha256

MAX_RUNNING_HASHES = 64
"""The maximum number of partial blobs that are hashed while they arrive. Others are read again when complete."""

SYNC_BYTES = 64 << 20
"""A partial blob is synced each time it has grown by this many bytes, so that its final sync is short."""

THREADS_ASIDE = 4
"""The number of threads for background tasks, so that hashing one large blob does not block other tasks."""

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class BlobFolder:
    """The blobs in an existing data directory. Methods may be called from any thread. No file is kept open.

    The constructor removes partly unpacked bundles. No process unpacks a bundle then, because a host creates this
    object before it starts processes of paglets.
    """

    def __init__(self, folder: Path, log: logging.Logger) -> None:
        self._folder = folder
        self._log = log.getChild("blobs")
        self._blobs = folder / "blobs"
        self._incoming = self._blobs / "incoming"
        self._staging = self._blobs / "staging"
        self._code = folder / "code"
        self._hashes = _RunningHashes()
        self._aside = ThreadPoolExecutor(max_workers=THREADS_ASIDE, thread_name_prefix="blobs")
        self._numbers = itertools.count(1)
        self._made: set[str] = set()
        self._making = threading.Lock()
        for path in (self._blobs, self._incoming, self._staging, self._code):
            path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder)
        sync_folder(self._blobs)
        for left in sorted(each for each in self._code.iterdir() if not SHA256.fullmatch(each.name)):
            self._remove_tree(left)

    def run_in_background(self, act: Callable[[], None]) -> None:
        self._aside.submit(act)

    def size(self, sha256: str) -> int | None:
        return _file_size(self._whole(sha256))

    def partial(self, sha256: str) -> int:
        return _file_size(self._partial(sha256)) or 0

    def append(self, sha256: str, offset: int, piece: bytes) -> int:
        whole = self.size(sha256)
        if whole is not None:
            raise Conflict(f"blob {sha256} is already complete on this host, with {whole:,} bytes", offset=whole)
        length = self.partial(sha256)
        if offset != length:
            raise Conflict(f"blob {sha256} continues at byte {length:,} on this host, not at {offset:,}", offset=length)
        digest = self._hashes.take(sha256, length)
        with self._writing(), _open(self._partial(sha256), _WRITE) as descriptor:
            self._write_or_cut(descriptor, offset, piece)
            length += len(piece)
            if offset // SYNC_BYTES != length // SYNC_BYTES:
                self._sync_or_drop(descriptor, sha256)
        if digest is not None:
            self._hashes.go_on(sha256, length, digest, piece)
        reach("mid-artifact")
        return length

    def finish(self, blob: BlobRef) -> None:
        check_blob(blob)
        partial = self._partial(blob.sha256)
        length = self.partial(blob.sha256)
        digest = self._hashes.take(blob.sha256, length)
        if self.size(blob.sha256) == blob.size_bytes:
            self.drop_partial(blob.sha256)
            return
        if length != blob.size_bytes:
            self._refuse(blob, f"only {length:,} of {blob.size_bytes:,} bytes arrived")
        if (digest or _hash_of(partial)).hexdigest() != blob.sha256:
            self._refuse(blob, "the hash of the received bytes differs from the name of the blob")
        with self._writing(), _open(partial, _WRITE) as descriptor:
            self._sync_or_drop(descriptor, blob.sha256)
            self._make_whole(partial, blob.sha256)

    def adopt(self, staged: str, blob: BlobRef) -> None:
        check_blob(blob)
        path = self._staging / check_file_name(staged)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            raise Unknown(f"there is no staged file {staged!r}") from None
        except OSError as error:
            raise _refusal(error) from error
        if not stat.S_ISREG(found.st_mode):
            raise Invalid(f"staged: {staged!r} is not a regular file")
        if found.st_size != blob.size_bytes:
            raise Invalid(f"staged: {staged!r} has {found.st_size:,} bytes, not the {blob.size_bytes:,} of its blob")
        with self._writing():
            if self.size(blob.sha256) == blob.size_bytes:
                path.unlink()
            else:
                self._make_whole(path, blob.sha256)
        self.drop_partial(blob.sha256)

    def staged(self, name: str) -> int:
        return _file_size(self._staging / check_file_name(name)) or 0

    def put(self, data: bytes) -> BlobRef:
        blob = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        if self.size(blob.sha256) == blob.size_bytes:
            return blob
        # Use a separate file, because the same blob may also be arriving as a partial blob.
        path = self._staging / f"put.{os.getpid()}.{next(self._numbers)}"
        try:
            with self._writing(), _open(path, _WRITE | os.O_TRUNC) as descriptor:
                write_all(descriptor, data)
                os.fsync(descriptor)
                self._make_whole(path, blob.sha256)
        except BaseException:
            _unlink(path)
            raise
        self.drop_partial(blob.sha256)
        return blob

    def read(self, sha256: str, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise Invalid(f"offset and length must not be negative: {offset}, {length}")
        pieces = []
        try:
            with _open(self._whole(sha256), _READ) as descriptor:
                while length and (piece := os.pread(descriptor, length, offset)):
                    pieces.append(piece)
                    offset, length = offset + len(piece), length - len(piece)
        except FileNotFoundError:
            raise Unknown(f"this host has no blob {sha256}") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def is_intact(self, blob: BlobRef) -> bool:
        if self.size(blob.sha256) != blob.size_bytes:
            return False
        return bool(_hash_of(self._whole(blob.sha256)).hexdigest() == blob.sha256)

    def remove(self, sha256: str) -> None:
        _unlink(self._whole(sha256))

    def drop_partial(self, sha256: str) -> None:
        _unlink(self._partial(sha256))
        self._hashes.forget(sha256)

    def path(self, sha256: str) -> str:
        return str(self._whole(sha256))

    def staging(self) -> str:
        return str(self._staging)

    def code_folder(self) -> str:
        return str(self._code)

    def free(self) -> int:
        with self._writing():
            return shutil.disk_usage(self._folder).free

    def all_hashes(self) -> tuple[str, ...]:
        folders = [self._incoming, self._code, *(entry for entry in self._blobs.iterdir() if len(entry.name) == 2)]
        return tuple(sorted({name for folder in folders for name in os.listdir(folder) if SHA256.fullmatch(name)}))

    def drop_code(self, sha256: str) -> None:
        """Remove an unpacked bundle, after renaming it, so that a partly removed bundle never looks complete."""
        gone = self._code / f"{sha256}.{os.getpid()}.{next(self._numbers)}.gone"
        with suppress(FileNotFoundError):
            os.rename(self._code / check_sha256(sha256), gone)
            self._remove_tree(gone)

    def drop_staged(self, before_seconds: float) -> None:
        """Remove staged files that were neither written nor renamed in the last `before_seconds`.

        A rename counts, because a file that was moved to the folder may have been written long ago.
        """
        with os.scandir(self._staging) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if max(found.st_mtime, found.st_ctime) < time.time() - before_seconds:
                        self._remove_staged(Path(entry.path))

    def _whole(self, sha256: str) -> Path:
        return self._blobs / check_sha256(sha256)[:2] / sha256

    def _partial(self, sha256: str) -> Path:
        return self._incoming / check_sha256(sha256)

    def _write_or_cut(self, descriptor: int, offset: int, piece: bytes) -> None:
        """Write a piece at `offset`. If this fails, truncate the file to `offset`, so that no partial piece is left."""
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            write_all(descriptor, piece)
        except BaseException:
            try:
                os.ftruncate(descriptor, offset)
            except OSError as error:
                # The partial piece does no harm: its bytes are correct, and the hash of the complete blob is checked.
                self._log.warning(f"a partly written piece of a blob could not be truncated: {error}")
            raise

    def _sync_or_drop(self, descriptor: int, sha256: str) -> None:
        """Sync a partial blob. If this fails, remove the blob, because its content on disk is then unknown."""
        try:
            os.fsync(descriptor)
        except OSError:
            self.drop_partial(sha256)
            raise

    def _refuse(self, blob: BlobRef, why: str) -> None:
        self.drop_partial(blob.sha256)
        raise FileChanged(f"blob {blob.sha256} was refused: {why}; send it again from the start")

    def _make_whole(self, path: Path, sha256: str) -> None:
        whole = self._whole(sha256)
        self._make_folder(whole.parent)
        reach("after-artifact-before-rename")
        os.replace(path, whole)
        sync_folder(whole.parent)

    def _make_folder(self, folder: Path) -> None:
        """Create a folder below `blobs`. Sync `blobs` once per process and folder, so that the folder is durable."""
        with self._making:
            if folder.name not in self._made or not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
                sync_folder(self._blobs)
                self._made.add(folder.name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _refusal(error, self._folder) from error

    def _remove_tree(self, path: Path) -> None:
        shutil.rmtree(path, onerror=lambda act, place, error: self._say_left(place, error[1]))

    def _remove_staged(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._say_left(str(path), error)

    def _say_left(self, path: str, error: BaseException) -> None:
        self._log.warning(f"{path} cannot be removed: {error}; this is retried later")


@dataclass(slots=True)
class _Running:
    """The running hash of a partial blob. When `hashed` is done, `digest` covers the first `length` bytes."""

    length: int
    digest: Any
    hashed: Future[None]


class _RunningHashes:
    """The running hashes of the latest partial blobs, so that a complete blob need not be read again to hash it.

    Each piece is hashed in the background, while the next piece arrives.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Running] = OrderedDict()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="hash")

    def take(self, sha256: str, length: int) -> Any:
        """Remove and return the running hash of the first `length` bytes; None if the file must be read instead."""
        if length == 0:
            self.forget(sha256)
            return hashlib.sha256()
        with self._lock:
            running = self._kept.pop(sha256, None)
        if running is None or running.length != length:
            return None
        running.hashed.result()
        return running.digest

    def go_on(self, sha256: str, length: int, digest: Any, piece: bytes) -> None:
        """Add a piece to `digest` in the background. `length`: the length of the partial blob including this piece."""
        running = _Running(length, digest, self._threads.submit(digest.update, piece))
        with self._lock:
            self._kept[sha256] = running
            while len(self._kept) > MAX_RUNNING_HASHES:
                self._kept.popitem(last=False)

    def forget(self, sha256: str) -> None:
        with self._lock:
            self._kept.pop(sha256, None)


def _file_size(path: Path) -> int | None:
    """Return the size of a file; None if the file is missing. Raises NoRoom for any other disk error."""
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refusal(error) from error


def _refusal(error: OSError, folder: Path | None = None) -> NoRoom:
    """Return a NoRoom error that names the full or unusable folder, and the problem.

    `folder`: the folder to name if the OSError names no file.
    """
    places = [Path(name).parent for name in (error.filename2, error.filename) if isinstance(name, str)]
    with suppress(OSError):
        places = [each for each in places if closed(each)] or places
    return disk_error(error, next(iter(places), folder or Path()))


def _hash_of(path: Path) -> Any:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256")


def _unlink(path: Path) -> None:
    """Remove a file if it exists. Raises NoRoom for a disk error."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _refusal(error) from error


@contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
