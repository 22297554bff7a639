"""Publication of files and bytes as blobs of the host.

The process of a paglet copies, hashes and syncs a file in the host's staging folder. The host then renames that copy to
make it a blob. A file to be moved is copied as well, and removed only when a reference to the blob is committed. So no
file is lost if the process dies or the host refuses the blob. A file in the scratch directory of an attempt is moved
without a copy if possible (`zero_copy`), because the directory is removed after the attempt.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from paglets.core.clock import system_pause
from paglets.core.content import SourceStat, closed, copy_hashed, hash_file, no_room, stat_of
from paglets.core.databases import Database, copy_database, database_at, remove_file
from paglets.core.errors import FileChanged, Invalid, NoRoom, PagletsError
from paglets.core.refs import BlobRef
from paglets.core.text import printable
from paglets.worker import protocol
from paglets.worker.child.faults import say
from paglets.worker.child.storage import Request
from paglets.worker.child.zero_copy import LeasedFile, is_open_for_writing, move_with_lease
from paglets.worker.protocol import Publish

RETRY_SECONDS = 2.0
"""Pause before the next try to write a file, after the host's disk was full or inaccessible."""

COPY_TRIES = 3
"""Maximum number of tries to copy a file that changes while it is copied."""


def absolute(path: str | Path) -> Path:
    """Return `path` as an absolute path. Raises Invalid if `path` is empty or has a NUL character."""
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise Invalid(f"{text!r} is not the path of a file")
    return Path(os.path.abspath(text))


