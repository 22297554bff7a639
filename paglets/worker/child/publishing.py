"""Bytes of a paglet's process that become blobs of its host.

The process itself reads, hashes and syncs them, into a file of the host's staging folder; the host renames that
into place. A file that is to be moved is copied, too, and removed when what refers to the blob is committed: so a
process that dies on the way, or a host that refuses, costs nobody a file. In an attempt, whose scratch directory dies
with it, the file itself goes if it can be had (see `taking`).
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
from paglets.worker.child.zero_copy import Taken, is_open_for_writing, take
from paglets.worker.protocol import Publish

TRY_AGAIN_SECONDS = 2.0
"""After a try for which the host's disk had no room."""

CAPTURE_TRIES = 3
"""A file that something writes to now and then is caught between two writes; one that never rests is not."""


def absolute(path: str | Path) -> Path:
    """`path` from the process's working directory. Raises Invalid for what can be no path, and for none."""
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise Invalid(f"{text!r} is not the path of a file")
    return Path(os.path.abspath(text))


class Room(Protocol):
    """Gives where a file of so many bytes may be written; see `protocol.Room`."""

    def __call__(self, size_bytes: int, *, moved: bool = False, problem: str = "") -> Path: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A file as it was when it was published. `database`: the same of one with files beside it."""

    blob: BlobRef
    stat: SourceStat
    database: Database | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A published file. Exactly one of `keep` and `drop` follows: what refers to the blob is committed, or is not.

    `moved`: its source as it was, where that is to go; `taken`: the source itself, where it is the blob.
    """

    blob: BlobRef
    source: Path
    moved: Captured | None = None
    taken: Taken | None = None

    def keep(self) -> None:
        """The source of a move goes, unless it is another one by now. What goes wrong is said in the log only."""
        if self.taken is not None:
            self.taken.close()
        elif self.moved is not None:
            self._remove(self.moved)

    def _remove(self, moved: Captured) -> None:
        try:
            if (stat_of(self.source), database_at(self.source)) != (moved.stat, moved.database):
                say(f"{printable(self.source)} stays: it changed while it was moved")
                return
            remove_file(self.source, moved.database)
        except (OSError, Invalid) as error:
            say(f"{printable(self.source)} stays where it was: {error}")

    def drop(self) -> None:
        """The source is where it was."""
        if self.taken is not None:
            self.taken.give_back()


