"""Files that travel with a paglet: copied to its scratch directory on arrival, published when registered."""

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
"""The mtime of copies: 2000-01-01, plus some days that depend on the bytes. A copy with this mtime is unchanged.
Seconds are whole and even, because every file system can store those."""

_PART_NAME = ".paglets-part".ljust(MAX_FILE_NAME_BYTES + 1, "-")
"""Name of an unfinished copy. It is longer than any registered name, so that the two cannot clash."""

_COPY_BYTES = 1 << 20


# Files that come with the paglet.


def copy_files(go: Go) -> None:
    """Copy the files of `go` into the scratch directory, except those that exist there.

    This runs before any code of the paglet. An existing file was copied by an earlier process or changed by the paglet:
    a file appears under its name only when it is whole. Raises NoRoom for a full disk, PagletsError for other errors of
    the disk; no part of a file is left.
    """
    for each in go.files:
        target = _in_scratch(go, each.file.name)
        if not (each.source_path and os.path.exists(each.source_path)) and not os.path.lexists(target):
            # The scratch directory of an attempt is not used again after a power failure.
            _copy(each, target, lasting=go.entry != "attempt")


def _copy(each: GoFile, target: Path, *, lasting: bool) -> None:
    """Copy one file. `lasting`: after a power failure the name has all bytes of the file, or does not exist."""
    part = target.with_name(_PART_NAME)
    try:
        with suppress(FileNotFoundError):
            os.unlink(part)
        with open(each.path, "rb") as reading, open(part, "xb", opener=private) as writing:
            shutil.copyfileobj(reading, writing, _COPY_BYTES)
            size = writing.tell()
            if size != each.file.size_bytes:
                raise PagletsError(f"the file {each.file.name!r} has {size:,} bytes here, not {each.file.size_bytes:,}")
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
    """Return the mtime_ns of a copy of `file`."""
    return (_COPY_MTIME_SECONDS + 2 * int(file.sha256[:6], 16)) * 1_000_000_000


def known_files(go: Go) -> dict[str, RegisteredFile]:
    """Return the files that are registered when the process starts. Those without a source came with the paglet."""
    return {
        each.file.name: RegisteredFile(
            file=each.file,
            source_path=each.source_path,
            source_mtime_ns=each.source_mtime_ns,
            source_inode=each.source_inode,
        )
        for each in go.files
    }


# Files that the paglet registers.


class RegisteredFiles:
    """The registered files of one process. `stored`: those that the host has, by name.

    `unit` returns the unit of work of the calling thread.
    """

    def __init__(self, go: Go, request: Request, publisher: BlobPublisher, unit: Callable[[], UnitOfWork]) -> None:
        self.stored = known_files(go)
        self._go = go
        self._request = request
        self._publisher = publisher
        self._unit = unit

    def register(self, path: str | Path, name: str | None, mode: str) -> FileRef:
        """Publish the file now. It is registered when the changes of the current unit of work are committed."""
        source = absolute(path)
        name = self._check_name(source.name if name is None else name)
        if mode not in MODES:
            raise Invalid(f"mode is {mode!r:.40}: a file is registered with mode 'copy' or 'move'")
        if mode == "move" and os.path.islink(source):
            raise Invalid(f"{printable(source)} is a link: to move a file, name the file itself")
        registered = self._publish(source, name, mode)
        self._add(registered)
        if mode == "move" and database_at(source) is not None and not source.is_relative_to(self._go.work_dir):
            say(f"{printable(source)} stays where it is: close the connection of this database first")
        return registered.file

    def all(self) -> tuple[FileRef, ...]:
        """Return the files that came with the paglet or are registered, in the order of their names."""
        return tuple(known.file for _, known in sorted(self._all().items()))

    def path(self, name: str) -> Path:
        """Return the present path of the file `name`. Raises Unknown."""
        known = self._all()
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise Unknown(f"no file {name!r:.220} came with this paglet or is registered; there are: {names}")
        source = self._source(known[name])
        return source if source.exists() else _in_scratch(self._go, name)

    def refresh(self) -> None:
        """Publish again the files that have changed. A file that no longer exists keeps its published bytes."""
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
        """Note that the host has these files."""
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
                    f"{name!r} differs from the registered {other!r} only in case: some disks cannot hold both"
                )
        return name


@dataclass(frozen=True, slots=True)
class _Registration:
    """The `unit_of_work.Effect` of a registered file."""

    files: RegisteredFiles
    registered: RegisteredFile

    def commit(self) -> None:
        self.files.committed((self.registered,))

    def rollback(self) -> None:
        """Do nothing: the host removes unused bytes after an hour."""


def _has_changed(source: Path, known: RegisteredFile) -> bool:
    """Return True if another file, or other bytes, are at `source` now; False if there is no file."""
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
