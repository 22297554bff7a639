"""The files that travel with a paglet. The child publishes registered files, and copies files that have arrived."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from paglets.core.content import no_room, stat_of
from paglets.core.databases import database_at
from paglets.core.errors import Invalid, NoRoom, PagletsError, Unknown
from paglets.core.refs import MAX_FILE_NAME_BYTES, FileRef, check_file_name
from paglets.core.text import printable
from paglets.worker.child.faults import say
from paglets.worker.child.publishing import BlobPublisher, absolute, private
from paglets.worker.child.storage import Request
from paglets.worker.child.unit_of_work import UnitOfWork
from paglets.worker.protocol import Changes, Commit, Go, GoFile, RegisteredFile

MODES = ("copy", "move")

_GONE = (errno.ENOENT, errno.ENOTDIR)

_COPY_MTIME_SECONDS = 946_684_800
"""Earliest mtime of a copy: 2000-01-01. The mtime of each copy is up to 388 days later, depending on its hash. A copy
that still has its mtime is unchanged. Every file system can store these mtimes, which are even numbers of seconds."""

_PART_NAME = ".paglets-part".ljust(MAX_FILE_NAME_BYTES + 1, "-")
"""Name of an unfinished copy. It is longer than the names of registered files may be, so they cannot clash."""

_COPY_BYTES = 1 << 20


# The functions below handle files that arrive with the paglet.


def copy_files(go: Go) -> None:
    """Copy the files of `go` into the scratch directory, except those that exist there or whose original exists.

    This runs before any code of the paglet. An existing file is complete: an earlier process copied it, and the paglet
    may have changed it. Raises NoRoom for a full disk, and PagletsError for other disk errors. After an error no
    partial copy is left.
    """
    for each in go.files:
        target = _in_scratch(go, each.file.name)
        if not (each.source_path and os.path.exists(each.source_path)) and not os.path.lexists(target):
            # Do not sync in an attempt, because its scratch directory is not used again after a power failure.
            _copy(each, target, lasting=go.entry != "attempt")


def _copy(each: GoFile, target: Path, *, lasting: bool) -> None:
    """Copy one file. `lasting`: True to sync it, so that after a power failure the copy is complete or missing."""
    part = target.with_name(_PART_NAME)
    try:
        with suppress(FileNotFoundError):
            os.unlink(part)
        with open(each.path, "rb") as reading, open(part, "xb", opener=private) as writing:
            shutil.copyfileobj(reading, writing, _COPY_BYTES)
            size = writing.tell()
            if size != each.file.size_bytes:
                wanted = each.file.size_bytes
                raise PagletsError(f"the host's copy of {each.file.name!r} has {size:,} bytes, not {wanted:,}")
            writing.flush()
            os.utime(part, ns=(_copy_mtime_ns(each.file), _copy_mtime_ns(each.file)))
            if lasting:
                os.fsync(writing.fileno())
        os.replace(part, target)
    except OSError as error:
        text = f"the file {each.file.name!r} ({each.file.size_bytes:,} bytes) cannot be copied to the scratch directory"
        full = no_room(error, target.parent)
        raise (NoRoom(f"{text}: {full.message}") if full else PagletsError(f"{text}: {error.strerror}")) from error
    finally:
        with suppress(OSError):
            os.unlink(part)


def _in_scratch(go: Go, name: str) -> Path:
    return Path(go.work_dir) / check_file_name(name)


def _copy_mtime_ns(file: FileRef) -> int:
    """Return the mtime to give to a copy of `file`, in nanoseconds. It depends only on the file's hash."""
    return (_COPY_MTIME_SECONDS + 2 * int(file.sha256[:6], 16)) * 1_000_000_000


def known_files(go: Go) -> dict[str, RegisteredFile]:
    """Return the registered files at the start of the process, by name.

    A file that arrived with the paglet has no `source_path`.
    """
    return {
        each.file.name: RegisteredFile(
            file=each.file,
            source_path=each.source_path,
            source_mtime_ns=each.source_mtime_ns,
            source_inode=each.source_inode,
        )
        for each in go.files
    }


# The class below handles files that the paglet registers.


