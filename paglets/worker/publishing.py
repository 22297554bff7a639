"""Bytes of a paglet's process that become blobs of its host.

The process itself reads, hashes and syncs them, into a file of the host's staging folder; the host renames that
into place. A file that is to be moved gets a second name there instead of a copy, where the file system allows it,
and loses its first one only when what refers to the blob is committed: so a process that dies on the way, or a host
that refuses, costs nobody a file. Between the two the file may be read only, since a write would change the blob.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from paglets.core.content import SourceStat, copy_hashed, hash_file, no_room, stat_of
from paglets.core.errors import FileChanged, Invalid, PagletsError
from paglets.core.refs import BlobRef
from paglets.core.text import printable
from paglets.worker.protocol import Publish, Room
from paglets.worker.storage import Request

CAPTURE_TRIES = 3
"""A file that something writes to now and then is caught between two writes; one that never rests is not."""


def absolute(path: str | Path) -> Path:
    """`path` from the process's working directory. Raises Invalid for what can be no path, and for none."""
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise Invalid(f"{text!r} is not the path of a file")
    return Path(os.path.abspath(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A file as it was when it was published."""

    blob: BlobRef
    stat: SourceStat


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A published file. Exactly one of `keep` and `drop` follows: what refers to the blob is committed, or is not.

    `moved`: its source as it was, where it is to go. `mode`: the rights that it had, where the blob is the same file.
    """

    blob: BlobRef
    source: Path
    moved: SourceStat | None = None
    mode: int | None = None

    def keep(self) -> None:
        """The source of a move goes, unless it is another one by now. What goes wrong is said in the log only."""
        if self.moved is None:
            return
        try:
            if stat_of(self.source) != self.moved:
                _say(f"{printable(self.source)} stays: it changed while it was moved")
                return
            os.unlink(self.source)
        except (OSError, Invalid) as error:
            _say(f"{printable(self.source)} stays where it was: {error}")

    def drop(self) -> None:
        """The source is a file of its own again, with its old rights."""
        _give_back(self.source, self.mode)


class Publisher:
    """`token` is that of the run, `settle` waits until a file with that mtime_ns cannot be changed without a trace."""

    def __init__(self, token: str, request: Request, settle: Callable[[int], None]) -> None:
        self._token = token
        self._request = request
        self._settle = settle
        self._numbers = itertools.count(1)

    def publish_bytes(self, data: bytes) -> BlobRef:
        """Raises NoRoom."""
        staged = self._room(len(data))
        return self._publish(staged, lambda: _write_synced(staged, data))

    def capture(self, source: Path) -> Captured:
        """Publish a copy of a file. Raises Invalid, NoRoom, and FileChanged where it does not rest."""
        for left in reversed(range(CAPTURE_TRIES)):
            try:
                return self._capture(source)
            except FileChanged:
                if not left:
                    raise
        raise AssertionError("a last try returns or raises")

    def publish(self, source: Path, move: bool) -> Publication:
        """Publish a copy of a file, or the file itself. Raises Invalid, NoRoom, FileChanged; it is as it was then."""
        if not move:
            return Publication(blob=self.capture(source).blob, source=source)
        return self._publish_moved(source, _check_movable(source))

    def _capture(self, source: Path) -> Captured:
        found = stat_of(source)
        self._settle(found.mtime_ns)
        staged = self._room(found.size_bytes)
        blob = self._publish(staged, lambda: copy_hashed(source, staged))
        if stat_of(source) != found:
            raise FileChanged(f"{printable(source)} changed while it was read: it was written to or replaced")
        return Captured(blob=blob, stat=found)

    def _publish_moved(self, source: Path, found: os.stat_result) -> Publication:
        moved = stat_of(source)
        staged = self._room(moved.size_bytes)
        mode = stat.S_IMODE(found.st_mode) if _link(source, staged, found) else None
        try:
            blob = self._publish(staged, lambda: copy_hashed(source, staged) if mode is None else _hash_synced(source))
            if stat_of(source) != moved:
                raise FileChanged(f"{printable(source)} changed while it was moved")
        except BaseException:
            _give_back(source, mode)
            raise
        return Publication(blob=blob, source=source, moved=moved, mode=mode)

    def _room(self, size_bytes: int) -> Path:
        """Where to write that much."""
        folder = self._request("room", Room(size_bytes=size_bytes))["folder"]
        return Path(folder) / f"{self._token}.{next(self._numbers)}"

    def _publish(self, staged: Path, write: Callable[[], BlobRef]) -> BlobRef:
        """`write` leaves a whole, synced file in `staged`, which is gone afterwards, whatever happens."""
        try:
            blob = write()
            self._request("publish", Publish(staged=staged.name, blob=blob))
        except BaseException:
            with suppress(OSError):
                os.unlink(staged)
            raise
        return blob


def _check_movable(source: Path) -> os.stat_result:
    """Raises Invalid for what cannot be taken from its place."""
    stat_of(source)
    found = os.lstat(source)
    if not stat.S_ISREG(found.st_mode):
        raise Invalid(f"{printable(source)} is a link: to move a file name the file itself")
    if not os.access(source.parent, os.W_OK | os.X_OK):
        raise Invalid(f"{printable(source)} cannot be moved: no permission to take it from its folder")
    return found


def _link(source: Path, staged: Path, found: os.stat_result) -> bool:
    """Give the file a second name, and take the right to write; False where it must be copied.

    A file with further names could be changed by those, one of another user by him.
    """
    if os.name != "posix" or found.st_nlink != 1 or found.st_uid != os.geteuid():
        return False
    try:
        os.link(source, staged)
    except OSError:
        return False
    try:
        os.chmod(staged, 0o400)
    except OSError:
        with suppress(OSError):
            os.unlink(staged)
        return False
    return True


def _hash_synced(source: Path) -> BlobRef:
    """The disk writes while this processor hashes: nobody may change the file any more."""
    descriptor = os.open(source, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(max_workers=1) as disk:
            synced = disk.submit(os.fsync, descriptor)
            blob = hash_file(source)
            synced.result()
    except OSError as error:
        raise no_room(error, source.parent) or Invalid(f"{printable(source)} cannot be written: {error}") from error
    finally:
        os.close(descriptor)
    return blob


def _give_back(source: Path, mode: int | None) -> None:
    """Undo what `_link` did: where a blob is the same file, a copy takes the source's place."""
    if mode is None:
        return
    try:
        found = os.lstat(source)
        if found.st_nlink > 1:
            beside = source.with_name(f".paglets-{os.getpid()}-{found.st_ino}")
            copy_hashed(source, beside)
            os.utime(beside, ns=(found.st_atime_ns, found.st_mtime_ns))
            os.replace(beside, source)
        os.chmod(source, mode)
    except (OSError, PagletsError) as error:
        _say(f"{printable(source)} can only be read from now on: {error}")


def _write_synced(staged: Path, data: bytes) -> BlobRef:
    try:
        with open(staged, "xb", opener=private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        problem = no_room(error, staged.parent)
        raise problem or Invalid(f"{printable(staged.parent)} cannot be written to: {error}") from error
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def private(path: str, flags: int) -> int:
    """For `open`: a new file is for this user alone."""
    return os.open(path, flags, 0o600)


def _say(text: str) -> None:
    sys.stderr.write(f"paglets: {text}\n")