class ReserveStaging(Protocol):
    """A function that reserves disk space and returns the path of the file to write. See `protocol.ReserveSpace`."""

    def __call__(self, size_bytes: int, *, moved: bool = False, problem: str = "") -> Path: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCopy:
    """A published copy of a file. `stat`: the status of the file when it was copied.

    `database`: the database that was copied, if the file is a SQLite database with a `-wal` or `-journal` file.
    """

    blob: BlobRef
    stat: SourceStat
    database: Database | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A published file. Call `commit` when a reference to the blob is committed, otherwise call `rollback`.

    `copied`: set if the source is to be moved and was copied. `leased`: set if the source was moved without a copy.
    """

    blob: BlobRef
    source: Path
    copied: PublishedCopy | None = None
    leased: LeasedFile | None = None

    def commit(self) -> None:
        """Complete a move: remove the source, unless it has changed. Errors are only written to the log."""
        if self.leased is not None:
            self.leased.close()
        elif self.copied is not None:
            self._remove(self.copied)

    def _remove(self, copied: PublishedCopy) -> None:
        try:
            if (stat_of(self.source), database_at(self.source)) != (copied.stat, copied.database):
                say(f"{printable(self.source)} was not removed: it changed while it was moved")
                return
            remove_file(self.source, copied.database)
        except (OSError, Invalid) as error:
            say(f"{printable(self.source)} was not removed: {error}")

    def rollback(self) -> None:
        """Move the source back, if it was moved without a copy."""
        if self.leased is not None:
            self.leased.restore()


class BlobPublisher:
    """A publisher of files and bytes for one run. `token`: the token of the run.

    `settle`: a function that takes an mtime and waits until any later change to the file gives it a new mtime.
    `scratch`: the scratch directory of an attempt; None in other entries. An attempt may move files without a copy, and
    waits while the host's disk is full or inaccessible.
    """

    def __init__(
        self,
        token: str,
        request: Request,
        settle: Callable[[int], None],
        scratch: Path | None = None,
        pause: Callable[[float], None] = system_pause,
    ) -> None:
        self._token = token
        self._request = request
        self._settle = settle
        self._scratch = scratch
        self._pause = pause
        self._numbers = itertools.count(1)

    def publish_bytes(self, data: bytes) -> BlobRef:
        """Publish `data` as a blob. Raises NoRoom if the host has no space for it."""
        return self._publish(self._new_reservation(), len(data), lambda staged: _write_synced(staged, data))

    def publish_copy(self, source: Path) -> PublishedCopy:
        """Publish a copy of a file as a blob. Raises Invalid, NoRoom, and FileChanged if the file keeps changing."""
        _warn_if_open(source)
        return self._copy_unchanged(source, self._new_reservation())

    def _copy_unchanged(self, source: Path, reserve: ReserveStaging) -> PublishedCopy:
        for left in reversed(range(COPY_TRIES)):
            try:
                return self._copy(source, reserve)
            except FileChanged as error:
                if not left or error.details.get("field") == "database":
                    raise
        raise AssertionError("the last attempt must return or raise")

    def publish(self, source: Path, move: bool) -> Publication:
        """Publish a file, and move it if `move` is True. Raises Invalid, NoRoom and FileChanged.

        After an error the file is unchanged.
        """
        reserve = self._new_reservation()
        _warn_if_open(source)
        if move:
            _check_movable(source)
            is_whole = self._is_in_scratch(source) and database_at(source) is None
            if is_whole and (publication := self._move(source, reserve)) is not None:
                return publication
        found = self._copy_unchanged(source, reserve)
        return Publication(blob=found.blob, source=source, copied=found if move else None)

    def _copy(self, source: Path, reserve: ReserveStaging) -> PublishedCopy:
        found, database = stat_of(source), database_at(source)
        if database is not None:
            return self._copy_database(source, database.size_bytes, reserve)
        self._settle(found.mtime_ns)

        def copy(staged: Path) -> BlobRef:
            blob = copy_hashed(source, staged)
            if stat_of(source) != found:
                raise FileChanged(f"{printable(source)} changed while it was read: it was written to or replaced")
            return blob

        return PublishedCopy(blob=self._publish(reserve, found.size_bytes, copy), stat=found)

    def _copy_database(self, source: Path, size_bytes: int, reserve: ReserveStaging) -> PublishedCopy:
        copied: list[Database] = []

        def copy(staged: Path) -> BlobRef:
            copied[:] = [copy_database(source, staged, pause=self._pause)]
            return hash_file(staged)

        blob = self._publish(reserve, size_bytes, copy)
        return PublishedCopy(blob=blob, stat=copied[0].main, database=copied[0])

    def _is_in_scratch(self, source: Path) -> bool:
        return self._scratch is not None and is_within(source, self._scratch)

    def _move(self, source: Path, reserve: ReserveStaging) -> Publication | None:
        """Publish the file `source` by a move instead of a copy. Return None if only a copy is possible."""
        leased = move_with_lease(source, partial(reserve, moved=True))
        if leased is None:
            return None
        try:
            blob = self._finished(leased)
            self._request("publish", Publish(staged=leased.staged.name, blob=blob))
        except BaseException as error:
            leased.restore()
            if isinstance(error, FileChanged):
                return None
            raise
        return Publication(blob=blob, source=source, leased=leased)

    def _finished(self, leased: LeasedFile) -> BlobRef:
        """Return the blob of the moved file. If the disk has a temporary problem, raise FileChanged instead of NoRoom.

        The caller then copies the file, because a copy can wait until the problem is over.
        """
        try:
            return leased.finish()
        except NoRoom as error:
            if not self._temporary_problem(error, leased.staged.parent):
                raise
            raise FileChanged(error.message) from error

    def _new_reservation(self) -> ReserveStaging:
        """Return a function that reserves space for one file. All its calls use one name, so space is reserved once."""
        staged = f"{self._token}.{next(self._numbers)}"

        def reserve(size_bytes: int, *, moved: bool = False, problem: str = "") -> Path:
            wanted = protocol.ReserveSpace(staged=staged, size_bytes=size_bytes, moved=moved, problem=problem)
            return Path(self._request("reserve_space", wanted)["folder"]) / staged

        return reserve

    def _publish(self, reserve: ReserveStaging, size_bytes: int, write: Callable[[Path], BlobRef]) -> BlobRef:
        """Reserve a path, let `write` create and sync a file there, and publish it. After an error no file is left."""
        problem = ""
        while True:
            staged = reserve(size_bytes, problem=problem)
            try:
                blob, problem = self._written(staged, write)
                if blob is not None:
                    self._request("publish", Publish(staged=staged.name, blob=blob))
                    return blob
            except BaseException:
                with suppress(OSError):
                    os.unlink(staged)
                raise
            self._pause(RETRY_SECONDS)

    def _written(self, staged: Path, write: Callable[[Path], BlobRef]) -> tuple[BlobRef | None, str]:
        """Return the blob and "". If the caller should wait and retry, return None and the disk's problem."""
        try:
            return write(staged), ""
        except (NoRoom, Invalid) as error:
            with suppress(OSError):
                os.unlink(staged)
            problem = self._temporary_problem(error, staged.parent)
            if not problem:
                raise
            return None, problem

    def _temporary_problem(self, error: PagletsError, folder: Path) -> str:
        """Return the problem of the host's disk that an attempt should wait out; "" if it should not wait."""
        if self._scratch is None:
            return ""
        if isinstance(error, NoRoom):
            return error.message if error.passes else ""
        with suppress(OSError):
            return closed(folder)
        return ""


def is_within(path: Path, folder: Path) -> bool:
    """Return True if `path` is in or below `folder`. For a link, its own location counts, not its target."""
    return path.parent.resolve().is_relative_to(folder.resolve())


def _warn_if_open(source: Path) -> None:
    if is_open_for_writing(source) and database_at(source) is None:
        say(f"{printable(source.name)} is still open for writing: close it before paglets reads it")


def _check_movable(source: Path) -> None:
    """Raise Invalid if the file cannot be moved."""
    stat_of(source)
    if not stat.S_ISREG(os.lstat(source).st_mode):
        raise Invalid(f"{printable(source)} is a link: to move a file, name the file itself")
    if not os.access(source.parent, os.W_OK | os.X_OK):
        raise Invalid(f"{printable(source)} cannot be moved: no permission to remove it from its folder")


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
    """Open a file, for `open(opener=private)`. A new file is accessible only to the current user."""
    return os.open(path, flags, 0o600)