class RegisteredFiles:
    """The registered files of one process. `stored`: the files that the host has committed, by name.

    `unit`: a function that returns the unit of work of the calling thread.
    """

    def __init__(self, go: Go, request: Request, publisher: BlobPublisher, unit: Callable[[], UnitOfWork]) -> None:
        self.stored = known_files(go)
        self._go = go
        self._request = request
        self._publisher = publisher
        self._unit = unit

    def register(self, path: str | Path, name: str | None, mode: str) -> FileRef:
        """Publish a file now, and register it when the current unit of work is committed."""
        source = absolute(path)
        name = self._check_name(source.name if name is None else name)
        if mode not in MODES:
            raise Invalid(f"the mode is {mode!r:.40}: register a file with mode 'copy' or 'move'")
        if mode == "move" and os.path.islink(source):
            raise Invalid(f"{printable(source)} is a link: to move a file, name the file itself")
        registered = self._publish(source, name, mode)
        self._add(registered)
        if mode == "move" and database_at(source) is not None and not source.is_relative_to(self._go.work_dir):
            say(f"{printable(source)} stays where it is: close the connection to this database before you register it")
        return registered.file

    def all(self) -> tuple[FileRef, ...]:
        """Return the refs of all files that arrived with the paglet or were registered, sorted by name."""
        return tuple(known.file for _, known in sorted(self._all().items()))

    def path(self, name: str) -> Path:
        """Return the current path of the registered file `name`. Raises Unknown if there is no such file."""
        known = self._all()
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise Unknown(f"no file {name!r:.220} came with this paglet or is registered; there are: {names}")
        source = self._source(known[name])
        return source if source.exists() else _in_scratch(self._go, name)

    def refresh(self) -> None:
        """Publish changed files again. A file that no longer exists keeps its published content."""
        for known in self._all().values():
            source = self._source(known)
            if _has_changed(source, known):
                self._add(self._publish(source, known.file.name, known.file.mode))

    def _publish(self, source: Path, name: str, mode: str) -> RegisteredFile:
        try:
            str(source).encode()
        except UnicodeEncodeError:
            raise Invalid(f"{printable(source)} cannot be registered: its path is not valid Unicode") from None
        found = self._publisher.publish_copy(source)
        blob = found.blob
        return RegisteredFile(
            file=FileRef(name=name, sha256=blob.sha256, size_bytes=blob.size_bytes, mode=mode),
            source_path=str(source),
            source_mtime_ns=found.stat.mtime_ns,
            source_inode=found.stat.inode,
        )

    def _add(self, registered: RegisteredFile) -> None:
        unit = self._unit()
        if unit.at_once:
            self._request("commit", Commit(changes=Changes(files=(registered,))))
            self.committed((registered,))
        else:
            unit.files[registered.file.name] = registered
            unit.effects.append(_Registration(self, registered))

    def committed(self, files: Iterable[RegisteredFile]) -> None:
        """Record that the host has committed the files."""
        self.stored.update((each.file.name, each) for each in files)

    def _all(self) -> dict[str, RegisteredFile]:
        return {**self.stored, **self._unit().files}

    def _source(self, known: RegisteredFile) -> Path:
        return Path(known.source_path) if known.source_path else _in_scratch(self._go, known.file.name)

    def _check_name(self, name: str) -> str:
        check_file_name(name)
        for other in self._all():
            if other != name and other.casefold() == name.casefold():
                raise Invalid(
                    f"{name!r} differs from the registered {other!r} only in case: some disks cannot hold both files"
                )
        return name


@dataclass(frozen=True, slots=True)
class _Registration:
    """The effect that records a registered file when its unit of work is committed (`unit_of_work.Effect`)."""

    files: RegisteredFiles
    registered: RegisteredFile

    def commit(self) -> None:
        self.files.committed((self.registered,))

    def rollback(self) -> None:
        """Do nothing, because the host removes the unused blob after an hour."""


def _has_changed(source: Path, known: RegisteredFile) -> bool:
    """Return True if the file at `source` was replaced or changed since it was registered; False if it is missing.

    A SQLite database with a `-wal` or `-journal` file counts as changed.
    """
    try:
        os.stat(source)
    except OSError as error:
        if error.errno in _GONE:
            return False
    found = stat_of(source)
    if found.size_bytes != known.file.size_bytes or database_at(source) is not None:
        return True
    is_unchanged = (found.mtime_ns, found.inode) == (known.source_mtime_ns, known.source_inode)
    return not is_unchanged and found.mtime_ns != _copy_mtime_ns(known.file)