class Publisher:
    """`token` is that of the run, `settle` waits until a file with that mtime_ns cannot be changed without a trace.

    `scratch`: of an attempt, whose files may be taken from it, and which waits while the host's disk has no room or is
    closed. None: all files are copied, and nothing waits.
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
        """Raises NoRoom."""
        return self._publish(self._new_room(), len(data), lambda staged: _write_synced(staged, data))

    def capture(self, source: Path) -> Captured:
        """Publish a copy of a file. Raises Invalid, NoRoom, and FileChanged where it does not rest."""
        _warn_if_open(source)
        return self._capture_at_rest(source, self._new_room())

    def _capture_at_rest(self, source: Path, room: Room) -> Captured:
        for left in reversed(range(CAPTURE_TRIES)):
            try:
                return self._capture(source, room)
            except FileChanged as error:
                if not left or error.details.get("field") == "database":
                    raise
        raise AssertionError("a last try returns or raises")

    def publish(self, source: Path, move: bool) -> Publication:
        """Publish a copy of a file, or the file itself. Raises Invalid, NoRoom, FileChanged; it is as it was then."""
        room = self._new_room()
        _warn_if_open(source)
        if move:
            _check_movable(source)
            is_whole = self._is_in_scratch(source) and database_at(source) is None
            if is_whole and (publication := self._take(source, room)) is not None:
                return publication
        found = self._capture_at_rest(source, room)
        return Publication(blob=found.blob, source=source, moved=found if move else None)

    def _capture(self, source: Path, room: Room) -> Captured:
        found, database = stat_of(source), database_at(source)
        if database is not None:
            return self._capture_database(source, database.size_bytes, room)
        self._settle(found.mtime_ns)

        def copy(staged: Path) -> BlobRef:
            blob = copy_hashed(source, staged)
            if stat_of(source) != found:
                raise FileChanged(f"{printable(source)} changed while it was read: it was written to or replaced")
            return blob

        return Captured(blob=self._publish(room, found.size_bytes, copy), stat=found)

    def _capture_database(self, source: Path, size_bytes: int, room: Room) -> Captured:
        copied: list[Database] = []

        def copy(staged: Path) -> BlobRef:
            copied[:] = [copy_database(source, staged, pause=self._pause)]
            return hash_file(staged)

        blob = self._publish(room, size_bytes, copy)
        return Captured(blob=blob, stat=copied[0].main, database=copied[0])

    def _is_in_scratch(self, source: Path) -> bool:
        return self._scratch is not None and is_within(source, self._scratch)

    def _take(self, source: Path, room: Room) -> Publication | None:
        """None where it must be copied."""
        taken = take(source, partial(room, moved=True))
        if taken is None:
            return None
        try:
            blob = self._finished(taken)
            self._request("publish", Publish(staged=taken.staged.name, blob=blob))
        except BaseException as error:
            taken.give_back()
            if isinstance(error, FileChanged):
                return None
            raise
        return Publication(blob=blob, source=source, taken=taken)

    def _finished(self, taken: Taken) -> BlobRef:
        """Where the disk has something against it that passes, a copy is made instead, which waits: FileChanged."""
        try:
            return taken.finish()
        except NoRoom as error:
            if not self._passing(error, taken.staged.parent):
                raise
            raise FileChanged(error.message) from error

    def _new_room(self) -> Room:
        """One name for all tries of a file: what was reserved for one of them is not reserved twice."""
        staged = f"{self._token}.{next(self._numbers)}"

        def room(size_bytes: int, *, moved: bool = False, problem: str = "") -> Path:
            wanted = protocol.Room(staged=staged, size_bytes=size_bytes, moved=moved, problem=problem)
            return Path(self._request("room", wanted)["folder"]) / staged

        return room

    def _publish(self, room: Room, size_bytes: int, write: Callable[[Path], BlobRef]) -> BlobRef:
        """`write` leaves a whole, synced file where `room` says, which is gone afterwards, whatever happens."""
        problem = ""
        while True:
            staged = room(size_bytes, problem=problem)
            try:
                blob, problem = self._written(staged, write)
                if blob is not None:
                    self._request("publish", Publish(staged=staged.name, blob=blob))
                    return blob
            except BaseException:
                with suppress(OSError):
                    os.unlink(staged)
                raise
            self._pause(TRY_AGAIN_SECONDS)

    def _written(self, staged: Path, write: Callable[[Path], BlobRef]) -> tuple[BlobRef | None, str]:
        """The blob; or None and what the disk has against it, where that is waited for."""
        try:
            return write(staged), ""
        except (NoRoom, Invalid) as error:
            with suppress(OSError):
                os.unlink(staged)
            problem = self._passing(error, staged.parent)
            if not problem:
                raise
            return None, problem

    def _passing(self, error: PagletsError, folder: Path) -> str:
        """What the disk of the host has against its `folder`, where an attempt waits for its end; else ""."""
        if self._scratch is None:
            return ""
        if isinstance(error, NoRoom):
            return error.message if error.passes else ""
        with suppress(OSError):
            return closed(folder)
        return ""


def is_within(path: Path, folder: Path) -> bool:
    """Return True if the file itself, not what it links to, is somewhere in that folder."""
    return path.parent.resolve().is_relative_to(folder.resolve())


def _warn_if_open(source: Path) -> None:
    if is_open_for_writing(source) and database_at(source) is None:
        say(f"{printable(source.name)} is still open for writing: close it before reporting it")


def _check_movable(source: Path) -> None:
    """Raises Invalid for what cannot be taken from its place."""
    stat_of(source)
    if not stat.S_ISREG(os.lstat(source).st_mode):
        raise Invalid(f"{printable(source)} is a link: to move a file name the file itself")
    if not os.access(source.parent, os.W_OK | os.X_OK):
        raise Invalid(f"{printable(source)} cannot be moved: no permission to take it from its folder")


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
